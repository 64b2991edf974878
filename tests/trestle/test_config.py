"""The configuration file: what is wrong with it is said once, with the path of the key at fault."""

from __future__ import annotations

import errno
import socket
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from trestle.config import ConfigError, cannot_listen, check_address, convert, load, read


class Target(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    worker: str
    model: str = ""


class Upstream(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    base_url: str
    timeout: float = 1.0
    headers: dict[str, str] = {}
    nested: dict[str, dict[str, int]] = {}


class Block(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    upstreams: dict[str, Upstream] = {}


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    targets: list[Target] = []


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    listen: str = "127.0.0.1:1"
    auth: Literal["open", "keys"] = "keys"
    size: int = 1
    strict: bool = False
    models: list[Model] = []
    openai: Block | None = None


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "trestle.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def fault(value: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        convert(value, "gateway", Settings)
    return str(caught.value)


def test_each_service_reads_its_own_part(tmp_path: Path) -> None:
    path = written(tmp_path, "gateway: {listen: here}\nworker: {listen: there, size: 3}\n")
    assert load(path, "gateway", Settings) == Settings(listen="here")
    assert load(path, "worker", Settings) == Settings(listen="there", size=3)


@pytest.mark.parametrize("text", ["", "# nothing but words\n", "worker: {size: 2}\n", "gateway:\n"])
def test_a_part_that_is_not_there_is_all_defaults(tmp_path: Path, text: str) -> None:
    assert load(written(tmp_path, text), "gateway", Settings) == Settings()


def test_anchors_and_merged_mappings_are_yaml_too(tmp_path: Path) -> None:
    text = """
gateway:
  openai:
    upstreams:
      one: &one {base_url: http://one, timeout: 2}
      two: {<<: *one, base_url: http://two}
"""
    one, two = Upstream(base_url="http://one", timeout=2.0), Upstream(base_url="http://two", timeout=2.0)
    assert load(written(tmp_path, text), "gateway", Settings).openai == Block(upstreams={"one": one, "two": two})


def test_values_are_not_interpolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "leaked")
    path = written(tmp_path, "gateway: {listen: '${SECRET} $SECRET'}\n")
    assert load(path, "gateway", Settings).listen == "${SECRET} $SECRET"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"lisen": "x"}, "gateway.lisen: is not a known key; did you mean listen?"),
        ({"unheard": "x"}, "gateway.unheard: is not a known key"),
        ({"models": [{"name": "a"}, {"name": "b", "target": []}]},
         "gateway.models[1].target: is not a known key; did you mean targets?"),
        ({"models": [{"name": "a", "targets": [{"worker": "w"}, {"worker": "w", "modle": "m"}]}]},
         "gateway.models[0].targets[1].modle: is not a known key; did you mean model?"),
        ({"openai": {"upstreams": {"ok": {"base_url": "x"}, "deep": {"base_url": "x", "timeuot": 3}}}},
         "gateway.openai.upstreams.deep.timeuot: is not a known key; did you mean timeout?"),
        ({"openai": {"upstream": {}}}, "gateway.openai.upstream: is not a known key; did you mean upstreams?"),
    ],
)  # fmt: skip
def test_an_unknown_key_is_named_with_its_path(value: Any, message: str) -> None:
    assert fault(value) == message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"size": "many"}, "gateway.size: expected `int`, got `str`"),
        ({"size": 1.5}, "gateway.size: expected `int`, got `float`"),
        ({"strict": "yes"}, "gateway.strict: expected `bool`, got `str`"),
        ({"listen": 8080}, "gateway.listen: expected `str`, got `int`"),
        ({"auth": "opne"}, "gateway.auth: invalid enum value 'opne'"),
        ({"models": {"name": "a"}}, "gateway.models: expected `array`, got `object`"),
        ({"models": ["a"]}, "gateway.models[0]: expected `object`, got `str`"),
        ({"models": [{"targets": []}]}, "gateway.models[0].name: is needed, and not there"),
        ({"openai": {"upstreams": {"a": {"base_url": "x"}, "b": {"timeout": 1}}}},
         "gateway.openai.upstreams.b.base_url: is needed, and not there"),
        ({"openai": {"upstreams": {"a": {"base_url": "x"}, "b": {"base_url": "x", "headers": {"h": "1", "n": 2}}}}},
         "gateway.openai.upstreams.b.headers.n: expected `str`, got `int`"),
        ({"openai": {"upstreams": {"a": {"base_url": "x", "nested": {"p": {"q": 1}, "r": {"s": 1, "t": "no"}}}}}},
         "gateway.openai.upstreams.a.nested.r.t: expected `int`, got `str`"),
        ({"openai": {"upstreams": {"a.b/c": {"base_url": 7}}}},
         "gateway.openai.upstreams.a.b/c.base_url: expected `str`, got `int`"),
        ({"openai": {"upstreams": {"a": {"base_url": "x"}, 7: {"base_url": "x"}}}},
         "gateway.openai.upstreams.7: as a key, expected `str`, got `int`"),
        ({"openai": {"upstreams": {"a": {"base_url": "x", "headers": {"h": "1", True: "2"}}}}},
         "gateway.openai.upstreams.a.headers.True: as a key, expected `str`, got `bool`"),
        ([], "gateway: expected `object`, got `array`"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_with_its_path(value: Any, message: str) -> None:
    assert fault(value) == message


def test_a_part_must_be_a_mapping(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^gateway: expected `object`, got `str`$"):
        load(written(tmp_path, "gateway: hello\n"), "gateway", Settings)


@pytest.mark.parametrize("text", ["gateway: []\n", "gateway: 0\n", "gateway: false\n", "gateway: ''\n"])
def test_an_empty_value_of_another_kind_is_no_part(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"^gateway: expected `object`, got "):
        load(written(tmp_path, text), "gateway", Settings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gatway: {}\n", "gatway: is not a known key; did you mean gateway?"),
        ("other: {}\n", "other: is not a known key"),
        ("7: {}\n", "7: is not a known key"),
        ("- gateway\n", "{path}: must be a mapping with the keys gateway and worker"),
        ("just words\n", "{path}: must be a mapping with the keys gateway and worker"),
    ],
)
def test_only_the_services_parts_stand_at_the_top(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert str(caught.value) == message.format(path=path)


@pytest.mark.parametrize(
    ("text", "place", "name"),
    [
        ("gateway: {}\nworker: {}\ngateway: {}\n", "3:1", "gateway"),
        ("gateway:\n  listen: a\n  size: 1\n  listen: b\n", "4:3", "listen"),
        ("worker: {openai: {upstreams: {a: {base_url: x}, a: {base_url: y}}}}\n", "1:49", "a"),
    ],
)
def test_a_key_twice_is_named_with_its_place(tmp_path: Path, text: str, place: str, name: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert str(caught.value) == f"{path}:{place}: the key {name} stands there twice"


@pytest.mark.parametrize("text", ["gateway: {\n", "gateway: [}\n", "\tgateway: 1\n", "a: b: c\n", "gateway: \x07\n"])
def test_what_is_not_yaml_is_refused_with_its_file(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["gateway:\n\tlisten: a\n", "gateway:\n  listen: a\n   auth: open\n"])
def test_who_indents_wrongly_is_told_where_to_look(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"yaml:[23]:\d+: .*; is the indentation right, and made of blanks\?$"):
        read(written(tmp_path, text))


@pytest.mark.parametrize("address", ["8080", "localhost", ":8080", "127.0.0.1:http", "127.0.0.1:70000"])
def test_what_nothing_can_listen_on_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=r"^gateway\.listen: '.*' is not HOST:PORT, as in 127\.0\.0\.1:8080$"):
        check_address("gateway.listen", address)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EADDRINUSE, "in other words"), "the port is taken: end what listens there (ss -ltnp shows it)"),
        (OSError(errno.EADDRNOTAVAIL, ""), "this machine does not have that address"),
        (OSError(errno.EACCES, ""), "take a port from 1024 on"),
        (OSError(errno.ENETDOWN, "in other words"), "Network is down"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
    ],
)
def test_why_nobody_can_listen_there(error: OSError, words: str) -> None:
    said = str(cannot_listen("gateway.listen", "host:1", error))
    assert said.startswith("gateway.listen: cannot listen on host:1: ")
    assert words in said


@pytest.mark.parametrize("text", ["gateway: !!python/object/apply:os.getcwd []\n", "gateway: {[1]: 2}\n"])
def test_nothing_but_plain_values_is_made(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"^.*trestle\.yaml:1:"):
        load(written(tmp_path, text), "gateway", Settings)


def test_not_utf8_is_said(tmp_path: Path) -> None:
    path = written(tmp_path, b"gateway: {listen: '\xff\xfe'}\n")
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert str(caught.value) == f"{path}: is not UTF-8"


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    path = tmp_path / "absent.yaml"
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert str(caught.value) == f"{path}: No such file or directory; --config FILE names the configuration"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path)
    assert str(caught.value) == f"{tmp_path}: Is a directory; --config FILE names the configuration"
