// The server that our channel meets: Ping, health and the tests' own service.
import http2 from 'node:http2';
import { fromBinary } from '@bufbuild/protobuf';
import { Code, ConnectError } from '@connectrpc/connect';
import { connectNodeAdapter } from '@connectrpc/connect-node';
import { Health, Interop, Ping, PingRequest } from './protos.js';

const pong = ({ payload, sequence }) => ({ message: 'pong', payload, sequence });

const pings = {
  ping: (request) => pong(request),

  async* converse(requests) {
    for await (const request of requests) {
      if (request.message === 'end') return;
      yield pong(request);
    }
  },

  async* watch({ count, payload }) {
    for (let sequence = 0; sequence < count; sequence += 1) {
      yield pong({ payload, sequence: BigInt(sequence) });
    }
  },

  async collect(requests) {
    const collected = { count: 0n, bytes: 0n };
    for await (const { payload } of requests) {
      collected.count += 1n;
      collected.bytes += BigInt(payload.length);
    }
    return collected;
  },
};

// Those who wait for a call's end, by its identifier, and the identifiers of calls that have ended.
const waiting = new Map();
const over = new Set();

const tests = {
  answer({ code, message, details }, context) {
    for (const kind of ['text', 'bin']) {
      const value = context.requestHeader.get(`echo-${kind}`);
      if (value !== null) {
        context.responseHeader.set(`echo-${kind}`, value);
        context.responseTrailer.set(`trailing-${kind}`, value);
      }
    }
    if (code === 0) return {};
    // The library makes Any of the details.
    const unpacked = details.map(({ value }) => ({ desc: PingRequest, value: fromBinary(PingRequest, value) }));
    throw new ConnectError(message, code, undefined, unpacked);
  },

  async* hold({ id }, { signal }) {
    const ended = new Promise((resolve) => { signal.addEventListener('abort', resolve); });
    yield {};
    await ended;
    over.add(id);
    waiting.get(id)?.();
    // The server's clock may be first to see the deadline: a call that ends so has not succeeded.
    throw signal.reason;
  },

  async ended({ id }) {
    if (!over.has(id)) await new Promise((resolve) => { waiting.set(id, resolve); });
    return {};
  },

  crash: () => process.exit(0),
};

const health = {
  check({ service }) {
    const serving = 1;
    if (['', Ping.typeName].includes(service)) return { status: serving };
    throw new ConnectError('there is no such service', Code.NotFound);
  },
};

export function serve(socket, address) {
  const routes = (router) => {
    router.service(Ping, pings);
    router.service(Interop, tests);
    router.service(Health, health);
  };
  const handler = connectNodeAdapter({ routes, readMaxBytes: 4 << 20 });
  http2.createServer(handler).listen(socket, () => console.log(`listening on ${address}`));
}
