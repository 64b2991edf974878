"""What a model takes, told from its name. Pure.

The API is one, its models are not: some are asked to think with a budget of tokens and some with a level, and what one
accepts is a 400 to another. The table follows Google's pages on thinking, thought signatures and structured output;
`traits` in an upstream's settings corrects it for names that it does not know.
"""

from __future__ import annotations

import functools
import re
from typing import Final, Literal, TypeAlias

import msgspec

Thinking: TypeAlias = Literal["none", "budget", "level"]


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """What a model takes, each as in `TraitsPatch`."""

    thinking: Thinking = "none"
    budget: tuple[int, int] = (1, 24576)
    thinking_off: bool = True
    levels: tuple[str, ...] = ()
    seals: bool = False
    json_with_tools: bool = False
    media_results: bool = False
    validated_calls: bool = False
    tools_together: bool = False
    sampling: bool = True
    penalties: bool = True
    system: bool = True
    prefill: bool = True


class TraitsPatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What models take whose name begins with a given text; what is absent is told from the name.

    thinking: how it is asked for: not at all, with a budget of tokens, or with a level. budget: the least and the
    most tokens. thinking_off: whether a budget of 0 is taken. levels: those it knows, from the least. seals: whether
    the first call of a step must come back with a thought signature. json_with_tools: whether an answer in JSON may be
    asked for beside tools. media_results: whether the result of a call may hold images. validated_calls: whether it
    has the mode VALIDATED, which holds calls to their schema without forcing one. tools_together: whether functions go
    with the API's own tools, where it is told so. sampling: whether temperature, top_p and top_k are listened to.
    penalties: whether they are taken (Vertex AI takes them of every model). system: whether there may be a system's
    text. prefill: whether the model's turn may be the last.
    """

    thinking: Thinking | None = None
    budget: tuple[int, int] | None = None
    thinking_off: bool | None = None
    levels: tuple[str, ...] | None = None
    seals: bool | None = None
    json_with_tools: bool | None = None
    media_results: bool | None = None
    validated_calls: bool | None = None
    tools_together: bool | None = None
    sampling: bool | None = None
    penalties: bool | None = None
    system: bool | None = None
    prefill: bool | None = None

    def over(self, traits: Traits) -> Traits:
        """The traits with what this patch sets."""
        found = {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not None}
        return msgspec.structs.replace(traits, **found)


_VERSION: Final = re.compile(r"gemini-(\d{1,2})(?:\.(\d{1,2}))?(?!\d)")
# gemini-flash-latest and the like stand for the newest.
_NEWEST: Final = (99, 0)
_NO_SYSTEM: Final = re.compile(r"gemma-[23](?!\d)|gemma-3n")
# Lines that make pictures, speech or vectors: they are not told how to think.
_MEDIA: Final = ("image", "tts", "audio", "live", "embedding")


@functools.lru_cache(maxsize=512)
def traits_of(model: str) -> Traits:
    """The traits of a model by its name, with or without what stands before the last slash."""
    name = model.rpartition("/")[2].lower()
    if "gemini" not in name:
        return Traits(system=_NO_SYSTEM.search(name) is None)
    found = _VERSION.search(name)
    version = (int(found[1]), int(found[2] or 0)) if found else _NEWEST
    media = any(word in name for word in _MEDIA)
    if version < (2, 5):
        return Traits()
    if version < (3, 0):
        return Traits(
            thinking="none" if media else "budget",
            budget=(128, 32768) if "pro" in name else (512, 24576) if "lite" in name else (1, 24576),
            thinking_off="pro" not in name,
            validated_calls=True,
            penalties=False,
            system="tts" not in name,
        )
    fixed = version >= (3, 6) or (version == (3, 5) and "lite" in name)
    return Traits(
        thinking="none" if media else "level",
        levels=_levels(name, version),
        seals=True,
        json_with_tools=True,
        media_results=True,
        validated_calls=True,
        tools_together=True,
        sampling=not fixed,
        penalties=False,
        system="tts" not in name,
        prefill=not fixed,
    )


def _levels(name: str, version: tuple[int, int]) -> tuple[str, ...]:
    if "pro" not in name:
        levels = ("minimal", "low", "medium", "high")
        return levels if "lite" in name or version < (3, 7) else levels[1:]
    return ("low", "medium", "high") if version >= (3, 1) else ("low", "high")
