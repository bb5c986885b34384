"""A client of the reference contract on Python's gRPC stack, compiled from `reference.proto`.

usage: reference.py ADDRESS

Exits with 0 if two subscribers both hear what is published to their topic, and nothing else.
"""

import sys
from pathlib import Path

import grpc

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
messages, services = grpc.protos_and_services("reference.proto")

# Far above what anything here takes on a busy machine.
PATIENCE = 60


def main(address):
    stub = services.PubSubServiceStub(grpc.insecure_channel(address))

    def subscribe(topic):
        stream = stub.Subscribe(messages.SubscribeRequest(topic=topic), timeout=PATIENCE)
        stream.initial_metadata()
        return stream

    def publish(topic, payload):
        request = messages.PublishRequest(topic=topic, payload=payload)
        reply = stub.Publish(request, timeout=PATIENCE)
        assert reply.DESCRIPTOR.full_name == "google.protobuf.Empty", reply
        assert not reply.ListFields(), reply

    subscribers = [subscribe("gocn"), subscribe("gocn")]
    publish("greeting", b"hello, world!")
    publish("gocn", b"hello, gophers!")
    publish("gocn", b"bye, gophers!")
    for subscriber in subscribers:
        for expected in [b"hello, gophers!", b"bye, gophers!"]:
            response = next(subscriber)
            assert response.payload == expected, response
            # Nothing beyond what this contract knows was sent.
            known = messages.SubscribeResponse(payload=response.payload)
            assert response.SerializeToString() == known.SerializeToString(), response


if __name__ == "__main__":
    main(sys.argv[1])
