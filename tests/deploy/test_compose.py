"""docker-compose.yml: what it mounts is right for what it starts, and none of ours may do more than it needs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any, Final

import pytest
import yaml
from support.services import ROOT

COMPOSE: Final[dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: Final[dict[str, dict[str, Any]]] = COMPOSE["services"]
OURS: Final = [name for name in SERVICES if name == "gateway" or name.startswith("worker-")]
PROFILES: Final = ("plain", "database")


def commands(service: str) -> list[list[str]]:
    """What it runs: with each profile, and with none."""
    command = SERVICES[service]["command"]
    return [[re.sub(r"\$\{COMPOSE_PROFILES:-plain\}", profile, word) for word in command] for profile in PROFILES]


def mounted(path: str) -> str:
    """Where in the repository the file is that a container sees there."""
    (folder,) = {each for name in OURS for each in SERVICES[name]["volumes"] if "/etc/trestle" in each}
    assert folder == "./deploy/compose:/etc/trestle:ro"
    return path.replace("/etc/trestle/", f"{ROOT}/deploy/compose/")


@pytest.mark.parametrize("service", OURS)
def test_what_is_mounted_is_right_for_what_is_started(service: str) -> None:
    names = ("TRESTLE_KEY", "TRESTLE_ADMIN_KEY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY")
    environment = {**os.environ, **dict.fromkeys(names, "secret")}
    for command in commands(service):
        assert command[:2] == ["python", "-m"]
        checked = [sys.executable, *(mounted(word) for word in command[1:]), "--check"]
        done = subprocess.run(checked, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("service", OURS)
def test_ours_may_do_little(service: str) -> None:
    settings = SERVICES[service]
    assert settings["read_only"] is True
    assert settings["cap_drop"] == ["ALL"]
    assert settings["security_opt"] == ["no-new-privileges:true"]
    assert settings["build"]["target"] == ("gateway" if service == "gateway" else "worker")


def test_only_the_gateway_is_to_be_reached_and_only_it_reaches_the_state() -> None:
    assert [name for name in SERVICES if "ports" in SERVICES[name]] == ["gateway"]
    reaching = [name for name in SERVICES if "state" in SERVICES[name].get("networks", ())]
    assert reaching == ["gateway", "postgresql", "redis"]
    assert COMPOSE["networks"]["state"]["internal"] is True


def test_a_provider_is_known_to_its_worker_alone() -> None:
    holders = {
        variable: [name for name in SERVICES if variable in SERVICES[name].get("environment", ())]
        for variable in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY")
    }
    assert holders == {
        "OPENAI_API_KEY": ["worker-openai"],
        "ANTHROPIC_API_KEY": ["worker-anthropic"],
        "GEMINI_API_KEY": ["worker-gemini"],
    }


def test_others_are_started_with_the_profile_only_and_in_a_version() -> None:
    others = {name: settings for name, settings in SERVICES.items() if name not in OURS}
    assert {name: settings["profiles"] for name, settings in others.items()} == {
        "postgresql": ["database"],
        "redis": ["database"],
    }
    assert all(re.search(r":-\w+:\d", settings["image"]) for settings in others.values())
