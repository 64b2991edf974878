"""The configuration file: one YAML file, of which each service reads its own part, strictly.

An unknown key, a key twice or a value of the wrong kind is an error that names its path in the file
(`gateway.models[0].targets[1].worker`). Nothing is interpolated: secrets are named by environment variable.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import yaml

PARTS: Final = ("gateway", "worker")
T = TypeVar("T")
HINTS: Final = {
    errno.EADDRINUSE: "the port is taken: end what listens there (ss -ltnp shows it), or choose another port",
    errno.EADDRNOTAVAIL: "this machine does not have that address",
    errno.EACCES: "this user may not: take a port from 1024 on",
}
"""What to do when an address cannot be listened on."""
_FAULT: Final = re.compile(r"(?P<text>.*?)(?: - at (?P<key>`key` in )?`\$(?P<path>.*)`)?", re.DOTALL)
_STEP: Final = re.compile(r"\.[^.\[]+|\[[^\]]*\]")
_MISSING: Final = re.compile(r"object missing required field `(?P<name>.*)`")
_UNKNOWN: Final = re.compile(r"object contains unknown field `(?P<name>.*)`")


class ConfigError(Exception):
    """The configuration cannot be used. The message names the key at fault and says what is wrong with it."""


def unset(variable: str) -> str:
    """What to say of an environment variable that the file names and that is not set."""
    return f"the environment variable {variable} is not set: export {variable}=..., or take this out of the file"


def cannot_listen(name: str, address: str, error: OSError) -> ConfigError:
    """The error to raise for an address that cannot be listened on. name: of the setting that says it."""
    number = error.errno or 0
    hint = HINTS.get(number) or (os.strerror(number) if number > 0 else str(error.strerror or error))
    return ConfigError(f"{name}: cannot listen on {address}: {hint}")


def check_address(name: str, address: str) -> None:
    """Raises `ConfigError` for what nothing can listen on. name: of the setting that says it."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"{name}: {address!r} is not HOST:PORT, as in 127.0.0.1:8080")


def load(path: Path, part: str, type: type[T]) -> T:  # noqa: A002 (msgspec's own word for it)
    """The part of the file, `gateway` or `worker`, as `type`. Raises `ConfigError`."""
    value = read(path).get(part)
    return convert({} if value is None else value, part, type)


def read(path: Path) -> dict[str, Any]:
    """The whole file as it stands, its parts by name. Raises `ConfigError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; --config FILE names the configuration") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8") from None
    try:
        document = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        said = getattr(error, "problem", None) or "is not YAML"
        if isinstance(error, yaml.scanner.ScannerError | yaml.parser.ParserError):
            said += "; is the indentation right, and made of blanks?"
        raise ConfigError(f"{path}{where}: {said}") from None
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: must be a mapping with the keys {' and '.join(PARTS)}")
    for key in document:
        if key not in PARTS:
            raise ConfigError(f"{key}: is not a known key{_did_you_mean(str(key), PARTS)}")
    return document


def convert(value: Any, part: str, type: type[T]) -> T:  # noqa: A002
    """`value`, as YAML gave it, as `type`. Raises `ConfigError` with paths that begin with `part`."""
    try:
        return msgspec.convert(value, type)
    except msgspec.ValidationError as error:
        text, path = _fault(str(error))
        where = part + _named(path, _narrowed(value, type, str(error)))
        if missing := _MISSING.fullmatch(text):
            raise ConfigError(f"{where}.{missing['name']}: is needed, and not there") from None
        unknown = _UNKNOWN.fullmatch(text)
        if unknown is None:
            raise ConfigError(f"{where}: {text}") from None
        name = unknown["name"]
        raise ConfigError(f"{where}.{name}: is not a known key{_did_you_mean(name, _keys(type, path))}") from None


def _fault(message: str) -> tuple[str, str]:
    """What msgspec finds wrong and its path to it, in which `[...]` is some key of a mapping."""
    message = message[:1].lower() + message[1:]
    match = _FAULT.fullmatch(message)
    if match is None:
        return message, ""
    text, path = match["text"], match["path"] or ""
    return (f"as a key, {text}", f"{path}[...]") if match["key"] else (text, path)


def _narrowed(value: Any, type: Any, message: str) -> Any:  # noqa: A002
    """`value` with every mapping on the way to the fault cut down to the one key that makes it: msgspec writes such a
    key `[...]` in its paths."""
    where: list[str | int] = []
    here = value
    for step in _STEP.findall(_fault(message)[1]):
        if step == "[...]" and len(here) > 1:
            for key in here:
                narrower = _with(value, where, {key: here[key]})
                try:
                    msgspec.convert(narrower, type)
                except msgspec.ValidationError as error:
                    if str(error) == message:
                        return _narrowed(narrower, type, message)
        index: Any = next(iter(here)) if step == "[...]" else int(step[1:-1]) if step[0] == "[" else step[1:]
        where.append(index)
        try:
            here = here[index]
        except (KeyError, IndexError, TypeError):
            break
    return value


def _with(value: Any, where: list[str | int], new: Any) -> Any:
    """A copy of `value` in which `new` stands at `where`."""
    if not where:
        return new
    copy = value.copy()
    copy[where[0]] = _with(value[where[0]], where[1:], new)
    return copy


def _named(path: str, value: Any) -> str:
    """msgspec's path with the name of each mapping's key, which it writes `[...]`; `value` is narrowed."""
    shown = ""
    for step in _STEP.findall(path):
        if step == "[...]":
            key = next(iter(value), "*") if isinstance(value, dict) else "*"
            shown += f".{key}"
            value = value.get(key) if isinstance(value, dict) else None
        else:
            shown += step
            try:
                value = value[int(step[1:-1])] if step[0] == "[" else value[step[1:]]
            except (KeyError, IndexError, TypeError, ValueError):
                value = None
    return shown


def _keys(type: Any, path: str) -> list[str]:  # noqa: A002
    """The keys that may stand where the path leads in a value of `type`."""
    here: Any = msgspec.inspect.type_info(type)
    for step in _STEP.findall(path):
        here = _struct_in(here)
        if step[0] == ".":
            fields = {field.encode_name: field.type for field in getattr(here, "fields", ())}
            here = fields.get(step[1:])
        else:
            here = getattr(here, "value_type", None) or getattr(here, "item_type", None)
    return [field.encode_name for field in getattr(_struct_in(here), "fields", ())]


def _struct_in(info: Any) -> Any:
    """Of `X | None`, X."""
    options = getattr(info, "types", None)
    return next((each for each in options if not isinstance(each, msgspec.inspect.NoneType)), info) if options else info


def _did_you_mean(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]}?" if close else ""


class _StrictLoader(yaml.SafeLoader):
    """YAML's plain types, and no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(getattr(key, "value", ""))
            if key.tag != "tag:yaml.org,2002:merge" and name in seen:
                words = f"the key {name} stands there twice"
                raise yaml.constructor.ConstructorError(None, None, words, key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)
