"""What the upstream says and what the load client must therefore receive. Pure.

A model's name is the script of its answer: `chunks-200` sends 200 text chunks all at once, `chunks-200-every-20ms` one
each 20 ms, `chunks-200-of-1000` each with a text of 1000 characters. Each text is its number and a bar (` 0007|`), so
that a chunk lost, doubled or out of order shows, and as many `x` as make up its size; the bar stands nowhere else in an
answer, so that counting bars counts chunks.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any, Final, NamedTuple

_MODEL: Final = re.compile(rb'"model":\s*"(chunks-(\d+)(?:-every-(\d+)ms)?(?:-of-(\d+))?)"')
_STREAM: Final = re.compile(rb'"stream":\s*true')
_TEXTS: Final = re.compile(rb'"content":\s*" (\d{4,})\|x*"')
_STOP: Final = re.compile(rb'"finish_reason":\s*"stop"')
_QUESTION: Final = "Tell of a lighthouse keeper who learns that the light can be seen from another shore. " * 3
_ANSWER: Final = "The keeper climbed the stairs at dusk, as on each of nine thousand evenings before. " * 3
MARK: Final = b"|"
DONE: Final = b"data: [DONE]\n\n"


class Script(NamedTuple):
    """What the upstream is asked for. interval_ms: milliseconds between two chunks, 0 for all at once. size: of a
    chunk's text in characters; 0: no more than its number."""

    model: str
    chunks: int
    interval_ms: int
    size: int
    stream: bool


def model_name(chunks: int, interval_ms: int = 0, size: int = 0) -> str:
    """The model that answers with so many chunks; the rest as in `Script`."""
    every = f"-every-{interval_ms}ms" if interval_ms else ""
    return f"chunks-{chunks}{every}" + (f"-of-{size}" if size else "")


def request_body(model: str, stream: bool, prompt_bytes: int = 0) -> bytes:
    """A chat completion as a client would ask for it, about 500 bytes; prompt_bytes: and so many more."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": _QUESTION + "x" * prompt_bytes},
        ],
        "temperature": 0.7,
        "max_tokens": 512,
    }
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(body).encode()


def script(body: bytes) -> Script:
    """What a request's body asks the upstream for. Raises `ValueError` for a model that is no script."""
    found = _MODEL.search(body)
    if found is None:
        raise ValueError("the body names no model of this upstream")
    streamed = _STREAM.search(body) is not None
    return Script(found[1].decode(), int(found[2]), int(found[3] or 0), int(found[4] or 0), streamed)


def whole_answer(model: str) -> bytes:
    """The answer in one piece: JSON of about 650 bytes."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": _ANSWER, "refusal": None},
        "logprobs": None,
        "finish_reason": "stop",
    }
    return json.dumps({**_head(model, "chat.completion"), "choices": [choice], "usage": _usage(60)}).encode()


@cache
def stream_events(model: str, chunks: int, size: int = 0) -> tuple[bytes, ...]:
    """The events of a streamed answer: the role, the texts, the finish, the usage, and [DONE]; about 230 bytes each and
    what `size` adds."""
    head = _head(model, "chat.completion.chunk")

    def event(choices: list[dict[str, Any]], **more: Any) -> bytes:
        return b"data: " + json.dumps({**head, "choices": choices, **more}, separators=(",", ":")).encode() + b"\n\n"

    def delta(content: dict[str, Any], finish: str | None = None) -> bytes:
        return event([{"index": 0, "delta": content, "logprobs": None, "finish_reason": finish}], usage=None)

    return (
        delta({"role": "assistant", "content": "", "refusal": None}),
        *(delta({"content": f" {number:04d}|".ljust(size, "x")}) for number in range(chunks)),
        delta({}, "stop"),
        event([], usage=_usage(chunks)),
        DONE,
    )


def fault_of_whole(status: int, body: bytes) -> str:
    """What is wrong with an answer in one piece; empty when nothing is."""
    if status != 200:
        return f"status {status}: {body[:300]!r}"
    try:
        choice = json.loads(body)["choices"][0]
        right = choice["message"]["content"] == _ANSWER and choice["finish_reason"] == "stop"
    except (ValueError, LookupError, TypeError):
        right = False
    return "" if right else f"another answer than the upstream's: {body[:300]!r}"


def fault_of_stream(status: int, body: bytes, chunks: int) -> str:
    """What is wrong with a streamed answer of so many chunks; empty when nothing is."""
    if status != 200:
        return f"status {status}: {body[:300]!r}"
    numbers = [int(number) for number in _TEXTS.findall(body)]
    if numbers != list(range(chunks)):
        return f"{len(numbers)} chunks of {chunks} in order: ... {body[-300:]!r}"
    if not _STOP.search(body):
        return f"no finish: ... {body[-300:]!r}"
    if not body.endswith(DONE):
        return f"no [DONE] at the end: ... {body[-100:]!r}"
    return ""


def _head(model: str, kind: str) -> dict[str, Any]:
    return {
        "id": "chatcmpl-8pQ2vX0cS7dL4mN6tR1wY3zA5bC9e",
        "object": kind,
        "created": 1_760_000_000,
        "model": model,
        "system_fingerprint": "fp_44709d6fcb",
    }


def _usage(output: int) -> dict[str, int]:
    return {"prompt_tokens": 72, "completion_tokens": output, "total_tokens": 72 + output}
