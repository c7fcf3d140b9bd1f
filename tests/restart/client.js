// Calls a server that is taken over again and again; see ../host/hand_overs.rs. Until its input ends:
// unary calls and a stream on each of four channels, and new connections.
const grpc = require('@grpc/grpc-js');
const path = require('node:path');
const loader = require('@grpc/proto-loader');

const CHANNELS = 4;
const CALL = 16;
const CONNECT = 10;
// Channels of one process share connections unless they are told not to.
const ALONE = { 'grpc.use_local_subchannel_pool': 1 };

const definition = loader.loadSync('health/v1/health.proto', {
  includeDirs: [path.join(__dirname, 'node_modules/grpc-health-check/proto')],
});
const { Health } = grpc.loadPackageDefinition(definition).grpc.health.v1;
const address = process.argv[2];
const outcome = () => ({ all: 0, failures: new Map() });
const calls = outcome();
const connects = outcome();
const streams = outcome();
let stopped = false;

function note(to, error) {
  to.all += 1;
  if (error) {
    const text = `${error.code}: ${error.details}`;
    to.failures.set(text, (to.failures.get(text) ?? 0) + 1);
  }
}

const client = () => new Health(address, grpc.credentials.createInsecure(), ALONE);
const check = (stub) => new Promise((resolve) => {
  stub.check({}, { deadline: Date.now() + 30_000 }, (error) => resolve(error));
});
const pause = (milliseconds) => new Promise((resolve) => { setTimeout(resolve, milliseconds); });

async function every(interval, act) {
  while (!stopped) {
    await act();
    await pause(interval);
  }
}

const watching = new Set();

// One stream after the other, each until its server ends it.
async function watch(stub) {
  while (!stopped) {
    const stream = stub.watch({});
    watching.add(stream);
    const error = await new Promise((resolve) => {
      stream.on('data', () => {});
      stream.on('error', resolve);
      stream.on('end', () => resolve(undefined));
    });
    watching.delete(stream);
    if (stopped) return;
    // The end at the server's drain deadline.
    note(streams, error && error.code !== grpc.status.UNAVAILABLE ? error : undefined);
  }
}

async function main() {
  const stubs = Array.from({ length: CHANNELS }, client);
  const tasks = [];
  for (const stub of stubs) {
    const error = await check(stub);
    if (error) throw error;
    tasks.push(every(CALL, async () => note(calls, await check(stub))), watch(stub));
  }
  tasks.push(every(CONNECT, async () => {
    const stub = client();
    note(connects, await check(stub));
    stub.close();
  }));
  console.log('ready');
  await new Promise((resolve) => { process.stdin.resume().on('end', resolve); });
  stopped = true;
  watching.forEach((stream) => stream.cancel());
  await Promise.all(tasks);
  stubs.forEach((stub) => stub.close());
  const failed = ({ failures }) => [...failures.values()].reduce((sum, times) => sum + times, 0);
  const named = { calls, connects, streams };
  console.log(Object.entries(named).map(([name, o]) => `${name}=${o.all} failed=${failed(o)}`).join(' '));
  for (const { failures } of Object.values(named)) {
    failures.forEach((times, text) => console.log(times, 'times', text));
  }
}

main();
