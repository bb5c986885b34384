// A client of the reference contract on Node's gRPC stack, loaded from `reference.proto`.
//
// usage: reference.js ADDRESS
//
// Exits with 0 if two subscribers both hear what is published to their topic, and nothing else.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import grpc from '@grpc/grpc-js';
import loader from '@grpc/proto-loader';

// Far above what anything here takes on a busy machine.
const PATIENCE_MS = 60_000;

const contract = loader.loadSync(fileURLToPath(new URL('../reference.proto', import.meta.url)));
const { PubSubService } = grpc.loadPackageDefinition(contract).proto;
const client = new PubSubService(process.argv[2], grpc.credentials.createInsecure());
const deadline = { deadline: Date.now() + PATIENCE_MS };

async function subscribe(topic) {
  const stream = client.Subscribe({ topic }, deadline);
  await once(stream, 'metadata');
  return stream[Symbol.asyncIterator]();
}

async function publish(topic, payload) {
  const reply = await new Promise((resolve, reject) => {
    const done = (error, reply) => (error ? reject(error) : resolve(reply));
    client.Publish({ topic, payload: Buffer.from(payload) }, deadline, done);
  });
  assert.deepEqual({ ...reply }, {});
}

const subscribers = [await subscribe('gocn'), await subscribe('gocn')];
await publish('greeting', 'hello, world!');
await publish('gocn', 'hello, gophers!');
await publish('gocn', 'bye, gophers!');
for (const subscriber of subscribers) {
  for (const expected of ['hello, gophers!', 'bye, gophers!']) {
    const { value } = await subscriber.next();
    assert.equal(value.payload.toString(), expected);
  }
}
process.exit(0);
