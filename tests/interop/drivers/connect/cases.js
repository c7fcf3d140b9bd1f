// The cases, on connect-node's gRPC transport.
import assert from 'node:assert/strict';
import net from 'node:net';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import {
  Code, ConnectError, createClient, decodeBinaryHeader, encodeBinaryHeader,
} from '@connectrpc/connect';
import { compressionGzip, createGrpcTransport } from '@connectrpc/connect-node';
import { Health, Interop, Ping, PingRequest, Reflection } from './protos.js';

const LIMIT = 4 << 20;
const patient = { timeoutMs: 30_000 };

async function failure(promise) {
  let value;
  try {
    value = await promise;
  } catch (error) {
    if (error instanceof ConnectError) return error;
    throw error;
  }
  throw new Error(`no error but ${JSON.stringify(value).slice(0, 100)}`);
}

async function messages(stream) {
  const found = [];
  for await (const message of stream) found.push(message);
  return found;
}

async function* all(...values) {
  yield* values;
}

const unique = () => `${process.pid} ${process.hrtime.bigint()}`;
const payloadOf = (size) => new Uint8Array(size - 11).fill(7);
const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

const cases = {
  async unary(open) {
    const payload = Uint8Array.of(0, 1, 255);
    const reply = await open(Ping).ping({ message: 'ping', payload, sequence: 7n }, patient);
    assert.deepEqual([reply.message, [...reply.payload], reply.sequence], ['pong', [0, 1, 255], 7n]);
  },

  async watch(open) {
    const pongs = await messages(open(Ping).watch({ count: 3 }, patient));
    assert.deepEqual(pongs.map((pong) => pong.sequence), [0n, 1n, 2n]);
  },

  async collect(open) {
    const ping = { payload: new Uint8Array(100) };
    const reply = await open(Ping).collect(all(ping, ping, ping), patient);
    assert.deepEqual([reply.count, reply.bytes], [3n, 300n]);
  },

  async converse(open) {
    let replied;
    async function* turns() {
      for (let sequence = 0n; sequence < 3n; sequence += 1n) {
        const reply = new Promise((resolve) => { replied = resolve; });
        yield { message: 'ping', sequence };
        await reply;
      }
      yield { message: 'end' };
    }
    const replies = [];
    for await (const { message, sequence } of open(Ping).converse(turns(), patient)) {
      replies.push([message, sequence]);
      replied();
    }
    assert.deepEqual(replies, [['pong', 0n], ['pong', 1n], ['pong', 2n]]);
  },

  async metadata(open) {
    const binary = [0, 127, 128, 255];
    const encoded = encodeBinaryHeader(Uint8Array.from(binary));
    const headers = { 'echo-text': 'some text', 'echo-bin': encoded };
    let initial, trailing;
    await open(Interop).answer({}, {
      ...patient,
      headers,
      onHeader: (value) => { initial = value; },
      onTrailer: (value) => { trailing = value; },
    });
    for (const [found, name] of [[initial, 'echo'], [trailing, 'trailing']]) {
      assert.equal(found.get(`${name}-text`), 'some text');
      assert.deepEqual([...decodeBinaryHeader(found.get(`${name}-bin`))], binary);
    }
  },

  async status(open) {
    const value = toBinary(PingRequest, create(PingRequest, { sequence: 7n }));
    const details = [{ typeUrl: 'type.googleapis.com/ping.v1.PingRequest', value }];
    for (let number = 1; number <= 16; number += 1) {
      const request = { code: number, message: '100 % naïve: 鍵がない\n', details };
      const error = await failure(open(Interop).answer(request, patient));
      assert.equal(error.code, number);
      assert.equal(error.rawMessage, request.message);
      assert.deepEqual(error.details.map((detail) => detail.type), ['ping.v1.PingRequest']);
      assert.equal(fromBinary(PingRequest, error.details[0].value).sequence, 7n);
    }
  },

  async deadline(open) {
    const client = open(Interop);
    const id = unique();
    // Connecting is not to take from the deadline.
    await client.answer({}, patient);
    const error = await failure(messages(client.hold({ id }, { timeoutMs: 500 })));
    assert.equal(error.code, Code.DeadlineExceeded);
    await client.ended({ id }, patient);
  },

  async cancel(open) {
    const client = open(Interop);
    const id = unique();
    const cancelled = new AbortController();
    const held = client.hold({ id }, { signal: cancelled.signal })[Symbol.asyncIterator]();
    await held.next();
    cancelled.abort();
    assert.equal((await failure(held.next())).code, Code.Canceled);
    await client.ended({ id }, patient);
  },

  async sizes(open) {
    const client = open(Ping);
    const payloads = [1, 1 << 10, 1 << 16, 1 << 20].map((length) => new Uint8Array(length).fill(7));
    for (const payload of [...payloads, payloadOf(LIMIT - 1)]) {
      const reply = await client.ping({ message: 'ping', payload }, patient);
      assert.ok(Buffer.from(reply.payload).equals(payload), `payload of ${payload.length} bytes`);
    }
    const tooLarge = { message: 'ping', payload: payloadOf(LIMIT + 1) };
    const error = await failure(client.ping(tooLarge, patient));
    assert.ok([Code.ResourceExhausted, Code.OutOfRange].includes(error.code), error.message);
    await client.ping({}, patient);
  },

  async gzip(open) {
    const client = open(Ping, { sendCompression: compressionGzip });
    const payload = new Uint8Array(1 << 16).fill(7);
    let initial;
    const onHeader = (value) => { initial = value; };
    const reply = await client.ping({ message: 'ping', payload }, { ...patient, onHeader });
    assert.ok(Buffer.from(reply.payload).equals(payload), 'another payload came back');
    assert.equal(initial.get('request-encoding'), 'gzip');
    assert.equal(initial.get('response-encoding'), 'gzip');
  },

  async parallel(open) {
    const client = open(Ping);
    const calls = Array.from({ length: 100 }, (_, sequence) => (
      client.ping({ payload: new Uint8Array(1000), sequence: BigInt(sequence) }, patient)));
    const replies = await Promise.all(calls);
    assert.deepEqual(replies.map(({ sequence }) => Number(sequence)), [...replies.keys()]);
  },

  async lost(open) {
    const client = open(Interop);
    const held = client.hold({ id: unique() }, patient)[Symbol.asyncIterator]();
    await held.next();
    const ended = failure(held.next());
    await failure(client.crash({}, patient));
    assert.equal((await ended).code, Code.Unavailable);
  },

  async restart(open) {
    const client = open(Ping);
    await client.ping({}, patient);
    await failure(open(Interop).crash({}, patient));
    // The library does not wait for a server.
    for (let attempt = 0; ; attempt += 1) {
      try {
        await client.ping({}, patient);
        return;
      } catch (error) {
        if (!(error instanceof ConnectError) || attempt === 600) throw error;
        await pause(50);
      }
    }
  },

  async health(open) {
    const client = open(Health);
    for (const service of ['', 'ping.v1.PingService']) {
      const serving = 1;
      assert.equal((await client.check({ service }, patient)).status, serving);
    }
    const error = await failure(client.check({ service: 'no.such.Service' }, patient));
    assert.equal(error.code, Code.NotFound);
  },

  async reflection(open) {
    const service = 'ping.v1.PingService';
    const questions = all(
      { messageRequest: { case: 'listServices', value: '' } },
      { messageRequest: { case: 'fileContainingSymbol', value: service } },
    );
    const answers = open(Reflection).serverReflectionInfo(questions, patient);
    const [services, files] = (await messages(answers)).map(({ messageResponse }) => messageResponse.value);
    const listed = services.service.map(({ name }) => name);
    assert.ok(listed.includes(service), `not listed: ${listed}`);
    const found = files.fileDescriptorProto;
    assert.ok(found.some((file) => Buffer.from(file).includes('PingService')), 'no file of the service');
  },
};

// Runs each case on a channel of its own, says what was different, and whether nothing was.
export async function run(socket, chosen) {
  let failed = false;
  for (const name of chosen) {
    const open = (service, options = {}) => createClient(service, createGrpcTransport({
      // Whatever host this names, the connection is the one that is made here.
      baseUrl: 'http://localhost',
      nodeOptions: { createConnection: () => net.connect(socket) },
      ...options,
    }));
    try {
      await cases[name](open);
      console.log(`${name}\tok`);
    } catch (error) {
      failed = true;
      console.log(`${name}\t${String(error.message).replace(/\s+/g, ' ').slice(0, 500)}`);
    }
  }
  return !failed;
}
