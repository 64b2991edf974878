"""What a family offers the worker: the boundary between the wire dialects and the loop that serves them.

A family is one folder under worker/families. Its `__init__.py` defines `FAMILY`, an instance of `RemoteFamily` (it
encodes for an upstream and decodes what comes back) or of `LocalFamily` (it answers by itself). Families are pure: they
never touch a socket, a clock or an event loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

import msgspec

from trestle.errors import CallError
from trestle.v1 import chat_pb2, completion_pb2, embedding_pb2, model_pb2, moderation_pb2
from worker.sse import Event

Fate: TypeAlias = Literal["honoured", "forwarded", "translated", "ignored", "rejected"]
"""What becomes of a parameter of the request (WIRE 21)."""


class UpstreamSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One provider endpoint, as configured. A family may have keys of its own beside these.

    base_url: without a trailing slash. credential_env: the environment variable that holds our credential; empty
    means the endpoint wants none. headers: sent with each request. Timeouts in seconds: connect_timeout to a
    connection; first_byte_timeout to the head of the answer; first_token_timeout to the first chunk, idle_timeout
    between two reads of it; timeout for the whole answer (zero for either: no limit but the caller's deadline).
    retries: of one request, where nothing of it can have been answered or billed. max_calls: how many at once (zero:
    no limit); queue: how many more may wait, queue_timeout seconds each. models: the catalogue, when the endpoint's own
    list is not to be asked. max_event_bytes: the largest SSE event; max_answer_bytes: the largest answer in one piece.
    accept_credentials: whether accounts may bring their own credential for it.
    """

    base_url: str
    credential_env: str = ""
    headers: dict[str, str] = {}
    connect_timeout: float = 10.0
    first_byte_timeout: float = 600.0
    first_token_timeout: float = 0.0
    idle_timeout: float = 300.0
    timeout: float = 0.0
    retries: int = 2
    max_calls: int = 0
    queue: int = 100
    queue_timeout: float = 5.0
    models: list[str] = []
    max_event_bytes: int = 16 * 1024 * 1024
    max_answer_bytes: int = 256 * 1024 * 1024
    accept_credentials: bool = False


U = TypeVar("U", bound=UpstreamSettings)


@dataclass(frozen=True, slots=True)
class Upstream(Generic[U]):
    """One configured upstream at work: its name, its settings, and the credential to show it (empty for none)."""

    name: str
    settings: U
    credential: str = field(repr=False, default="")


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request to an upstream. url is absolute; an empty body with method GET sends none."""

    url: str
    headers: Mapping[str, str]
    body: bytes = b""
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class TokenAccount:
    """Whose access tokens an upstream is shown, where no fixed credential will do (worker/credentials.py gets and
    renews them). file: holds a service account's key; variable: the environment variable that holds the same JSON;
    neither: the account that the machine itself has. scopes: what the tokens are to be good for."""

    file: str
    variable: str
    scopes: tuple[str, ...]


C_co = TypeVar("C_co", covariant=True)
C_contra = TypeVar("C_contra", contravariant=True)


class ChunksOf(Protocol[C_co]):
    """Where a decoder puts chunks: `ChatResponse.chunks`, or any list-like of them."""

    def add(self, **fields: Any) -> C_co: ...


Chunks: TypeAlias = ChunksOf[chat_pb2.ChatChunk]
CompletionChunks: TypeAlias = ChunksOf[completion_pb2.CompletionChunk]


class Decoder(Protocol[C_contra]):
    """One upstream answer on its way to chunks; one per request. Feeds the events of a stream in order, then `close`.

    It follows the grammar in chat.proto: started first, one finish per choice, no finish without the upstream's own
    terminal (WIRE 12a). Any method raises `CallError`: the upstream's own error, UPSTREAM_PROTOCOL for what cannot be
    read, UPSTREAM_TRUNCATED for an answer without its end; usage known so far stands in its `usage`.
    """

    done: bool
    """True once the upstream's terminal event was fed: nothing after it is read."""
    usage: chat_pb2.Usage | None
    """What is known of the usage so far: the last one fed, or an estimate marked so where the upstream counts at the
    end only."""

    def feed(self, event: Event, out: C_contra) -> None:
        """One event of a stream."""

    def feed_run(self, data: bytes, out: C_contra) -> bytes:
        """Of the bytes of a stream, from where an event begins: takes whole events at their beginning if it can do that
        at less cost than `feed`, to the same end, and returns the rest. Nothing in them ends the answer."""

    def feed_whole(self, body: bytes, out: C_contra) -> None:
        """An answer in one piece (`request.stream` false)."""

    def close(self, clean: bool, out: C_contra) -> None:
        """The body has ended. clean: by its own framing (a last HTTP chunk, a Content-Length fulfilled), not merely
        by the connection's close."""

    def failure_in(self, body: bytes) -> CallError | None:
        """The error that a body means which the upstream wrote into its stream without a frame; None where it is none,
        as it need not even be JSON."""


ChatDecoder: TypeAlias = Decoder[Chunks]
CompletionDecoder: TypeAlias = Decoder[CompletionChunks]


class RemoteFamily(Protocol[U]):
    """A family with upstreams behind it."""

    name: str
    upstream_type: type[U]
    native_n: bool
    """Whether the upstream itself makes n choices. If not, the loop makes n calls side by side."""
    params: Mapping[str, Fate]
    """What becomes of each parameter of a chat completion, by its name in OpenAI's request (docs/parameters.md)."""

    def ignored_params(self, request: chat_pb2.ChatRequest, upstream: Upstream[U]) -> list[str]:
        """Names of the request's parameters that will not be honoured there, in the client's words (WIRE 21)."""

    def encode_chat(self, request: chat_pb2.ChatRequest, upstream: Upstream[U]) -> HttpRequest:
        """Raises `CallError` (UNSUPPORTED, INVALID_REQUEST) naming the parameter it cannot carry."""

    def chat_decoder(self, request: chat_pb2.ChatRequest, upstream: Upstream[U]) -> ChatDecoder: ...

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes, upstream: Upstream[U]) -> CallError:
        """The meaning of an answer that is not 2xx. headers: names in lower case. Never raises."""

    def encode_list_models(self, upstream: Upstream[U]) -> HttpRequest: ...

    def decode_list_models(self, body: bytes) -> Iterable[model_pb2.Model]:
        """Raises `CallError` (UPSTREAM_PROTOCOL). `upstream` is filled in by the caller."""


@runtime_checkable
class CompletesText(Protocol[U]):
    """What a remote family offers beside when its vendor has legacy text completions."""

    def encode_completion(self, request: completion_pb2.CompleteRequest, upstream: Upstream[U]) -> HttpRequest: ...

    def completion_decoder(
        self, request: completion_pb2.CompleteRequest, upstream: Upstream[U]
    ) -> CompletionDecoder: ...


@runtime_checkable
class Embeds(Protocol[U]):
    """What a remote family offers beside when its vendor has embeddings."""

    def ignored_embed_params(self, request: embedding_pb2.EmbedRequest, upstream: Upstream[U]) -> list[str]:
        """As `RemoteFamily.ignored_params`."""

    def encode_embed(self, request: embedding_pb2.EmbedRequest, upstream: Upstream[U]) -> HttpRequest:
        """Raises `CallError` naming the parameter it cannot carry."""

    def decode_embed(self, body: bytes, request: embedding_pb2.EmbedRequest) -> embedding_pb2.EmbedResponse:
        """One embedding for each input, in order. Raises `CallError` (UPSTREAM_PROTOCOL)."""


@runtime_checkable
class SplitsEmbeddings(Protocol[U]):
    """What a family that embeds offers beside when its vendor takes only so many inputs at once."""

    def split_embed(
        self, request: embedding_pb2.EmbedRequest, upstream: Upstream[U]
    ) -> Sequence[embedding_pb2.EmbedRequest]:
        """The requests, each with some of the inputs in order, that one call each is made for. Raises `CallError` as
        `encode_embed`, for an input that cannot be carried."""


@runtime_checkable
class Moderates(Protocol[U]):
    """What a remote family offers beside when its vendor judges content."""

    def encode_moderation(self, request: moderation_pb2.ModerateRequest, upstream: Upstream[U]) -> HttpRequest: ...

    def decode_moderation(self, body: bytes) -> moderation_pb2.ModerateResponse:
        """Raises `CallError` (UPSTREAM_PROTOCOL)."""


@runtime_checkable
class ShowsTokens(Protocol[U]):
    """What a remote family offers beside when its vendor's credentials are tokens that end and are renewed."""

    def token_account(self, upstream: Upstream[U]) -> TokenAccount | None:
        """None for an upstream with a fixed credential, or none. The tokens are added as `authorization: Bearer`."""


@dataclass(frozen=True, slots=True)
class Wait:
    """A step of a local answer: nothing happens for so many seconds (infinity: until the caller gives up)."""

    seconds: float


class LocalFamily(Protocol):
    """A family that answers by itself, step by step."""

    name: str
    params: Mapping[str, Fate]
    """As `RemoteFamily.params`."""

    def ignored_params(self, request: chat_pb2.ChatRequest) -> list[str]: ...

    def answer(self, request: chat_pb2.ChatRequest) -> Iterator[chat_pb2.ChatResponse | Wait]:
        """The responses in order, each sent when reached, with waits between. Raises `CallError` where the answer
        fails."""

    def list_models(self) -> Iterable[model_pb2.Model]: ...

    def ignored_embed_params(self, request: embedding_pb2.EmbedRequest) -> list[str]: ...

    def embed(self, request: embedding_pb2.EmbedRequest) -> embedding_pb2.EmbedResponse: ...

    def moderate(self, request: moderation_pb2.ModerateRequest) -> moderation_pb2.ModerateResponse: ...

    def complete(
        self, request: completion_pb2.CompleteRequest
    ) -> Iterator[completion_pb2.CompleteResponse | Wait]:
        """As `answer`, for a legacy text completion."""
