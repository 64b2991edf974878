"""Calls whose arguments come in pieces, each with the path of the value that it is of. Pure.

Vertex AI sends them so where a request asks for it (`streamFunctionCallArguments`): the name first, then pieces without
one, each but the last with `willContinue`.
"""

from __future__ import annotations

import itertools
import re
from typing import Any, Final

import msgspec
from msgspec import Raw

from trestle.openjson import NOTHING, members
from worker.families.gemini import wire

# A name or a number of a path: $.a, $[0], $['a b'].
_STEP: Final = re.compile(r"""\.([^.\[\]]+)|\[([0-9]{1,6})\]|\['([^']*)'\]|\["([^"]*)"\]""")
_MAX_ITEMS: Final = 100_000


class PartialCall:
    """A call on its way. part: its first piece, with its name and all that stands beside it."""

    def __init__(self, part: wire.Part) -> None:
        self.part = part
        self._args: dict[str, Any] = {}

    def feed(self, found: wire.FunctionCall) -> None:
        """What one piece says of the arguments."""
        if bytes(found.args)[:1] == b"{":
            self._args |= members(found.args)
        for piece in found.partial_args or ():
            steps = _steps(piece.json_path)
            at: Any = self._args
            for step, after in itertools.pairwise(steps):
                at = _child(at, step, [] if isinstance(after, int) else {})
            before = _get(at, steps[-1])
            value = _value(piece)
            _put(at, steps[-1], before + value if isinstance(before, str) and isinstance(value, str) else value)

    def args(self) -> Raw:
        """The arguments, put together."""
        return Raw(msgspec.json.encode(self._args))


def _steps(path: str) -> list[str | int]:
    """The names and numbers of a path from the object of the arguments; the path itself for one of another kind."""
    found: list[str | int] = []
    at = 1
    for step in _STEP.finditer(path, 1):
        if step.start() != at:
            break
        at = step.end()
        name, number, *quoted = step.groups()
        found.append(int(number) if number is not None else next(n for n in (name, *quoted) if n is not None))
    whole = path.startswith("$") and at == len(path) and found and isinstance(found[0], str)
    return found if whole else [path]


def _value(piece: wire.PartialArg) -> Any:
    if piece.string_value is not None:
        return piece.string_value
    if piece.bool_value is not None:
        return piece.bool_value
    return piece.number_value if piece.number_value is not NOTHING else None  # a number as it was written


def _get(at: Any, step: str | int) -> Any:
    if isinstance(at, dict):
        return at.get(str(step))
    return at[step] if isinstance(step, int) and step < len(at) else None


def _put(at: Any, step: str | int, value: Any) -> None:
    if isinstance(at, dict):
        at[str(step)] = value
    elif isinstance(step, int) and step < _MAX_ITEMS:
        at.extend([None] * (step + 1 - len(at)))
        at[step] = value


def _child(at: Any, step: str | int, empty: Any) -> Any:
    """The object or array there; a new one where there is none."""
    found = _get(at, step)
    if not isinstance(found, dict | list):
        found = empty
        _put(at, step, found)
    return found
