// A web page's ways to the broker, in Node: gRPC-Web through connect-web, server-sent events through an
// EventSource, and plain HTTP through fetch.
//
// usage: node --experimental-eventsource web.js ADDRESS CASE DESCRIPTORS
//
// DESCRIPTORS is a file with the contract as a FileDescriptorSet. Exits with 0 if the case holds. The line
// `drain`, on stdout, asks the caller to end the broker.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import net from 'node:net';
import { createFileRegistry, fromBinary } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { Code, ConnectError, createClient } from '@connectrpc/connect';
import { createGrpcWebTransport } from '@connectrpc/connect-web';

const SERVICE = 'pubsub.v1.PubSubService';
// Far above what anything here takes on a busy machine.
const PATIENCE_MS = 60_000;

const [address, wanted, descriptors] = process.argv.slice(2);
const url = `http://${address}`;

/** Awaits what must happen. */
async function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited in vain for ${what}`)), PATIENCE_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

function connect() {
  const set = fromBinary(FileDescriptorSetSchema, readFileSync(descriptors));
  const service = createFileRegistry(set).getService(SERVICE);
  return createClient(service, createGrpcWebTransport({ baseUrl: url }));
}

const deadline = { timeoutMs: PATIENCE_MS };

/** Awaits what must be refused, and hands back the error. */
async function refused(code, call) {
  const error = await call.then(
    () => assert.fail(`no error instead of ${Code[code]}`),
    (error) => ConnectError.from(error),
  );
  assert.equal(error.code, code, error);
  return error;
}

/** Publishes over plain HTTP, and hands back what became of the message. */
async function post(topic, body, headers = {}) {
  const path = `${url}/v1/topics/${encodeURIComponent(topic)}`;
  const answer = await fetch(path, { method: 'POST', body, headers });
  assert.equal(answer.status, 200);
  return answer.json();
}

/** An EventSource, read one event at a time. */
class Events {
  constructor(base, query, types = []) {
    this.waiting = [];
    this.source = new EventSource(`${base}/v1/events?${new URLSearchParams(query)}`);
    for (const type of ['message', 'gap', 'missed', 'closed', 'end', ...types]) {
      this.source.addEventListener(type, (event) => this.hear(event));
    }
    this.live = once(this.source, 'open');
  }

  hear(event) {
    const { type, data, lastEventId } = event;
    this.waiting.push({ type, data, lastEventId });
    this.heard?.();
  }

  async next() {
    while (this.waiting.length === 0) {
      await within(new Promise((resolve) => { this.heard = resolve; }), 'an event');
    }
    return this.waiting.shift();
  }
}

async function live(query, types) {
  const events = new Events(url, query, types);
  await within(events.live, 'the stream');
  return events;
}

/** Passes connections on to the broker, and cuts them all when asked to. */
class Cutter {
  async start() {
    const [host, port] = address.split(':');
    this.open = new Set();
    this.server = net.createServer((inward) => {
      const outward = net.connect(port, host);
      for (const [from, to] of [[inward, outward], [outward, inward]]) {
        this.open.add(from);
        from.pipe(to);
        from.on('error', () => to.destroy());
        from.on('close', () => {
          this.open.delete(from);
          to.destroy();
        });
      }
    });
    await once(this.server.listen(0, '127.0.0.1'), 'listening');
    this.url = `http://127.0.0.1:${this.server.address().port}`;
  }

  cut() {
    for (const socket of this.open) socket.destroy();
  }
}

const cases = {
  async publishes_and_subscribes_in_grpc_web() {
    const client = connect();
    const topic = '聊天.room-42';
    const stream = client.subscribe({ topic }, deadline)[Symbol.asyncIterator]();
    const first = stream.next();
    // The stream is live once its headers are there, which connect-web does not tell: until someone hears.
    const payload = new Uint8Array([...Array(256).keys()]);
    const fields = { attributes: { colour: 'grün' }, tag: 't', key: 'k', id: 'mine' };
    let outcome;
    do {
      outcome = await client.publish({ topic, payload, ...fields }, deadline);
    } while (outcome.matched === 0);
    assert.deepEqual([outcome.id, outcome.matched, outcome.delivered], ['mine', 1, 1]);
    const { value: message } = await first;
    assert.deepEqual(message.payload, payload);
    assert.deepEqual(message.attributes, fields.attributes);
    assert.deepEqual([message.topic, message.tag, message.key, message.id], [topic, 't', 'k', 'mine']);
    assert.equal(message.sequence, outcome.sequence);
    for (let count = 0; count < 1_000; count += 1) await client.publish({ topic, text: `${count}` }, deadline);
    for (let count = 0; count < 1_000; count += 1) {
      const { value } = await stream.next();
      assert.equal(new TextDecoder().decode(value.payload), `${count}`);
    }
  },

  async is_told_what_to_change_in_grpc_web() {
    const client = connect();
    const error = await refused(Code.InvalidArgument, client.publish({ topic: 'a b' }, deadline));
    assert.match(error.rawMessage, /blank/);
    assert.deepEqual(error.details.map((detail) => detail.type), ['google.rpc.BadRequest']);
    const large = client.publish({ topic: 'a', payload: new Uint8Array(1024 * 1024 + 1) }, deadline);
    await refused(Code.ResourceExhausted, large);
    const stream = client.subscribe({ topic: 'a.>.b' }, deadline)[Symbol.asyncIterator]();
    await refused(Code.InvalidArgument, stream.next());
  },

  async is_told_of_the_drain_in_grpc_web() {
    const client = connect();
    const stream = client.subscribe({ topic: 'a' }, deadline)[Symbol.asyncIterator]();
    const first = stream.next();
    while ((await client.publish({ topic: 'a', text: 'last' }, deadline)).matched === 0);
    console.log('drain');
    assert.equal(new TextDecoder().decode((await first).value.payload), 'last');
    const error = await refused(Code.Unavailable, stream.next());
    assert.deepEqual(error.details.map((detail) => detail.type), ['google.rpc.RetryInfo']);
  },

  async hears_events() {
    const topic = 'response:42';
    const events = await live({ topic }, ['base64']);
    const texts = ['plain', 'two\nlines', ' blank\n', '', 'data: x\n\nevent: end', 'räume 🦀'];
    for (const text of texts) {
      await post(topic, text);
      assert.deepEqual(await events.next(), { type: 'message', data: text, lastEventId: '' });
    }
    await post(topic, new Uint8Array([0xff, 0xfe]));
    assert.deepEqual(await events.next(), { type: 'base64', data: '//4=', lastEventId: '' });

    const json = await live({ topic: '*', format: 'json', tag: 'chosen' });
    await post(topic, 'not this');
    const headers = { 'Fanfare-Tag': 'chosen', 'Fanfare-Attribute-Colour': 'red', 'Content-Type': 'text/x' };
    const outcome = await post(topic, 'but this', headers);
    const message = JSON.parse((await json.next()).data);
    assert.deepEqual(message.attributes, { colour: 'red', 'content-type': 'text/x' });
    assert.deepEqual([message.topic, message.payload, message.id], [topic, 'but this', outcome.id]);
    assert.equal(message.sequence, outcome.sequence);
    events.source.close();
    json.source.close();
  },

  /** Needs `--history '*=messages:100000'`. */
  async comes_back_by_itself_and_misses_nothing() {
    const COUNT = 300;
    const cutter = new Cutter();
    await cutter.start();
    const events = new Events(cutter.url, { topic: 'late' });
    await within(events.live, 'the stream');
    const publishing = (async () => {
      for (let count = 0; count < COUNT; count += 1) {
        await post('late', `${count}`);
        if (count === 100 || count === 200) cutter.cut();
      }
      await post('late', '', { 'Fanfare-End': 'true' });
    })();
    for (let count = 0; count < COUNT; count += 1) {
      const { type, data } = await events.next();
      assert.deepEqual([type, data], ['message', `${count}`]);
    }
    await publishing;
    assert.deepEqual(await events.next(), { type: 'end', data: '{}', lastEventId: 'end' });
    // It comes back once more, is told by 204 that there is nothing, and stays away.
    while (events.source.readyState !== EventSource.CLOSED) {
      await within(once(events.source, 'error'), 'the end of it');
    }
    assert.equal(events.waiting.length, 0);
  },
};

await cases[wanted]();
// Streams that still live would keep the process.
process.exit(0);
