// A client on Node's gRPC stack (grpc-js), which loads the contract from `proto/` at run time.
//
// usage: client.js ADDRESS CASE
//
// Exits with 0 if the case holds. The line `drain`, on stdout, asks the caller to end the broker.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import grpc from '@grpc/grpc-js';
import loader from '@grpc/proto-loader';
import health from 'grpc-health-check';
import protobuf from 'protobufjs';

const SERVICE = 'pubsub.v1.PubSubService';
// Far above what anything here takes on a busy machine.
const PATIENCE_MS = 60_000;
// JavaScript's numbers hold 53 bits: 64-bit integers are strings.
const TYPES = { keepCase: true, longs: String, enums: String, defaults: true };

const contract = loader.loadSync('pubsub/v1/pubsub.proto', {
  ...TYPES,
  includeDirs: [fileURLToPath(new URL('../../../proto', import.meta.url))],
});

class Client {
  constructor(address) {
    const plaintext = grpc.credentials.createInsecure();
    const PubSubService = grpc.loadPackageDefinition(contract).pubsub.v1.PubSubService;
    this.pubsub = new PubSubService(address, plaintext);
    this.health = new (grpc.makeGenericClientConstructor(health.service))(address, plaintext);
  }

  publish(topic, fields = {}, options = {}) {
    return unary((done) =>
      this.pubsub.Publish({ topic, ...fields }, new grpc.Metadata(), { ...deadline(), ...options }, done),
    );
  }

  /** A live subscription. */
  async subscribe(topic, fields = {}, patience = PATIENCE_MS) {
    const stream = new Stream(this.pubsub.Subscribe({ topic, ...fields }, deadline(patience)));
    await stream.live;
    return stream;
  }

  close() {
    this.pubsub.close();
    this.health.close();
  }
}

/** A server stream, read one response at a time. */
class Stream {
  constructor(call) {
    this.call = call;
    this.responses = call[Symbol.asyncIterator]();
    this.live = once(call, 'metadata').then(([headers]) => {
      this.headers = headers.getMap();
    });
    // Who awaits nothing that fails is not told of it; the iterator tells those who read.
    this.live.catch(() => {});
  }

  async next() {
    const { value, done } = await this.responses.next();
    assert(!done, 'the stream has ended');
    return value;
  }

  async nexts(count) {
    const responses = [];
    while (responses.length < count) responses.push(await this.next());
    return responses;
  }
}

function deadline(patience = PATIENCE_MS) {
  return { deadline: Date.now() + patience };
}

function unary(call) {
  return new Promise((resolve, reject) => {
    call((error, response) => (error ? reject(error) : resolve(response)));
  });
}

/** Awaits what must be refused, and hands back the error. */
async function refused(code, call) {
  const error = await call.then(
    () => assert.fail(`no error instead of ${grpc.status[code]}`),
    (error) => error,
  );
  assert.equal(error.code, code, error);
  return error;
}

const { root: details } = protobuf.parse(`
  syntax = "proto3";
  package google.rpc;
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
  message Any { string type_url = 1; bytes value = 2; }
  message BadRequest {
    message FieldViolation { string field = 1; string description = 2; }
    repeated FieldViolation field_violations = 1;
  }
  message Duration { int64 seconds = 1; int32 nanos = 2; }
  message RetryInfo { Duration retry_delay = 1; }
`, { keepCase: true });

/** The one `google.rpc` detail of this kind that an error carries. */
function detail(error, kind) {
  const [encoded] = error.metadata.get('grpc-status-details-bin');
  const status = details.lookupType('google.rpc.Status').decode(encoded);
  assert.equal(status.code, error.code);
  assert.equal(status.message, error.details);
  const found = status.details.filter((any) => any.type_url === `type.googleapis.com/google.rpc.${kind}`);
  assert.equal(found.length, 1);
  return details.lookupType(`google.rpc.${kind}`).decode(found[0].value);
}

/** Waits until the broker has let go of the topic's subscribers. */
async function unwatched(client, topic) {
  const end = Date.now() + PATIENCE_MS;
  while ((await client.publish(topic)).matched > 0) {
    assert(Date.now() < end, 'the broker still sends to a subscriber that has left');
  }
}

const cases = {
  async publishes_and_subscribes(client) {
    const topic = '聊天.room-42';
    const stream = await client.subscribe(topic);
    assert.equal(stream.headers['fanfare-mailbox-capacity'], '1024');
    assert.equal(stream.headers['fanfare-head-sequence'], '0');
    const epoch = stream.headers['fanfare-epoch'];
    assert(BigInt(epoch) > BigInt(Number.MAX_SAFE_INTEGER));

    const payload = Buffer.from([...Array(256).keys()]);
    const fields = { attributes: { colour: 'grün' }, tag: 't', key: 'k', id: 'mine' };
    const before = Date.now();
    const outcome = await client.publish(topic, { payload, ...fields });
    const expected = { id: 'mine', epoch, sequence: '1', matched: 1, delivered: 1, dropped: 0, displaced: '0', cursor: '' };
    assert.deepEqual({ ...outcome }, expected);
    const { publish_time, ...message } = await stream.next();
    const rest = { topic, sequence: '1', epoch, missed: '0', heartbeat: false, text: '', cursor: '', gap: null, end: false };
    assert.deepEqual(message, { payload, ...fields, ...rest });
    assert(Math.abs(Number(publish_time.seconds) * 1000 - before) < PATIENCE_MS);

    const { id } = await client.publish(topic);
    const empty = await stream.next();
    assert.deepEqual([empty.payload, empty.sequence, empty.id], [Buffer.of(), '2', id]);
    await client.publish(topic, { text: 'typed by hand' });
    assert.equal((await stream.next()).payload.toString(), 'typed by hand');

    const texts = await client.subscribe(topic, { text: true });
    assert.equal(texts.headers['fanfare-head-sequence'], '3');
    await client.publish(topic, { payload: Buffer.from('plain') });
    await client.publish(topic, { payload: Buffer.of(0xff) });
    const [plain, binary] = await texts.nexts(2);
    assert.deepEqual([plain.text, plain.payload], ['plain', Buffer.of()]);
    assert.deepEqual([binary.text, binary.payload], ['', Buffer.of(0xff)]);
  },

  async hears_wildcards(client) {
    const heard = {
      'orders.*.created': ['orders.eu.created', 'orders.us.created'],
      'orders.>': ['orders.eu.created', 'orders.us.created', 'orders.eu', 'orders.eu.x.y'],
      'orders.eu.created': ['orders.eu.created'],
    };
    const streams = {};
    for (const filter of Object.keys(heard)) streams[filter] = await client.subscribe(filter);
    const published = ['orders.eu.created', 'orders', 'orders.us.created', 'orders.eu', 'ordersx.eu.created'];
    for (const topic of [...published, 'orders.eu.x.y', 'orders.eu.created']) await client.publish(topic);
    for (const [filter, stream] of Object.entries(streams)) {
      // Filters with wildcards have no topic of their own to tell an epoch of.
      assert.equal('fanfare-epoch' in stream.headers, filter === 'orders.eu.created');
      const expected = [...heard[filter], 'orders.eu.created'];
      const topics = (await stream.nexts(expected.length)).map(({ topic }) => topic);
      assert.deepEqual(topics, expected);
    }
  },

  async is_told_what_it_missed(client) {
    const stream = await client.subscribe('busy', { mailbox_capacity: 4 });
    assert.equal(stream.headers['fanfare-mailbox-capacity'], '4');
    // grpc-js reads ahead without bound. Only a program that is stuck falls behind: this one, until
    // the other one has published enough.
    const flood = [fileURLToPath(import.meta.url), address, 'publish_until_dropped'];
    const outcome = execFileSync(process.execPath, flood, { timeout: PATIENCE_MS });
    const { published, dropped } = JSON.parse(outcome);
    let [received, missed, sequence] = [0, 0, 0];
    while (received + missed < published) {
      const response = await stream.next();
      missed += Number(response.missed);
      if (response.sequence !== '0') {
        received += 1;
        assert(Number(response.sequence) > sequence, 'out of order');
        sequence = Number(response.sequence);
      }
    }
    assert.deepEqual([received, missed], [published - dropped, dropped]);
  },

  /** The other half of `is_told_what_it_missed`. */
  async publish_until_dropped(client) {
    const payload = Buffer.alloc(64 * 1024);
    let [published, dropped] = [0, 0];
    while (dropped < 5) {
      const outcome = await client.publish('busy', { payload });
      assert.deepEqual([outcome.matched, outcome.delivered + outcome.dropped], [1, 1]);
      published += 1;
      dropped += outcome.dropped;
      assert(published < 5_000, 'nothing is dropped');
    }
    console.log(JSON.stringify({ published, dropped }));
  },

  async is_told_what_to_change(client) {
    const check = async (field, call) => {
      const error = await refused(grpc.status.INVALID_ARGUMENT, call);
      const { field_violations } = detail(error, 'BadRequest');
      assert.deepEqual(field_violations.map((violation) => violation.field), [field]);
      assert(error.details.includes(field_violations[0].description));
    };
    const next = (request) => new Stream(client.pubsub.Subscribe(request, deadline())).next();
    for (const topic of ['', 'a b', 'a..b', 'a.*', '>', 'a'.repeat(256)]) {
      await check('topic', client.publish(topic));
    }
    await check('text', client.publish('a', { payload: Buffer.of(1), text: 'and text' }));
    await check('tag', client.publish('a', { tag: 'a|b' }));
    await check('topic', next({ topic: 'a.>.b' }));
    await check('heartbeat_interval', next({ topic: 'a', heartbeat_interval: { seconds: 1 } }));

    const large = client.publish('a', { payload: Buffer.alloc(1024 * 1024 + 1) });
    const error = await refused(grpc.status.RESOURCE_EXHAUSTED, large);
    assert.match(error.details, /1048577.*1048576/);
    const huge = client.publish('a', { payload: Buffer.alloc(8 * 1024 * 1024) });
    await refused(grpc.status.RESOURCE_EXHAUSTED, huge);
    const unknown = unary((done) => {
      const same = (bytes) => bytes;
      client.pubsub.makeUnaryRequest(`/${SERVICE}/Unsubscribe`, same, same, Buffer.of(), done);
    });
    await refused(grpc.status.UNIMPLEMENTED, unknown);
    // The connection has survived all this.
    assert.equal((await client.publish('a')).matched, 0);
  },

  async checks_health(client) {
    for (const service of ['', SERVICE]) {
      const { status } = await unary((done) => client.health.check({ service }, deadline(), done));
      assert.equal(status, 'SERVING');
      const watch = new Stream(client.health.watch({ service }, deadline()));
      assert.equal((await watch.next()).status, 'SERVING');
      watch.call.cancel();
    }
    const nobody = unary((done) => client.health.check({ service: 'nobody' }, deadline(), done));
    await refused(grpc.status.NOT_FOUND, nobody);
  },

  async leaves_by_deadline_and_by_cancelling(client) {
    let stream = await client.subscribe('a', {}, 1_000);
    assert.equal((await client.publish('a')).matched, 1);
    await stream.next();
    await refused(grpc.status.DEADLINE_EXCEEDED, stream.next());
    await unwatched(client, 'a');

    stream = await client.subscribe('a');
    assert.equal((await client.publish('a')).matched, 1);
    await stream.next();
    stream.call.cancel();
    await refused(grpc.status.CANCELLED, stream.next());
    await unwatched(client, 'a');
  },

  async is_told_of_the_drain(client) {
    const stream = await client.subscribe('a');
    const watch = new Stream(client.health.watch({ service: '' }, deadline()));
    assert.equal((await watch.next()).status, 'SERVING');
    await client.publish('a', { text: 'last' });
    console.log('drain');
    assert.equal((await stream.next()).payload.toString(), 'last');
    const error = await refused(grpc.status.UNAVAILABLE, stream.next());
    const { retry_delay } = detail(error, 'RetryInfo');
    assert(Number(retry_delay.seconds) * 1e9 + retry_delay.nanos > 0);
    assert.equal((await watch.next()).status, 'NOT_SERVING');
    await refused(grpc.status.UNAVAILABLE, watch.next());
  },
};

const [address, wanted] = process.argv.slice(2);
const client = new Client(address);
await cases[wanted](client);
client.close();
// Calls that still live would keep the process.
process.exit(0);
