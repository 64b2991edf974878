"""The methods that are served, written for our own server or for `grpc.aio`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any


class Method:
    """One method as it is served. run: takes a request (an iterator of them where `streams_in`) and the call; returns
    the last response, or none where all were written or yielded. deserialize: takes bytes, or a bytearray that is its
    own. guarded: for those alone who may call."""

    __slots__ = ("deserialize", "generates", "guarded", "run", "serialize", "streams_in")

    def __init__(
        self,
        run: Callable[[Any, Any], Any],
        deserialize: Callable[[Any], Any],
        serialize: Callable[[Any], bytes],
        *,
        streams_in: bool = False,
        guarded: bool = True,
    ) -> None:
        self.run = run
        self.deserialize = deserialize
        self.serialize = serialize
        self.streams_in = streams_in
        self.generates = inspect.isasyncgenfunction(run)
        self.guarded = guarded


def methods_of(add: Callable[[Any, Any], None], servicer: Any, *, guarded: bool = True) -> dict[str, Method]:
    """The methods, by path, of a servicer that was written for `grpc.aio`. add: what was generated to add it there."""
    added = _Added()
    add(servicer, added)
    return {
        path: Method(
            next(run for run in (each.unary_unary, each.unary_stream, each.stream_unary, each.stream_stream) if run),
            each.request_deserializer,
            each.response_serializer,
            streams_in=each.request_streaming,
            guarded=guarded,
        )
        for path, each in added.handlers.items()
    }


class _Added:
    """In the place of a server, to which a servicer is added."""

    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Nothing: they are the registered ones once more."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        self.handlers.update({f"/{service}/{name}": handler for name, handler in handlers.items()})
