"""deploy/kubernetes as it is rendered: valid, with configurations that are right, and no more allowed than must be."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from support import kubernetes
from support.certificates import Authority
from support.kubernetes import FOLDER, Deployment, Manifests, Missing
from support.services import ROOT

from trestle import __version__

# The first that knows all we use (preStop.sleep), and the last that there is a schema for.
VERSIONS = ("1.30", kubernetes_validate.latest_version())
# Some time beyond the drain, for what ends the process after it.
SPARE = 10
COMPONENTS = ("cert-manager", "prometheus")


@pytest.fixture(scope="module", params=["single", "production", "production with components"])
def manifests(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Manifests:
    overlay, *components = request.param.split(" with ")
    try:
        if components:
            return kubernetes.render_with(tmp_path_factory.mktemp("overlay"), overlay, COMPONENTS)
        return kubernetes.render(FOLDER / "overlays" / overlay)
    except Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Manifests:
    try:
        return kubernetes.render_with(tmp_path_factory.mktemp("overlay"), "production", COMPONENTS)
    except Missing as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid(manifests: Manifests, version: str) -> None:
    own = jsonschema.Draft202012Validator(
        yaml.safe_load(Path(__file__).with_name("custom_resources.yaml").read_text(encoding="utf-8"))
    )
    for each in manifests.objects:
        group = each["apiVersion"].partition("/")[0]
        if group.endswith((".coreos.com", "cert-manager.io")):
            own.validate(each)
        else:
            kubernetes_validate.validate(each, version, strict=True)
    spaces = {each["metadata"].get("namespace") for each in manifests.objects if each["kind"] != "Namespace"}
    assert spaces == {"trestle"}


def test_a_mistake_is_found(manifests: Manifests) -> None:
    wrong = {**manifests.gateway.object, "spec": {**manifests.gateway.object["spec"], "replica": 1}}
    with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def test_there_is_a_gateway_and_a_worker_of_each_family(manifests: Manifests) -> None:
    families = {each.command[3] for each in manifests.workers}
    assert {"openai", "anthropic", "gemini"} <= families
    assert manifests.gateway.config["workers"].keys() == families
    for worker in manifests.workers:
        assert worker.name == f"worker-{worker.command[3]}"
        assert worker.labels["trestle/family"] == worker.command[3]


def test_pods_may_do_little(manifests: Manifests) -> None:
    accounts = manifests.of("ServiceAccount")
    for each in manifests.deployments:
        pod, container = each.pod, each.container
        assert pod["automountServiceAccountToken"] is False
        assert accounts[pod["serviceAccountName"]]["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert {key for volume in pod["volumes"] for key in volume} <= {"name", "configMap", "secret", "emptyDir"}
    labels = manifests.of("Namespace")["trestle"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_pods_say_what_they_need_and_how_they_are(manifests: Manifests) -> None:
    for each in manifests.deployments:
        for amounts in (each.container["resources"]["requests"], each.container["resources"]["limits"]):
            assert amounts.keys() == {"cpu", "memory"}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            asked = each.container[probe]
            port = asked["httpGet"]["port"] if each.service == "gateway" else asked["grpc"]["port"]
            assert each.ports.get(port, port) == each.ports["health"]
        assert len(each.pod["topologySpreadConstraints"]) == 2
        for constraint in each.pod["topologySpreadConstraints"]:
            assert manifests.selected(constraint["labelSelector"]) == [each]


def test_images_have_the_version(manifests: Manifests) -> None:
    images = {each.container["image"] for each in manifests.deployments}
    assert images == {f"trestle-gateway:{__version__}", f"trestle-worker:{__version__}"}, "kustomization.yaml, newTag"


def test_the_grace_period_is_longer_than_the_drain(manifests: Manifests) -> None:
    for each in manifests.deployments:
        pause = each.container["lifecycle"]["preStop"]["sleep"]["seconds"]
        drain = each.config["drain_delay"] + each.config["drain_timeout"]
        assert each.pod["terminationGracePeriodSeconds"] >= pause + drain + SPARE


def test_ports_are_those_of_the_configuration(manifests: Manifests) -> None:
    services = manifests.of("Service")
    for each in manifests.deployments:
        named = {"http" if each.service == "gateway" else "grpc": "listen", "health": "health", "metrics": "metrics"}
        assert each.ports == {port: int(each.config[key].rpartition(":")[2]) for port, key in named.items()}
    for service in services.values():
        targets = manifests.selected({"matchLabels": service["spec"]["selector"]})
        assert targets
        for port in service["spec"]["ports"]:
            assert all(port["targetPort"] in target.ports for target in targets)
    for family, worker in manifests.gateway.config["workers"].items():
        address = worker if isinstance(worker, str) else worker["address"]
        name, port = re.fullmatch(r"dns:///([\w-]+):(\d+)", address).groups()  # type: ignore[union-attr]
        spec = services[name]["spec"]
        assert spec["clusterIP"] == "None"
        assert [each["port"] for each in spec["ports"] if each["name"] == "grpc"] == [int(port)]
        assert [each.command[3] for each in manifests.selected({"matchLabels": spec["selector"]})] == [family]


def test_what_is_mounted_is_right_for_what_is_started(manifests: Manifests, tmp_path: Path) -> None:
    """With no more in the environment than the pod has."""
    shown = Authority(tmp_path).issue("worker")
    for pem, name in ((shown.certificate, "tls.crt"), (shown.key, "tls.key"), (shown.ca, "ca.crt")):
        (tmp_path / name).write_bytes(pem.read_bytes())
    for each in manifests.deployments:
        if any(mount["mountPath"] == "/tls" for mount in each.container["volumeMounts"]):
            assert "secretName" in each.volume("/tls")["secret"]
        file = tmp_path / f"{each.name}.yaml"
        file.write_text(each.text.replace(": /tls/", f": {tmp_path}/"), encoding="utf-8")
        words = [str(file) if word.startswith("/etc/") else word for word in each.command[1:]]
        command = [sys.executable, *words, "--check"]
        environment = {"PATH": os.environ["PATH"], **dict.fromkeys(each.secrets, "1")}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_only_its_worker_holds_a_providers_secret(manifests: Manifests) -> None:
    credentials = {
        family: {upstream["credential_env"] for upstream in worker.config[family]["upstreams"].values()}
        for worker in manifests.workers
        if (family := worker.command[3]) in worker.config
    }
    assert credentials.keys() == {"openai", "anthropic", "gemini"}
    for worker in manifests.workers:
        assert worker.secrets.keys() == credentials.get(worker.command[3], set())
    provider = {name for worker in manifests.workers for name, _ in worker.secrets.values()}
    assert not provider & {name for name, _ in manifests.gateway.secrets.values()}
    assert not set.union(*credentials.values()) & manifests.gateway.secrets.keys()
    mounted = [volume["secret"]["secretName"] for volume in manifests.gateway.pod["volumes"] if "secret" in volume]
    assert mounted in ([], ["gateway-tls"])
    assert "Secret" not in {each["kind"] for each in manifests.objects}


def test_only_workers_of_providers_reach_out(manifests: Manifests) -> None:
    for each in manifests.deployments:
        rules = manifests.reaching_out(each)
        assert all(rule["to"] and rule["ports"] for rule in rules)
        world = [peer["ipBlock"] for rule in rules for peer in rule["to"] if "ipBlock" in peer]
        if each.service == "worker" and each.command[3] != "echo":
            assert {block["cidr"] for block in world} == {"0.0.0.0/0", "::/0"}
            assert all(block["except"] for block in world)
        else:
            assert all(re.match(r"(10|172\.16|192\.168)\.", block["cidr"]) for block in world)
        within = [peer for rule in rules for peer in rule["to"] if set(peer) == {"podSelector"}]
        reached = {other.service for peer in within for other in manifests.selected(peer["podSelector"])}
        assert reached == ({"worker"} if each.service == "gateway" else set())


def test_workers_are_reached_by_the_gateway_and_labelled_callers_only(manifests: Manifests) -> None:
    for worker in manifests.workers:
        rules = [rule for rule in manifests.coming_in(worker) if {"protocol": "TCP", "port": "grpc"} in rule["ports"]]
        (rule,) = rules
        ours, callers = rule["from"]
        assert manifests.selected(ours["podSelector"]) == [manifests.gateway]
        assert callers == {
            "namespaceSelector": {"matchLabels": {"trestle/callers": "allowed"}},
            "podSelector": {"matchLabels": {"trestle/caller": "true"}},
        }
        others = [rule for rule in manifests.coming_in(worker) if rule not in rules]
        assert all(rule["from"] and rule["ports"] == [{"protocol": "TCP", "port": "metrics"}] for rule in others)


def test_a_changed_configuration_arrives(manifests: Manifests) -> None:
    """The gateway's in the volume that it watches, so its name stays; a worker's by new pods, so its name changes."""
    assert manifests.gateway.volume("/etc/trestle")["configMap"]["name"] == "gateway-config"
    for worker in manifests.workers:
        assert re.fullmatch(r"worker-config-\w{10}", worker.volume("/etc/trestle")["configMap"]["name"])
        assert 0 < worker.config["max_connection_age"] <= 60


def test_pods_come_and_go_by_what_they_do(production: Manifests) -> None:
    scalers, budgets = production.of("HorizontalPodAutoscaler"), production.of("PodDisruptionBudget")
    documented = re.findall(r"`(trestle_\w+)`", (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8"))
    for each in production.deployments:
        spec = scalers[each.name]["spec"]
        assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": each.name}
        assert "replicas" not in each.object["spec"]
        assert spec["minReplicas"] >= 2
        streams, cpu = spec["metrics"]
        assert documented.count(streams["pods"]["metric"]["name"]) == 2  # of gateway and worker
        assert cpu["resource"]["name"] == "cpu"
        # A process that has as much as it may be served at once is not the first sign of being too few.
        most = each.config["max_requests" if each.service == "gateway" else "max_calls"]
        assert int(streams["pods"]["target"]["averageValue"]) < most / 2
        assert production.selected(budgets[each.name]["spec"]["selector"]) == [each]
        assert budgets[each.name]["spec"]["maxUnavailable"] < spec["minReplicas"]
    assert len(scalers) == len(budgets) == len(production.deployments)


def test_certificates_are_for_those_who_show_them(production: Manifests) -> None:
    issued = {each["spec"]["secretName"]: each["spec"] for each in production.of("Certificate").values()}

    def shown(each: Deployment) -> Any:
        return issued[each.volume("/tls")["secret"]["secretName"]]

    for name, worker in production.gateway.config["workers"].items():
        host = worker["address"].removeprefix("dns:///").partition(":")[0]
        (target,) = [each for each in production.workers if each.command[3] == name]
        assert host in shown(target)["dnsNames"]
        assert "server auth" in shown(target)["usages"]
        (edge,) = [caller for caller in target.config["callers"] if caller.get("gateway")]
        assert edge["identities"] == shown(production.gateway)["uris"]
    account = production.gateway.pod["serviceAccountName"]
    assert shown(production.gateway)["uris"] == [f"spiffe://cluster.local/ns/trestle/sa/{account}"]
    assert "client auth" in shown(production.gateway)["usages"]


def test_every_pod_is_scraped(production: Manifests) -> None:
    (monitor,) = production.of("ServiceMonitor").values()
    services = [
        each
        for each in production.of("Service").values()
        if kubernetes.matches(monitor["spec"]["selector"], each["metadata"].get("labels", {}))
    ]
    (service,) = services
    assert production.selected({"matchLabels": service["spec"]["selector"]}) == production.deployments
    ports = [each["name"] for each in service["spec"]["ports"]]
    assert [each["port"] for each in monitor["spec"]["endpoints"]] == ports
