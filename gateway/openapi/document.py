"""The table of routes to an OpenAPI 3.1 document. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

from gateway.openapi.answers import SCHEMAS
from gateway.openapi.operations import Operation
from gateway.openapi.requests import REF, RequestSchemas, Schema

_VARIABLE: Final = re.compile(r"\{(\w+)(?::[^}]*)?\}")
_TOKEN: Final[Schema] = {"type": "string", "pattern": r"^[\x21-\x7e]([\x20-\x7e]{0,126}[\x21-\x7e])?$"}
_ROOT: Final = [{"url": "/", "description": "Has no version."}]

# name, for which requests (True: those with a body alone), schema, description
_HEADERS: Final[tuple[tuple[str, bool, Schema, str], ...]] = (
    ("x-request-id", False, _TOKEN, "The request's id; one is made where none is given."),
    ("x-client-id", True, _TOKEN, "The caller's own id of itself; goes to the worker."),
    ("x-session-id", True, _TOKEN, "The caller's own id of a conversation; goes to the worker."),
    (
        "x-request-timeout",
        True,
        {"type": "string", "pattern": r"^[0-9]{1,9}(\.[0-9]{1,9})?$"},
        "Seconds that the request may take in all; no more than the gateway's configuration allows.",
    ),
    (
        "x-trestle-strict",
        True,
        {"type": "string", "enum": ["true", "false"]},
        "true: a parameter that would be ignored is an error.",
    ),
)
_ANSWER_HEADERS: Final[Mapping[str, Schema]] = {
    "x-request-id": {"description": "The request's id.", "required": True, "schema": {"type": "string"}},
    "openai-processing-ms": {
        "description": "Milliseconds until the answer began.",
        "required": True,
        "schema": {"type": "integer", "minimum": 0},
    },
}
_IGNORED: Final[Schema] = {
    "description": "Names of parameters that were not honoured, with commas between.",
    "schema": {"type": "string"},
}
_ERROR_HEADERS: Final[Mapping[str, Schema]] = {
    "retry-after": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 0}},
    "retry-after-ms": {"description": "Milliseconds.", "schema": {"type": "integer", "minimum": 0}},
    "x-should-retry": {"description": "false: another try is of no use.", "schema": {"const": "false"}},
}
_KEYS: Final[Mapping[str, Schema]] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}


class Route(Protocol):
    """A line of the gateway's table. path: as aiohttp writes it. versioned: stands below /v1 and without it. guarded:
    asks for a key, where keys are asked for."""

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def operation(self) -> Operation: ...
    @property
    def versioned(self) -> bool: ...
    @property
    def guarded(self) -> bool: ...


def describe(routes: Iterable[Route], version: str, keys: bool) -> dict[str, Any]:
    """The document. version: of the gateway. keys: whether guarded routes ask for one."""
    requests = RequestSchemas()
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = paths.setdefault(_VARIABLE.sub(r"{\1}", route.path), {})
        if not route.versioned:
            path["servers"] = _ROOT
        path[route.method.lower()] = _operation(route, requests, keys and route.guarded)
    shared = requests.components.keys() & SCHEMAS.keys()
    assert not shared, f"requests and answers both have {shared}"
    components: dict[str, Any] = {
        "schemas": {**requests.components, **SCHEMAS, "OpenAPI": {"type": "object", "required": ["openapi"]}},
        "responses": {
            "Error": {
                "description": "What went wrong.",
                "headers": {**_ANSWER_HEADERS, **_ERROR_HEADERS},
                "content": {"application/json": {"schema": {"$ref": REF + "Error"}}},
            }
        },
        "parameters": {name: _header(name, schema, text) for name, _, schema, text in _HEADERS},
    }
    if keys:
        components["securitySchemes"] = dict(_KEYS)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Trestle",
            "version": version,
            "description": "OpenAI's API over workers of any model family. A member that is null is absent; one that "
            "is not described here goes on to upstreams that speak OpenAI's language.",
        },
        "servers": [{"url": "/v1"}, {"url": "/", "description": "The same without the version."}],
        "paths": paths,
        "components": components,
    }


def _operation(route: Route, requests: RequestSchemas, guarded: bool) -> Schema:
    about = route.operation
    sends = about.request is not None
    out: Schema = {"operationId": about.id, "summary": about.summary}
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in _VARIABLE.findall(route.path)
    ]
    parameters += [
        {"$ref": f"#/components/parameters/{name}"} for name, body_only, _, _ in _HEADERS if sends >= body_only
    ]
    parameters += [
        {"name": name, "in": "query", "required": False, "schema": {"type": "string"}, "description": text}
        for name, text in about.query.items()
    ]
    out["parameters"] = parameters
    if about.request is not None:
        name, root = about.request
        out["requestBody"] = {"required": True, "content": {"application/json": {"schema": requests.add(root, name)}}}
    answer: Schema = {
        "description": "The answer.",
        "headers": {**_ANSWER_HEADERS, **({"x-trestle-ignored-params": _IGNORED} if sends else {})},
        "content": {about.media: {"schema": {"$ref": REF + about.answer}}},
    }
    if about.also:
        answer["content"][about.also] = {"schema": {"type": "string"}}
    if about.stream is not None:
        answer["content"]["text/event-stream"] = {
            "schema": {
                "type": "string",
                "contentMediaType": "text/event-stream",
                "description": f"With `stream: true`. Each event is one line `data: ` and a {about.stream} as JSON, or "
                "an Error, which ends it; a proper end is `data: [DONE]`. Lines that begin with `:` are comments.",
            }
        }
    responses: dict[str, Schema] = {"200": answer}
    for status in sorted(about.errors | _key_errors(about, guarded)):
        responses[str(status)] = {"$ref": "#/components/responses/Error"}
    for status, name in about.others.items():
        schema = {"$ref": REF + name}
        responses[str(status)] = {"description": "Not now.", "content": {"application/json": {"schema": schema}}}
    out["responses"] = responses
    if guarded:
        out["security"] = [{name: []} for name in _KEYS]
    return out


def _key_errors(about: Operation, guarded: bool) -> frozenset[int]:
    if not guarded:
        return frozenset()
    return frozenset({401, 403} if about.scope else {401})


def _header(name: str, schema: Schema, description: str) -> Schema:
    return {"name": name, "in": "header", "required": False, "schema": schema, "description": description}
