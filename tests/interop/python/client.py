"""A client on Python's gRPC stack (gRPC Core) that has no generated code: it learns the contract from
the broker's reflection service.

usage: client.py ADDRESS CASE

Exits with 0 if the case holds. The line `drain`, on stdout, asks the caller to end the broker.
"""

import sys
import time

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_status import rpc_status

SERVICE = "pubsub.v1.PubSubService"
# Far above what anything here takes on a busy machine.
PATIENCE = 60


class Client:
    """The two methods, with the messages that reflection describes."""

    def __init__(self, channel):
        self.channel = channel
        self.reflection = ProtoReflectionDescriptorDatabase(self.channel)
        self.pool = descriptor_pool.DescriptorPool(self.reflection)
        methods = self.pool.FindServiceByName(SERVICE).methods_by_name
        message = message_factory.GetMessageClass
        self.PublishRequest = message(methods["Publish"].input_type)
        self.SubscribeRequest = message(methods["Subscribe"].input_type)
        self.publish_method = self.channel.unary_unary(
            f"/{SERVICE}/Publish",
            request_serializer=self.PublishRequest.SerializeToString,
            response_deserializer=message(methods["Publish"].output_type).FromString,
        )
        self.subscribe_method = self.channel.unary_stream(
            f"/{SERVICE}/Subscribe",
            request_serializer=self.SubscribeRequest.SerializeToString,
            response_deserializer=message(methods["Subscribe"].output_type).FromString,
        )

    def publish(self, topic, payload=b"", compression=None, **fields):
        request = self.PublishRequest(topic=topic, payload=payload, **fields)
        return self.publish_method(request, timeout=PATIENCE, compression=compression)

    def subscribe(self, topic, timeout=PATIENCE, **fields):
        """A live subscription, and what its headers say."""
        request = self.SubscribeRequest(topic=topic, **fields)
        stream = self.subscribe_method(request, timeout=timeout)
        return stream, dict(stream.initial_metadata())

    def health(self):
        return health_pb2_grpc.HealthStub(self.channel)


def same(found, expected):
    assert found == expected, f"{found!r} instead of {expected!r}"


def refused(code, call):
    """Calls, and hands back the error that must come."""
    try:
        call()
    except grpc.RpcError as error:
        same(error.code(), code)
        return error
    raise AssertionError(f"no error instead of {code}")


def detail(error, kind):
    """The one `google.rpc` detail of this kind that an error carries."""
    status = rpc_status.from_call(error)
    assert status, f"{error} has no details"
    found = kind()
    [wrapped] = [any for any in status.details if any.Is(kind.DESCRIPTOR)]
    wrapped.Unpack(found)
    return found


def unwatched(client, topic):
    """Waits until the broker has let go of the topic's subscribers."""
    end = time.monotonic() + PATIENCE
    while client.publish(topic).matched:
        assert time.monotonic() < end, "the broker still sends to a subscriber that has left"


def reflects(client):
    services = set(client.reflection.get_services())
    assert {SERVICE, "grpc.health.v1.Health"} <= services, services
    policies = client.pool.FindEnumTypeByName("pubsub.v1.OverflowPolicy")
    same(policies.values_by_name["OVERFLOW_POLICY_DISCONNECT"].number, 3)


def publishes_and_subscribes(client):
    topic = "聊天.room-42"
    stream, headers = client.subscribe(topic)
    same(headers["fanfare-mailbox-capacity"], "1024")
    same(headers["fanfare-head-sequence"], "0")
    epoch = int(headers["fanfare-epoch"])

    before = time.time()
    outcome = client.publish(
        topic, bytes(range(256)), attributes={"colour": "grün"}, tag="t", key="k", id="mine"
    )
    same((outcome.id, outcome.epoch, outcome.sequence), ("mine", epoch, 1))
    same((outcome.matched, outcome.delivered, outcome.dropped), (1, 1, 0))
    message = next(stream)
    same(message.payload, bytes(range(256)))
    same((message.topic, message.sequence, message.epoch), (topic, 1, epoch))
    same((message.id, message.tag, message.key), ("mine", "t", "k"))
    same(dict(message.attributes), {"colour": "grün"})
    same((message.missed, message.heartbeat, message.text), (0, False, ""))
    assert abs(message.publish_time.ToNanoseconds() / 1e9 - before) < PATIENCE

    outcome = client.publish(topic)
    message = next(stream)
    same((message.payload, message.sequence), (b"", 2))
    assert message.id and message.id == outcome.id
    client.publish(topic, text="typed by hand")
    same(next(stream).payload, b"typed by hand")

    texts, headers = client.subscribe(topic, text=True)
    same(headers["fanfare-head-sequence"], "3")
    client.publish(topic, b"plain")
    client.publish(topic, b"\xff")
    message = next(texts)
    same((message.text, message.payload), ("plain", b""))
    message = next(texts)
    same((message.text, message.payload), ("", b"\xff"))


def hears_wildcards(client):
    heard = {
        "orders.*.created": ["orders.eu.created", "orders.us.created"],
        "orders.>": ["orders.eu.created", "orders.us.created", "orders.eu", "orders.eu.x.y"],
        "orders.eu.created": ["orders.eu.created"],
    }
    streams = {filter: client.subscribe(filter) for filter in heard}
    published = ["orders.eu.created", "orders", "orders.us.created", "orders.eu", "ordersx.eu.created"]
    for topic in [*published, "orders.eu.x.y", "orders.eu.created"]:
        client.publish(topic)
    for filter, (stream, headers) in streams.items():
        # Filters with wildcards have no topic of their own to tell an epoch of.
        same("fanfare-epoch" in headers, filter == "orders.eu.created")
        expected = [*heard[filter], "orders.eu.created"]
        same([next(stream).topic for _ in expected], expected)


def is_told_what_it_missed(client):
    stream, headers = client.subscribe("busy", mailbox_capacity=4)
    same(headers["fanfare-mailbox-capacity"], "4")
    published = dropped = 0
    # gRPC Core reads ahead by a window that grows: publish until the mailbox has overflowed.
    while dropped < 5:
        outcome = client.publish("busy", bytes(64 * 1024))
        same((outcome.matched, outcome.delivered + outcome.dropped), (1, 1))
        published += 1
        dropped += outcome.dropped
        assert published < 5_000, "nothing is dropped"
    received = missed = sequence = 0
    while received + missed < published:
        response = next(stream)
        missed += response.missed
        if response.sequence:
            received += 1
            assert response.sequence > sequence, "out of order"
            sequence = response.sequence
    same((received, missed), (published - dropped, dropped))


def is_told_what_to_change(client):
    def check(field, call):
        error = refused(grpc.StatusCode.INVALID_ARGUMENT, call)
        [violation] = detail(error, error_details_pb2.BadRequest).field_violations
        same(violation.field, field)
        assert violation.description and violation.description in error.details()

    for topic in ["", "a b", "a..b", "a.*", ">", "a" * 256]:
        check("topic", lambda: client.publish(topic))
    check("text", lambda: client.publish("a", b"bytes", text="and text"))
    check("tag", lambda: client.publish("a", tag="a|b"))
    check("topic", lambda: next(client.subscribe("a.>.b")[0]))
    heartbeat = client.SubscribeRequest(topic="a")
    heartbeat.heartbeat_interval.FromSeconds(1)
    check("heartbeat_interval", lambda: next(client.subscribe_method(heartbeat)))

    large = bytes(1024 * 1024 + 1)
    error = refused(grpc.StatusCode.RESOURCE_EXHAUSTED, lambda: client.publish("a", large))
    assert "1048577" in error.details() and "1048576" in error.details(), error.details()
    refused(grpc.StatusCode.RESOURCE_EXHAUSTED, lambda: client.publish("a", bytes(8 * 1024 * 1024)))
    refused(
        grpc.StatusCode.UNIMPLEMENTED,
        lambda: client.publish("a", bytes(4096), compression=grpc.Compression.Gzip),
    )
    unknown = client.channel.unary_unary(f"/{SERVICE}/Unsubscribe")
    refused(grpc.StatusCode.UNIMPLEMENTED, lambda: unknown(b"", timeout=PATIENCE))
    # The connection has survived all this.
    same(client.publish("a").matched, 0)


def checks_health(client):
    health, request = client.health(), health_pb2.HealthCheckRequest
    serving = health_pb2.HealthCheckResponse.SERVING
    for service in ["", SERVICE]:
        same(health.Check(request(service=service), timeout=PATIENCE).status, serving)
        watch = health.Watch(request(service=service), timeout=PATIENCE)
        same(next(watch).status, serving)
        watch.cancel()
    refused(
        grpc.StatusCode.NOT_FOUND,
        lambda: health.Check(request(service="nobody"), timeout=PATIENCE),
    )


def leaves_by_deadline_and_by_cancelling(client):
    stream, _ = client.subscribe("a", timeout=1)
    same(client.publish("a").matched, 1)
    next(stream)
    refused(grpc.StatusCode.DEADLINE_EXCEEDED, lambda: next(stream))
    unwatched(client, "a")

    stream, _ = client.subscribe("a")
    same(client.publish("a").matched, 1)
    stream.cancel()
    unwatched(client, "a")


def is_told_of_the_drain(client):
    stream, _ = client.subscribe("a")
    watch = client.health().Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
    same(next(watch).status, health_pb2.HealthCheckResponse.SERVING)
    client.publish("a", b"last")
    print("drain", flush=True)
    same(next(stream).payload, b"last")
    error = refused(grpc.StatusCode.UNAVAILABLE, lambda: next(stream))
    retry = detail(error, error_details_pb2.RetryInfo).retry_delay
    assert retry.ToMilliseconds() > 0, retry
    same(next(watch).status, health_pb2.HealthCheckResponse.NOT_SERVING)
    refused(grpc.StatusCode.UNAVAILABLE, lambda: next(watch))


CASES = [
    reflects,
    publishes_and_subscribes,
    hears_wildcards,
    is_told_what_it_missed,
    is_told_what_to_change,
    checks_health,
    leaves_by_deadline_and_by_cancelling,
    is_told_of_the_drain,
]

if __name__ == "__main__":
    _, address, wanted = sys.argv
    {case.__name__: case for case in CASES}[wanted](Client(grpc.insecure_channel(address)))
