"""Dashboard, alerts and documentation name the metrics that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry
from support.services import ROOT

from gateway.limits.limiter import Limiter
from gateway.metrics import Metrics, State
from gateway.prices import Prices
from gateway.settings import LimiterSettings
from trestle import scrape
from worker.calls import Calls
from worker.metrics import Metrics as WorkerMetrics

FOLDER = ROOT / "deploy" / "telemetry"
_NAME = re.compile(r"\b(?:trestle|process)_\w+")


def names() -> set[str]:
    """Of every sample that a gateway or a worker may tell."""
    gateway, worker = scrape.registry(), scrape.registry()
    Metrics(gateway, lambda _: True)
    limiter = Limiter(LimiterSettings(), lambda _: None, Prices([]))
    gateway.register(State(list, limiter, lambda: (0, 0), lambda: False, dict))
    scrape.Certificates(dict, gateway)
    WorkerMetrics(worker, "echo", Calls())
    return {name for registry in (gateway, worker) for name in _samples(registry)}


def _samples(registry: CollectorRegistry) -> Iterator[str]:
    for family in registry.collect():
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}.get(family.type, [""])
        yield from (family.name + suffix for suffix in suffixes)


def expressions() -> list[str]:
    dashboard = json.loads((FOLDER / "dashboard.json").read_text())
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_the_dashboard_asks_for_what_there_is() -> None:
    asked = {name for expression in expressions() for name in _NAME.findall(expression)}
    assert len(asked) > 8
    assert asked <= names()


def test_the_alerts_ask_for_what_there_is() -> None:
    asked = set(_NAME.findall((FOLDER / "alerts.yaml").read_text()))
    assert len(asked) > 5
    assert asked <= names()


def test_each_metric_is_documented() -> None:
    told = set(re.findall(r"`(trestle_\w+)`", (ROOT / "docs" / "metrics.md").read_text()))
    there = {re.sub(r"_(bucket|count|sum)$", "", name) for name in names() if name.startswith("trestle_")}
    assert told == there


def test_the_alerts_are_rules() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool is installed (Debian: apt install prometheus)")
    command = [promtool, "check", "rules", str(FOLDER / "alerts.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 rules found" in done.stdout
