"""The table of what is served where: a request's path and method to the endpoint that answers it. Pure."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import unquote

if TYPE_CHECKING:
    from gateway.exchange import Exchange
    from gateway.reply import Reply

Handler: TypeAlias = "Callable[[Exchange], Awaitable[Reply]]"
_VARIABLE: Final = re.compile(r"\{(\w+)(:\.\+)?\}")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one path. path: `{name}` in it is any segment, `{name:.+}` all the rest. scope: what the caller's
    key must be good for; empty: nothing in particular. guarded: for who shows a key. kind: what a request to it is
    called where requests are recorded; empty: they are not."""

    method: str
    path: str
    handler: Handler
    scope: str = ""
    guarded: bool = True
    kind: str = ""


Methods: TypeAlias = Mapping[str, Endpoint]
_NOTHING: Final[Methods] = {}
_UNNAMED: Final[Mapping[str, str]] = {}


class Table:
    """The endpoints by path and method."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self._fixed: dict[str, dict[str, Endpoint]] = {}
        variable: dict[str, dict[str, Endpoint]] = {}
        for endpoint in endpoints:
            paths = variable if "{" in endpoint.path else self._fixed
            methods = paths.setdefault(endpoint.path, {})
            methods[endpoint.method] = endpoint
            if endpoint.method == "GET":
                methods["HEAD"] = endpoint
        self._variable = [(_pattern(path), methods) for path, methods in variable.items()]

    def at(self, path: str) -> tuple[Methods, Mapping[str, str]]:
        """What a path, as it was sent, takes: endpoints by method, none where nobody serves it, and the texts that
        stand in place of its variables, unescaped."""
        fixed = self._fixed.get(path)
        if fixed is not None:
            return fixed, _UNNAMED
        for pattern, methods in self._variable:
            found = pattern.fullmatch(path)
            if found is not None:
                return methods, {name: unquote(text) for name, text in found.groupdict().items()}
        return _NOTHING, _UNNAMED


def _pattern(path: str) -> re.Pattern[str]:
    text, at = "", 0
    for variable in _VARIABLE.finditer(path):
        text += re.escape(path[at : variable.start()])
        text += f"(?P<{variable[1]}>{'.+' if variable[2] else '[^/]+'})"
        at = variable.end()
    return re.compile(text + re.escape(path[at:]))
