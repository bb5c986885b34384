"""A client of Fanfare on Python's gRPC stack that shows a certificate, over TLS.

usage: tls.py ADDRESS CA CERTIFICATE KEY

Exits with 0 if it can publish and subscribe with its certificate, and not without.
"""

import sys
from pathlib import Path

import grpc

from client import Client, checks_health, publishes_and_subscribes, refused

OPTIONS = [("grpc.ssl_target_name_override", "localhost")]


def main(address, *paths):
    ca, certificate, key = (Path(path).read_bytes() for path in paths)
    known = grpc.ssl_channel_credentials(ca, key, certificate)
    client = Client(grpc.secure_channel(address, known, OPTIONS))
    publishes_and_subscribes(client)
    checks_health(client)

    unknown = grpc.ssl_channel_credentials(ca)
    channel = grpc.secure_channel(address, unknown, OPTIONS)
    publish = channel.unary_unary("/pubsub.v1.PubSubService/Publish")
    refused(grpc.StatusCode.UNAVAILABLE, lambda: publish(b"", timeout=10))


if __name__ == "__main__":
    main(*sys.argv[1:])
