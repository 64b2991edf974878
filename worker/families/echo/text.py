"""Legacy text completions: each prompt is said again. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final

import msgspec

from trestle.errors import CallError, Reason
from trestle.v1 import chat_pb2, completion_pb2
from worker.families.echo.answer import limit_of
from worker.families.echo.options import ALL, MAX_TOKENS, Options, options_of
from worker.families.echo.play import Fields, Script, beginning, ending, play
from worker.families.echo.words import Tokens, likelihood, repeated, tokens_of, until
from worker.family import Wait

_OPTIONS: Final = ALL - {"reasoning", "refusal"}


@dataclass(frozen=True, slots=True)
class _Said:
    """What one choice says. before: the prompt, where it is repeated."""

    before: Tokens
    text: Tokens
    finish: chat_pb2.FinishReason.ValueType


def text_steps(
    request: completion_pb2.CompleteRequest, now: float
) -> Iterator[completion_pb2.CompleteResponse | Wait]:
    """The responses to a request, and the waits between. now: Unix seconds. Raises `CallError`."""
    options = options_of(request.model, request.extra_json, _OPTIONS)
    n = max(1, request.sampling.n)
    if 0 < request.best_of < n:
        message = "Invalid value for 'best_of': it is less than 'n'."
        raise CallError(Reason.INVALID_REQUEST, message, param="best_of")
    prompts = [_prompt(prompt, at) for at, prompt in enumerate(request.prompts)] or [""]
    heard = sum(len(tokens_of(prompt, MAX_TOKENS)) for prompt in prompts)
    choices = [_said(request, prompt, options, at) for prompt in prompts for at in range(n)]
    size = options.chunk if request.stream else MAX_TOKENS
    alternatives = request.logprobs if request.HasField("logprobs") else None
    pieces = [_pieces(said, at, size, alternatives) for at, said in enumerate(choices)]

    def spent(moments: int) -> chat_pb2.Usage:
        said = (min(len(choice.text), moments * options.chunk) for choice in choices)
        return chat_pb2.Usage(input_tokens=heard, output_tokens=sum(said))

    moments = max(-(-len(said.before) // options.chunk) - (-len(said.text) // options.chunk) for said in choices)
    end = ending((said.finish for said in choices), spent(MAX_TOKENS))
    identity = hashlib.blake2b("\0".join((request.model, *prompts)).encode(), digest_size=12).hexdigest()
    started = beginning(f"cmpl-{identity}", request.model, now)
    rounds = ([fields for fields in moment if fields is not None] for moment in zip_longest(*pieces))
    script = Script({"started": started}, rounds, moments, end, spent)
    yield from play(script, options, request.stream, completion_pb2.CompleteResponse)


def _prompt(prompt: completion_pb2.Prompt, at: int) -> str:
    """Its text; of token ids, whose words nobody here knows, the numbers."""
    arm = prompt.WhichOneof("prompt")
    if arm == "text":
        return prompt.text
    if arm == "tokens":
        return " ".join(map(str, prompt.tokens.ids))
    where = f"prompt[{at}]"
    raise CallError(Reason.UNSUPPORTED, "The echo family takes texts and token ids only.", param=where)


def _said(request: completion_pb2.CompleteRequest, prompt: str, options: Options, at: int) -> _Said:
    text = prompt if at == 0 else f"{prompt} ({at + 1})"
    whole: Tokens = tokens_of(text, MAX_TOKENS) if options.tokens is None else repeated(text, options.tokens)
    if request.sampling.stop:
        whole = until(whole, request.sampling.stop)
    limit = limit_of(request.sampling)
    finish = chat_pb2.FINISH_REASON_LENGTH if len(whole) > limit else chat_pb2.FINISH_REASON_STOP
    return _Said(tokens_of(prompt, MAX_TOKENS) if request.echo else (), whole[:limit], finish)


def _pieces(said: _Said, choice: int, size: int, alternatives: int | None) -> Iterator[Fields]:
    offset = 0
    for tokens in (said.before, said.text):
        for at in range(0, len(tokens), size):
            piece = tokens[at : at + size]
            fields: Fields = {"choice": choice, "text": "".join(piece)}
            if alternatives is not None:
                fields["logprobs_json"] = _logprobs(piece, alternatives, offset)
            yield fields
            offset += len(fields["text"])


def _logprobs(tokens: Tokens, alternatives: int, offset: int) -> bytes:
    drawn = [likelihood(token, alternatives) for token in tokens]
    offsets: list[int] = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token)
    found: dict[str, Any] = {
        "tokens": list(tokens),
        "token_logprobs": [each.logprob for each in drawn],
        "top_logprobs": [{top.token: top.logprob for top in each.top} for each in drawn] if alternatives else None,
        "text_offset": offsets,
    }
    return msgspec.json.encode(found)
