"""Whether the files of this folder agree with each other, with the broker and with what they promise.

usage: agree.py BROKER

BROKER is the binary, which is asked whether it takes each file's settings. Prints the settings of the
Kubernetes deployment, NAME=VALUE, one a line.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

HERE = Path(__file__).parent
broker = sys.argv[1]


def check(what, found, expected):
    assert found == expected, f"{what}: {found!r} and not {expected!r}"


def accepted(where, settings):
    """The broker itself says whether it takes these settings."""
    assert all(name.startswith("BROKER_") for name in settings), settings
    known = subprocess.run([broker, "--help"], capture_output=True, text=True, check=True).stdout
    for name in settings:
        assert f"[env: {name}=" in known, f"{where}: the broker knows no {name}"
    environment = {"PATH": os.environ["PATH"], **settings}
    said = subprocess.run([broker, "check"], env=environment, capture_output=True, text=True)
    assert said.returncode == 0, f"{where}: {said.stderr}"


def seconds(text):
    return int(re.fullmatch(r"(\d+)s", text)[1])


image = (HERE / "Dockerfile").read_text()
image_settings = dict(re.findall(r"^ENV (\w+)=(\S+)$", image, re.M))
check("the image's user", re.findall(r"^USER (.*)$", image, re.M), ["65532:65532"])
check("the image's base", re.findall(r"^FROM (\S+)", image, re.M)[-1], "scratch")
assert re.search(r'^HEALTHCHECK .* CMD \["/broker", "health"\]$', image, re.M), "no health check"
port = int(image_settings["BROKER_LISTEN"].rsplit(":", 1)[1])
check("the exposed port", re.findall(r"^EXPOSE (.*)$", image, re.M), [str(port)])

compose = yaml.safe_load((HERE / "compose.yaml").read_text())["services"]["broker"]
compose_settings = {**image_settings, **compose["environment"]}
accepted("compose.yaml", compose_settings)
check("the published port", compose["ports"], [f"127.0.0.1:{port}:{port}"])

deployment = yaml.safe_load((HERE / "kubernetes/deployment.yaml").read_text())["spec"]
pod = deployment["template"]["spec"]
(container,) = pod["containers"]
settings = {**image_settings, **{one["name"]: one["value"] for one in container["env"]}}
accepted("deployment.yaml", settings)
# Two brokers behind one name would each have half of the subscribers.
check("replicas", deployment["replicas"], 1)
check("strategy", deployment["strategy"]["type"], "Recreate")
check("selector", deployment["selector"]["matchLabels"], deployment["template"]["metadata"]["labels"])
for probe, path, delay, period in [
    ("livenessProbe", "/health", 30, 10),
    ("readinessProbe", "/ready", 5, 5),
]:
    asked = container[probe]
    check(probe, asked["httpGet"], {"path": path, "port": "broker"})
    check(probe, (asked["initialDelaySeconds"], asked["periodSeconds"]), (delay, period))
check("limits", container["resources"]["limits"], {"cpu": "200m", "memory": "256Mi"})
check("ports", container["ports"], [{"name": "broker", "containerPort": port}])
check("compose's limit", compose["mem_limit"], "256m")
for name in ("BROKER_MEMORY_BUDGET",):
    check(name, settings[name], compose_settings[name])
needed = seconds(settings["BROKER_DRAIN_DELAY"]) + seconds(settings["BROKER_DRAIN_TIMEOUT"])
grace = pod["terminationGracePeriodSeconds"]
assert grace > needed + 1, f"{grace} s do not cover a drain of {needed} s"
assert seconds(compose["stop_grace_period"]) > 11, "the drain takes 10 s"
check("user", (pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["runAsUser"]), (True, 65532))
secured = container["securityContext"]
check("root file system", secured["readOnlyRootFilesystem"], True)
check("capabilities", secured["capabilities"], {"drop": ["ALL"]})

service = yaml.safe_load((HERE / "kubernetes/service.yaml").read_text())["spec"]
check("the service's pods", service["selector"], deployment["selector"]["matchLabels"])
(way,) = service["ports"]
check("the service's port", (way["port"], way["targetPort"]), (port, "broker"))

unit = (HERE / "fanfare.service").read_text()
accepted("fanfare.service", dict(re.findall(r"^Environment=(\w+)=(\S+)$", unit, re.M)))

for name, value in settings.items():
    print(f"{name}={value}")
