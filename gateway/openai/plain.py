"""Which chunks of a batch are nothing but a piece of text, told from its size. Pure.

To ask each chunk for each of its members costs more than all else that is done with it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from trestle.v1 import chat_pb2

# What OpenAI adds to each chunk; nothing in it is written in another way when it is read and written anew.
PADDING: Final = re.compile(rb'\{"obfuscation":"[A-Za-z0-9]*"\}')
_FRAME: Final = 4  # bytes around the text of a chunk that has no choice but 0 and nothing else
_PADDING_FRAME: Final = 2  # around a padding in it


class PlainTexts(NamedTuple):
    """By chunk: its text, empty for one that is none of these; its padding as an object (no list for none at all).
    others: where those are, in order."""

    texts: list[str]
    paddings: list[bytes]
    others: list[int]


def plain_texts(chunks: Sequence[chat_pb2.ChatChunk], size: int) -> PlainTexts | None:
    """The chunks of choice 0 that are a piece of text and perhaps a padding; None where the size does not tell. size:
    of the message that holds these chunks and nothing else, in bytes.

    A chunk with a text is at least as large as its frame and that text. So where all together are no larger than that,
    each of them is no more than that. Texts beyond 125 bytes have a larger frame, and are not told.
    """
    texts = [chunk.text for chunk in chunks]
    others = [at for at, text in enumerate(texts) if not text]
    plain = len(texts) - len(others)
    if len(others) > plain:
        return None
    more = size - plain * _FRAME - len("".join(texts).encode())
    for at in others:
        more -= _framed(chunks[at].ByteSize())
    if not more:
        return PlainTexts(texts, [], others)
    paddings = [chunk.answer_extra_json if text else b"" for chunk, text in zip(chunks, texts, strict=True)]
    padded = [padding for padding in paddings if padding]
    if more == sum(map(len, padded)) + _PADDING_FRAME * len(padded) and all(map(PADDING.fullmatch, padded)):
        return PlainTexts(texts, paddings, others)
    return None


def _framed(size: int) -> int:
    """Bytes of a member of a repeated field with a number below 16: its tag, its length, itself."""
    return 1 + max(1, -(-size.bit_length() // 7)) + size
