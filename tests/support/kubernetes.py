"""What `kubectl kustomize` makes of deploy/kubernetes, and what a cluster would make of that."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import yaml
from support.services import ROOT

FOLDER: Final = ROOT / "deploy" / "kubernetes"
Object = dict[str, Any]
_OLDEST: Final = (5, 0)


class Missing(Exception):
    """There is no kustomize on this machine that is new enough; the message says what there is."""


def _command() -> list[str]:
    """What renders. Raises `Missing`."""
    if shutil.which("kustomize"):
        version = subprocess.run(["kustomize", "version"], capture_output=True, text=True, check=True).stdout.strip()
        command = ["kustomize", "build"]
    elif shutil.which("kubectl"):
        asked = ["kubectl", "version", "--client", "--output", "json"]
        told = json.loads(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)
        version = told.get("kustomizeVersion", "v0.0")
        command = ["kubectl", "kustomize"]
    else:
        raise Missing("neither kustomize nor kubectl is installed: the manifests are not rendered")
    major, minor, *_ = version.removeprefix("v").split(".")
    if (int(major), int(minor)) < _OLDEST:
        raise Missing(f"{command[0]} has kustomize {version}, and 5.0 is needed: the manifests are not rendered")
    return command


def render(folder: Path) -> Manifests:
    """Raises `Missing` where nothing can render."""
    done = subprocess.run([*_command(), str(folder)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return Manifests([each for each in yaml.safe_load_all(done.stdout) if each])


def render_with(folder: Path, overlay: str, components: Iterable[str]) -> Manifests:
    """The overlay with components, as somebody's own overlay names them. folder: for that overlay."""
    own = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "trestle",
        "resources": [os.path.relpath(FOLDER / "overlays" / overlay, folder)],
        "components": [os.path.relpath(FOLDER / "components" / each, folder) for each in components],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(own), encoding="utf-8")
    return render(folder)


@dataclass(frozen=True)
class Manifests:
    """All objects of an installation."""

    objects: list[Object]

    def of(self, kind: str) -> dict[str, Object]:
        """By name."""
        return {each["metadata"]["name"]: each for each in self.objects if each["kind"] == kind}

    @cached_property
    def deployments(self) -> list[Deployment]:
        return [Deployment(self, each) for each in self.of("Deployment").values()]

    @property
    def workers(self) -> list[Deployment]:
        return [each for each in self.deployments if each.service == "worker"]

    @property
    def gateway(self) -> Deployment:
        (found,) = [each for each in self.deployments if each.service == "gateway"]
        return found

    def selected(self, selector: Object) -> list[Deployment]:
        """Whose pods a selector means."""
        return [each for each in self.deployments if matches(selector, each.labels)]

    def reaching_out(self, deployment: Deployment) -> list[Object]:
        """The rules of all network policies by which its pods may reach others."""
        policies = self.of("NetworkPolicy").values()
        mine = [each["spec"] for each in policies if matches(each["spec"]["podSelector"], deployment.labels)]
        assert any("Egress" in each["policyTypes"] for each in mine), "nothing forbids it anything"
        return [rule for each in mine if "Egress" in each["policyTypes"] for rule in each.get("egress", [])]

    def coming_in(self, deployment: Deployment) -> list[Object]:
        """The rules of all network policies by which others may reach its pods."""
        policies = self.of("NetworkPolicy").values()
        mine = [each["spec"] for each in policies if matches(each["spec"]["podSelector"], deployment.labels)]
        assert any("Ingress" in each["policyTypes"] for each in mine), "nothing keeps anybody out"
        return [rule for each in mine if "Ingress" in each["policyTypes"] for rule in each.get("ingress", [])]


@dataclass(frozen=True)
class Deployment:
    """A Deployment, with the one container of its pods."""

    manifests: Manifests
    object: Object

    @property
    def name(self) -> str:
        return str(self.object["metadata"]["name"])

    @property
    def pod(self) -> Object:
        pod: Object = self.object["spec"]["template"]["spec"]
        return pod

    @property
    def labels(self) -> dict[str, str]:
        labels: dict[str, str] = self.object["spec"]["template"]["metadata"]["labels"]
        return labels

    @property
    def container(self) -> Object:
        container: Object
        (container,) = self.pod["containers"]
        assert "initContainers" not in self.pod
        return container

    @property
    def command(self) -> list[str]:
        return [*self.container["command"], *self.container["args"]]

    @property
    def service(self) -> str:
        """gateway or worker."""
        return str(self.command[2])

    @property
    def ports(self) -> dict[str, int]:
        return {each["name"]: each["containerPort"] for each in self.container["ports"]}

    @property
    def secrets(self) -> dict[str, tuple[str, str]]:
        """Environment variables that are taken from Secrets: which, and which key of it."""
        assert "envFrom" not in self.container
        found = {}
        for each in self.container.get("env", []):
            reference = each["valueFrom"]["secretKeyRef"]
            assert not reference.get("optional")
            found[each["name"]] = (reference["name"], reference["key"])
        return found

    def volume(self, path: str) -> Object:
        """The one that is mounted there as a whole, so that what is swapped in is seen."""
        (mount,) = [each for each in self.container["volumeMounts"] if each["mountPath"] == path]
        assert "subPath" not in mount
        (volume,) = [each for each in self.pod["volumes"] if each["name"] == mount["name"]]
        return dict(volume)

    @property
    def text(self) -> str:
        """Of the configuration that is mounted where its command looks for it."""
        folder, _, file = self.command[self.command.index("--config") + 1].rpartition("/")
        name = self.volume(folder)["configMap"]["name"]
        return str(self.manifests.of("ConfigMap")[name]["data"][file])

    @property
    def config(self) -> Object:
        """The service's part of it."""
        part: Object = yaml.safe_load(self.text)[self.service]
        return part


def matches(selector: Object, labels: Mapping[str, str]) -> bool:
    """As a cluster reads a label selector; with the operators that ours have."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for each in selector.get("matchExpressions", []):
        within = labels.get(each["key"]) in each["values"]
        if within != {"In": True, "NotIn": False}[each["operator"]]:
            return False
    return True
