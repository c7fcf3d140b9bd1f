// The server that our channel meets: Ping, health, reflection and the tests' own service.
const grpc = require('@grpc/grpc-js');
const { HealthImplementation } = require('grpc-health-check');
const { ReflectionService } = require('@grpc/reflection');
const { definition } = require('./cases');

const { ping, interop } = grpc.loadPackageDefinition(definition);
const Answer = interop.v1.InteropService.service.Answer;

// A 0 that is set would be sent, and make the largest pong larger than its ping.
const pong = ({ payload, sequence }) => (
  { message: 'pong', payload, sequence: sequence || undefined });

const pings = {
  ping: (call, done) => done(null, pong(call.request)),

  converse(call) {
    call.on('data', (turn) => (turn.message === 'end' ? call.end() : call.write(pong(turn))));
    call.on('end', () => call.end());
  },

  watch(call) {
    const { count, payload } = call.request;
    for (let sequence = 0; sequence < count; sequence += 1) call.write(pong({ payload, sequence }));
    call.end();
  },

  collect(call, done) {
    const collected = { count: 0, bytes: 0 };
    call.on('data', ({ payload }) => {
      collected.count += 1;
      collected.bytes += payload.length;
    });
    call.on('end', () => done(null, collected));
  },
};

// Those who wait for a call's end, by its identifier, and the identifiers of calls that have ended.
const waiting = new Map();
const over = new Set();

const tests = {
  answer(call, done) {
    const [initial, trailing] = [new grpc.Metadata(), new grpc.Metadata()];
    for (const kind of ['text', 'bin']) {
      const [value] = call.metadata.get(`echo-${kind}`);
      if (value !== undefined) {
        initial.set(`echo-${kind}`, value);
        trailing.set(`trailing-${kind}`, value);
      }
    }
    call.sendMetadata(initial);
    const { code, message } = call.request;
    if (code === 0) {
      done(null, {}, trailing);
    } else {
      trailing.set('grpc-status-details-bin', Answer.requestSerialize(call.request));
      done({ code, details: message, metadata: trailing });
    }
  },

  hold(call) {
    const { id } = call.request;
    call.on('cancelled', () => {
      over.add(id);
      waiting.get(id)?.();
    });
    call.write({});
  },

  ended(call, done) {
    const { id } = call.request;
    if (over.has(id)) done(null, {});
    else waiting.set(id, () => done(null, {}));
  },

  crash: () => process.exit(0),
};

function serve(address) {
  const server = new grpc.Server();
  server.addService(ping.v1.PingService.service, pings);
  server.addService(interop.v1.InteropService.service, tests);
  new HealthImplementation({ '': 'SERVING', 'ping.v1.PingService': 'SERVING' }).addToServer(server);
  new ReflectionService(definition).addToServer(server);
  server.bindAsync(address, grpc.ServerCredentials.createInsecure(), (error) => {
    if (error) throw error;
    console.log(`listening on ${address}`);
  });
}

module.exports = { serve };
