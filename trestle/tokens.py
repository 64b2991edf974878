"""Token counts where nobody reported any: a stated guess, always marked as one."""

from __future__ import annotations

from typing import Final

from trestle.v1 import chat_pb2, completion_pb2, embedding_pb2

CHARS_PER_TOKEN: Final = 4
"""The rule of thumb for English text with the tokenizers in use; an estimate is never more than that."""

# What chat templates add around each turn, by the same rule of thumb.
_TOKENS_PER_MESSAGE: Final = 4


def tokens_in(chars: int) -> int:
    """Estimated tokens of a text of so many characters; at least one for any text."""
    return -(-chars // CHARS_PER_TOKEN)


class TokenEstimate:
    """Counts the characters of an answer as it passes, for when its usage never comes."""

    __slots__ = ("chars",)

    def __init__(self) -> None:
        self.chars = 0

    def add(self, text: str) -> None:
        self.chars += len(text)

    def usage(self, request: chat_pb2.ChatRequest) -> chat_pb2.Usage:
        """The usage of this request and what was answered so far, marked as estimated."""
        return chat_pb2.Usage(
            input_tokens=input_tokens(request), output_tokens=tokens_in(self.chars), estimated=True
        )

    def at_least(self, known: chat_pb2.Usage | None, request: chat_pb2.ChatRequest) -> chat_pb2.Usage:
        """The usage of an answer that is not at its end: what the upstream has told so far, with an estimate of the
        output, marked so, where it has told less."""
        if known is None:
            return self.usage(request)
        guess = tokens_in(self.chars)
        if guess <= known.output_tokens:
            return known
        partial = chat_pb2.Usage()
        partial.CopyFrom(known)
        partial.output_tokens, partial.estimated = guess, True
        return partial


def input_tokens(
    request: chat_pb2.ChatRequest | completion_pb2.CompleteRequest | embedding_pb2.EmbedRequest,
) -> int:
    """Estimated tokens of a request's text and tools; images, audio and files are not guessed at."""
    if isinstance(request, chat_pb2.ChatRequest):
        return _chat_tokens(request)
    texts = request.prompts if isinstance(request, completion_pb2.CompleteRequest) else request.inputs
    return sum(tokens_in(len(each.text)) + len(each.tokens.ids) for each in texts)


def _chat_tokens(request: chat_pb2.ChatRequest) -> int:
    chars = 0
    for message in request.messages:
        chars += len(message.text) + sum(len(part.text) for part in message.parts)
        chars += sum(len(call.name) + len(call.arguments) for call in message.tool_calls)
        chars += sum(len(block.text) for block in message.reasoning)
    for tool in request.tools:
        function = tool.function
        chars += len(function.name) + len(function.description) + len(function.parameters_json) + len(tool.other_json)
    for function in request.functions:
        chars += len(function.name) + len(function.description) + len(function.parameters_json)
    return tokens_in(chars) + _TOKENS_PER_MESSAGE * len(request.messages)
