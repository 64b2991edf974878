"""What `trestle up` starts: read from the configuration file as it stands, before any service has checked it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

LOOPBACK: Final = ("127.", "localhost:", "[::1]:", "unix:")


@dataclass(frozen=True, slots=True)
class Plan:
    """Workers by name, which is also their family's: `here` and where each will listen; `elsewhere` and where each
    serves already; `left_out` and the environment variables that each misses."""

    here: dict[str, str]
    elsewhere: dict[str, str]
    left_out: dict[str, list[str]]


def plan(document: Mapping[str, Any], environment: Mapping[str, str]) -> Plan:
    """The plan for this file. What is wrong in the file is left for the services to say."""
    here: dict[str, str] = {}
    elsewhere: dict[str, str] = {}
    left_out: dict[str, list[str]] = {}
    for name, worker in _mapping(_mapping(document.get("gateway")).get("workers")).items():
        address = str(_mapping(worker).get("address", worker))
        if not address.startswith(LOOPBACK):
            elsewhere[name] = address
        elif unset := [variable for variable in credentials(document, name) if not environment.get(variable)]:
            left_out[name] = unset
        else:
            here[name] = address
    return Plan(here, elsewhere, left_out)


def families(document: Mapping[str, Any]) -> list[str]:
    """The families that have upstreams in this file."""
    return [name for name, block in _mapping(document.get("worker")).items() if "upstreams" in _mapping(block)]


def credentials(document: Mapping[str, Any], family: str) -> list[str]:
    """The environment variables that this family's upstreams take their credentials from: whatever a key that ends in
    `_env` names."""
    upstreams = _mapping(_mapping(_mapping(document.get("worker")).get(family)).get("upstreams"))
    pairs = (pair for upstream in upstreams.values() for pair in _mapping(upstream).items())
    return list(dict.fromkeys(str(variable) for key, variable in pairs if str(key).endswith("_env") and variable))


def client_key(document: Mapping[str, Any], environment: Mapping[str, str]) -> tuple[str, str]:
    """A key that opens the gateway and the variable that holds it; both empty where the file names none that is set."""
    keys = _mapping(document.get("gateway")).get("keys")
    for key in keys if isinstance(keys, list) else []:
        variable = str(_mapping(key).get("key_env") or "")
        if environment.get(variable):
            return environment[variable], variable
    return "", ""


def is_open(document: Mapping[str, Any]) -> bool:
    """Whether the gateway asks nobody for a key."""
    return bool(_mapping(document.get("gateway")).get("auth") == "open")


def is_encrypted(document: Mapping[str, Any]) -> bool:
    """Whether the gateway speaks HTTPS."""
    return bool(_mapping(document.get("gateway")).get("tls"))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
