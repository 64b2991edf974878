"""What a model of Anthropic's takes, told from its name. Pure.

The Messages API is one, but its models differ in how they are asked to think, whether they sample as they are told and
whether a tool may be forced on them; a request they do not take is a 400. The table here follows Anthropic's own pages
on each model; `traits` in an upstream's settings corrects it for names that it does not know.
"""

from __future__ import annotations

import functools
import re
from typing import Final, Literal, TypeAlias

import msgspec

Thinking: TypeAlias = Literal["none", "budget", "adaptive"]
ThinkingOff: TypeAlias = Literal["default", "disabled", "between_tools", "never"]
SamplingKind: TypeAlias = Literal["both", "one", "none"]

EFFORTS: Final = ("low", "medium", "high", "xhigh", "max")


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """What a model takes, each as in `TraitsPatch`."""

    thinking: Thinking = "budget"
    thinking_off: ThinkingOff = "default"
    thinking_text: bool = False
    efforts: tuple[str, ...] = ()
    sampling: SamplingKind = "both"
    forced_tools: bool = True
    native_json: bool = False
    prefill: bool = True
    max_tokens: int = 8192


class TraitsPatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What models take whose name begins with a given text; what is absent is told from the name.

    thinking: how it is asked for: not at all, with a budget of tokens, or adaptive. thinking_off: how it is kept
    off: by not asking, by an explicit `disabled` or `between_tools`, or never. thinking_text: whether its text comes
    only when asked for. efforts: the words of `output_config.effort` it knows. sampling: whether temperature and top_p
    are taken both, one at a time, or not. forced_tools: whether a call can be forced. native_json: whether it has
    `output_config.format` and strict tools. prefill: whether an assistant's message may be the last. max_tokens: what
    an answer is limited to when the client says nothing.
    """

    thinking: Thinking | None = None
    thinking_off: ThinkingOff | None = None
    thinking_text: bool | None = None
    efforts: tuple[str, ...] | None = None
    sampling: SamplingKind | None = None
    forced_tools: bool | None = None
    native_json: bool | None = None
    prefill: bool | None = None
    max_tokens: int | None = None

    def over(self, traits: Traits) -> Traits:
        """The traits with what this patch sets."""
        found = {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not None}
        return msgspec.structs.replace(traits, **found)


# claude-opus-4-5-20251101, anthropic/claude-sonnet-4.6, us.anthropic.claude-haiku-4-5-20251001-v1:0, ...
_NEW: Final = re.compile(r"claude-(?P<line>[a-z]+)-(?P<major>\d{1,2})(?!\d)(?:[-.](?P<minor>\d{1,2})(?!\d))?")
# claude-3-5-haiku-20241022, claude-3-opus-latest, claude-2.1
_OLD: Final = re.compile(r"claude-(?P<major>\d)(?!\d)(?:[-.](?P<minor>\d)(?!\d))?(?:-(?P<line>[a-z]+))?")
# Lines that think always, whatever their version.
_ALWAYS: Final = frozenset({"fable", "mythos"})


@functools.lru_cache(maxsize=512)
def traits_of(model: str) -> Traits:
    """The traits of a model by its name, in any of the spellings that Anthropic and its resellers use. A name that is
    not Claude's gets what compatible vendors commonly take."""
    if "mythos-preview" in model:
        return _recent("mythos", (5, 0))
    found = _NEW.search(model) or _OLD.search(model)
    if found is None:
        return Traits()
    line = found["line"] or ""
    version = (int(found["major"]), int(found["minor"] or 0))
    return _older(line, version) if version < (4, 6) and line not in _ALWAYS else _recent(line, version)


def _older(line: str, version: tuple[int, int]) -> Traits:
    """Claude 4.5 and before: thinking by budget, where there is any."""
    return Traits(
        thinking="none" if version < (3, 7) else "budget",
        efforts=EFFORTS[:3] if (line, version) == ("opus", (4, 5)) else (),
        sampling="one" if version >= (4, 5) or (line, version) == ("opus", (4, 1)) else "both",
        native_json=version >= (4, 5) or (line, version) == ("opus", (4, 1)),
        max_tokens=4096 if version < (3, 5) else 8192 if version < (3, 7) else 32_000,
    )


def _recent(line: str, version: tuple[int, int]) -> Traits:
    """Claude 4.6 and after: adaptive thinking."""
    always = line in _ALWAYS
    off: ThinkingOff = "default"
    if always or (version >= (5, 5) and line not in ("sonnet", "haiku")):
        off = "never"
    elif version >= (5, 5) and line == "sonnet":
        off = "between_tools"
    elif version >= (5, 0):
        off = "disabled"
    newer = always or version >= (4, 7)
    return Traits(
        thinking="adaptive",
        thinking_off=off,
        thinking_text=newer,
        efforts=EFFORTS if newer else ("low", "medium", "high", "max"),
        sampling="none" if newer else "one",
        forced_tools=version < ((5, 1) if always else (5, 5)) or line == "haiku",
        native_json=True,
        prefill=False,
        max_tokens=32_000,
    )
