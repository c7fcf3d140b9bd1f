// The cases, on grpc-js.
const assert = require('node:assert/strict');
const path = require('node:path');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const root = path.join(__dirname, '../../../..');
const definition = loader.loadSync(
  ['ping/v1/ping.proto', 'interop/v1/interop.proto', 'grpc/health/v1/health.proto',
    'grpc/reflection/v1/reflection.proto'],
  {
    includeDirs: [path.join(root, 'proto'), path.join(root, 'tests/interop/proto')],
    keepCase: true,
    longs: Number,
    enums: String,
    defaults: true,
  },
);
const { ping, interop, grpc: { health, reflection } } = grpc.loadPackageDefinition(definition);
const Answer = interop.v1.InteropService.service.Answer;

const LIMIT = 4 << 20;
const PATIENCE = 30_000;
const patient = () => ({ deadline: new Date(Date.now() + PATIENCE) });

// A unary or client-streaming call: its reply with the initial and trailing metadata, or its error.
function call(client, method, request, metadata = new grpc.Metadata(), options = patient()) {
  return new Promise((resolve, reject) => {
    let initial, reply, failed;
    const done = (error, value) => { failed = error; reply = value; };
    const called = client[method](request, metadata, options, done);
    called.on('metadata', (value) => { initial = value; });
    called.on('status', (status) => setImmediate(() => {
      if (failed) reject(failed);
      else resolve({ reply, initial, trailing: status.metadata });
    }));
  });
}

async function failure(promise) {
  let value;
  try {
    value = await promise;
  } catch (error) {
    if (error.code !== undefined) return error;
    throw error;
  }
  throw new Error(`no error but ${JSON.stringify(value)}`);
}

// All messages of a stream, or its error.
async function messages(stream) {
  const found = [];
  for await (const message of stream) found.push(message);
  return found;
}

const first = (stream) => new Promise((resolve, reject) => {
  stream.once('data', resolve);
  stream.once('error', reject);
});

const unique = () => `${process.pid} ${process.hrtime.bigint()}`;
const payloadOf = (size) => Buffer.alloc(size - 11, 7);
const code = grpc.status;

const cases = {
  async unary(open) {
    const request = { message: 'ping', payload: Buffer.from([0, 1, 255]), sequence: 7 };
    const { reply } = await call(open(ping.v1.PingService), 'ping', request);
    assert.deepEqual(reply, { ...request, message: 'pong' });
  },

  async watch(open) {
    const pongs = open(ping.v1.PingService).watch({ count: 3 }, patient());
    assert.deepEqual((await messages(pongs)).map((pong) => pong.sequence), [0, 1, 2]);
  },

  async collect(open) {
    const reply = await new Promise((resolve, reject) => {
      const pings = open(ping.v1.PingService).collect(
        patient(), (error, value) => (error ? reject(error) : resolve(value)));
      for (let n = 0; n < 3; n += 1) pings.write({ payload: Buffer.alloc(100) });
      pings.end();
    });
    assert.deepEqual(reply, { count: 3, bytes: 300 });
  },

  async converse(open) {
    const turns = open(ping.v1.PingService).converse(patient());
    const replies = [];
    turns.write({ message: 'ping', sequence: 0 });
    for await (const { message, sequence } of turns) {
      replies.push([message, sequence]);
      turns.write({ message: sequence < 2 ? 'ping' : 'end', sequence: sequence + 1 });
    }
    assert.deepEqual(replies, [['pong', 0], ['pong', 1], ['pong', 2]]);
  },

  async metadata(open) {
    const text = 'some text';
    const binary = Buffer.from([0, 127, 128, 255]);
    const sent = new grpc.Metadata();
    sent.set('echo-text', text);
    sent.set('echo-bin', binary);
    const client = open(interop.v1.InteropService);
    const { initial, trailing } = await call(client, 'answer', {}, sent);
    assert.deepEqual(initial.get('echo-text'), [text]);
    assert.deepEqual(initial.get('echo-bin'), [binary]);
    assert.deepEqual(trailing.get('trailing-text'), [text]);
    assert.deepEqual(trailing.get('trailing-bin'), [binary]);
  },

  async status(open) {
    const client = open(interop.v1.InteropService);
    const value = ping.v1.PingService.service.Ping.requestSerialize({ sequence: 7 });
    const details = [{ type_url: 'type.googleapis.com/ping.v1.PingRequest', value }];
    for (let number = 1; number <= 16; number += 1) {
      const request = { code: number, message: '100 % naïve: 鍵がない\n', details };
      const error = await failure(call(client, 'answer', request));
      assert.equal(error.code, number);
      assert.equal(error.details, request.message);
      const [found] = error.metadata.get('grpc-status-details-bin');
      assert.deepEqual(found, Answer.requestSerialize(request));
    }
  },

  async deadline(open) {
    const client = open(interop.v1.InteropService);
    const id = unique();
    // Connecting is not to take from the deadline.
    await call(client, 'answer', {});
    const held = client.hold({ id }, { deadline: new Date(Date.now() + 500) });
    assert.equal((await failure(messages(held))).code, code.DEADLINE_EXCEEDED);
    await call(client, 'ended', { id });
  },

  async cancel(open) {
    const client = open(interop.v1.InteropService);
    const id = unique();
    const held = client.hold({ id });
    await first(held);
    held.on('error', () => {});
    held.cancel();
    await call(client, 'ended', { id });
  },

  async sizes(open) {
    const client = open(ping.v1.PingService);
    const payloads = [1, 1 << 10, 1 << 16, 1 << 20].map((length) => Buffer.alloc(length, 7));
    for (const payload of [...payloads, payloadOf(LIMIT - 1)]) {
      const { reply } = await call(client, 'ping', { message: 'ping', payload });
      assert.ok(reply.payload.equals(payload), `payload of ${payload.length} bytes`);
    }
    const tooLarge = { message: 'ping', payload: payloadOf(LIMIT + 1) };
    const error = await failure(call(client, 'ping', tooLarge));
    assert.ok([code.RESOURCE_EXHAUSTED, code.OUT_OF_RANGE].includes(error.code), error.message);
    await call(client, 'ping', {});
  },

  async gzip(open) {
    const client = open(ping.v1.PingService, {
      'grpc.default_compression_algorithm': grpc.compressionAlgorithms.gzip,
    });
    const payload = Buffer.alloc(1 << 16, 7);
    const { reply, initial } = await call(client, 'ping', { message: 'ping', payload });
    assert.ok(reply.payload.equals(payload), 'another payload came back');
    assert.deepEqual(initial.get('request-encoding'), ['gzip']);
    assert.deepEqual(initial.get('response-encoding'), ['gzip']);
  },

  async parallel(open) {
    const client = open(ping.v1.PingService);
    const calls = Array.from({ length: 100 }, (_, sequence) => (
      call(client, 'ping', { payload: Buffer.alloc(1000), sequence })));
    const replies = await Promise.all(calls);
    assert.deepEqual(replies.map(({ reply }) => reply.sequence), [...replies.keys()]);
  },

  async lost(open) {
    const client = open(interop.v1.InteropService);
    const held = client.hold({ id: unique() }, patient());
    await first(held);
    const ended = failure(messages(held));
    await failure(call(client, 'crash', {}));
    assert.equal((await ended).code, code.UNAVAILABLE);
  },

  async restart(open) {
    const client = open(ping.v1.PingService);
    await call(client, 'ping', {});
    await failure(call(open(interop.v1.InteropService), 'crash', {}));
    const waiting = new grpc.Metadata({ waitForReady: true });
    for (let attempt = 0; ; attempt += 1) {
      try {
        await call(client, 'ping', {}, waiting);
        return;
      } catch (error) {
        // The connection that is being lost may take another call with it.
        if (error.code !== code.UNAVAILABLE || attempt === 9) throw error;
      }
    }
  },

  async health(open) {
    const client = open(health.v1.Health);
    for (const service of ['', 'ping.v1.PingService']) {
      const { reply } = await call(client, 'check', { service });
      assert.equal(reply.status, 'SERVING');
    }
    const error = await failure(call(client, 'check', { service: 'no.such.Service' }));
    assert.equal(error.code, code.NOT_FOUND);
  },

  async reflection(open) {
    const service = 'ping.v1.PingService';
    const asking = open(reflection.v1.ServerReflection).serverReflectionInfo(patient());
    asking.write({ list_services: '' });
    asking.write({ file_containing_symbol: service });
    asking.end();
    const [services, files] = await messages(asking);
    const listed = services.list_services_response.service.map(({ name }) => name);
    assert.ok(listed.includes(service), `not listed: ${listed}`);
    const found = files.file_descriptor_response.file_descriptor_proto;
    assert.ok(found.some((file) => file.includes('PingService')), 'no file of the service');
  },
};

// Runs each case on a channel of its own, says what was different, and whether nothing was.
async function run(address, chosen) {
  let failed = false;
  for (const name of chosen) {
    const clients = [];
    const open = (Client, options = {}) => {
      const client = new Client(address, grpc.credentials.createInsecure(), options);
      clients.push(client);
      return client;
    };
    try {
      await cases[name](open);
      console.log(`${name}\tok`);
    } catch (error) {
      failed = true;
      console.log(`${name}\t${String(error.message).replace(/\s+/g, ' ')}`);
    }
    clients.forEach((client) => client.close());
  }
  return !failed;
}

module.exports = { definition, run };
