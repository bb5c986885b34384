"""Publishes and listens with nothing but Python's own library.

usage: web.py ADDRESS
"""

import json
import sys
import urllib.error
import urllib.parse
import urllib.request

# Far above what anything here takes on a busy machine.
PATIENCE = 60


def same(found, expected):
    assert found == expected, f"{found!r} instead of {expected!r}"


def main(address):
    base = f"http://{address}/v1"

    def publish(topic, payload, headers={}):
        path = f"{base}/topics/{urllib.parse.quote(topic, safe='')}"
        request = urllib.request.Request(path, payload, headers, method="POST")
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)

    topic = "räume/küche"
    url = f"{base}/topics/{urllib.parse.quote(topic, safe='')}/messages"
    with urllib.request.urlopen(url, timeout=PATIENCE) as lines:
        same(lines.headers["content-type"], "application/x-ndjson")
        payload = bytes(range(256))
        headers = {"Fanfare-Key": "k", "Content-Type": "application/octet-stream"}
        outcome = publish(topic, payload, headers)
        same((outcome["matched"], outcome["delivered"], outcome["sequence"]), (1, 1, "1"))
        message = json.loads(lines.readline())
        same((message["topic"], message["key"], message["id"]), (topic, "k", outcome["id"]))
        same(message["attributes"], {"content-type": "application/octet-stream"})
        publish(topic, "héllo\n".encode())
        same(json.loads(lines.readline())["payload"], "héllo\n")
    try:
        publish("a b", b"")
    except urllib.error.HTTPError as error:
        same(error.code, 400)
        same(json.load(error)["error"]["field"], "topic")
    else:
        raise AssertionError("a blank is accepted")


main(sys.argv[1])
