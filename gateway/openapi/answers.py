"""JSON Schemas of what the gateway answers: the members that are always meant the same. Vendors' members stand beside
them, so no object is closed but the one around an error. Pure data."""

from __future__ import annotations

from typing import Any, Final

from gateway.openai.render import FINISH

Schema = dict[str, Any]


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _or_null(schema: Schema) -> Schema:
    return {**schema, "type": [schema["type"], "null"]} if "type" in schema else {"anyOf": [schema, {"type": "null"}]}


def _array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _object(required: Schema, **optional: Schema) -> Schema:
    return {"type": "object", "required": list(required), "properties": {**required, **optional}}


_TEXT: Final[Schema] = {"type": "string"}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_FLAG: Final[Schema] = {"type": "boolean"}
_ANY_OBJECT: Final[Schema] = {"type": "object"}
_GROUPS: Final = ("day", "model", "key", "user", "session", "client", "agent", "outcome")
_SUMS: Final = (
    "requests",
    "failed",
    "estimated",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "audio_tokens",
)
_FINISH: Final[Schema] = {"enum": sorted(set(FINISH.values()))}
_HEAD: Final[Schema] = {"id": _TEXT, "created": _COUNT, "model": _TEXT}
_SYSTEM: Final[Schema] = {"system_fingerprint": _or_null(_TEXT), "service_tier": _TEXT}
_LOGPROB: Final[Schema] = {"token": _TEXT, "logprob": {"type": "number"}, "bytes": _or_null(_array(_COUNT))}
# Of a message and of a delta alike: sealed thinking and what is said beside the text.
_BESIDE: Final[Schema] = {
    "reasoning_content": _or_null(_TEXT),
    "reasoning_blocks": _array(_ref("SealedReasoning")),
    "annotations": _array(_ANY_OBJECT),
}

SCHEMAS: Final[dict[str, Schema]] = {
    "Error": {
        **_object(
            {
                "error": {
                    **_object({"message": _TEXT, "type": _TEXT, "param": _or_null(_TEXT), "code": _or_null(_TEXT)}),
                    "description": "Beside these, what the upstream's own error object says.",
                }
            }
        ),
        "additionalProperties": False,
    },
    "Usage": _object(
        {"prompt_tokens": _COUNT, "completion_tokens": _COUNT, "total_tokens": _COUNT},
        prompt_tokens_details=_object({"cached_tokens": _COUNT, "audio_tokens": _COUNT}, cache_write_tokens=_COUNT),
        completion_tokens_details=_object(
            {
                "reasoning_tokens": _COUNT,
                "audio_tokens": _COUNT,
                "accepted_prediction_tokens": _COUNT,
                "rejected_prediction_tokens": _COUNT,
            }
        ),
        estimated={"const": True, "description": "The upstream told no usage; these counts are a guess."},
    ),
    "TokenLogprob": _object({**_LOGPROB, "top_logprobs": _array(_object(_LOGPROB))}),
    "Logprobs": _object(
        {
            "content": _or_null(_array(_ref("TokenLogprob"))),
            "refusal": _or_null(_array(_ref("TokenLogprob"))),
        }
    ),
    "SealedReasoning": {
        **_object({"index": _COUNT, "text": _TEXT, "position": _COUNT}, signature=_TEXT, redacted=_TEXT, by=_TEXT),
        "description": "A block of thinking, to be sent back untouched.",
    },
    "CallSeal": {
        **_object({"by": _TEXT, "signature": _TEXT}),
        "description": "A vendor's seal on a tool call, to be sent back with it.",
    },
    "ToolCall": {
        **_object({"id": _TEXT, "type": _TEXT}, seal=_ref("CallSeal")),
        "anyOf": [
            _object(
                {"type": {"const": "function"}, "function": _object({"name": _TEXT, "arguments": _TEXT})},
            ),
            _object({"type": {"const": "custom"}, "custom": _object({"name": _TEXT, "input": _TEXT})}),
        ],
    },
    "ToolCallDelta": _object(
        {"index": _COUNT},
        id=_TEXT,
        type=_TEXT,
        function=_object({}, name=_TEXT, arguments=_TEXT),
        custom=_object({}, name=_TEXT, input=_TEXT),
        seal=_ref("CallSeal"),
    ),
    "AnswerMessage": _object(
        {"role": {"const": "assistant"}, "content": _or_null(_TEXT), "refusal": _or_null(_TEXT)},
        tool_calls=_array(_ref("ToolCall")),
        function_call=_object({"name": _TEXT, "arguments": _TEXT}),
        audio=_object({"id": _TEXT, "data": _TEXT, "expires_at": _COUNT, "transcript": _TEXT}),
        **_BESIDE,
    ),
    "Delta": _object(
        {},
        role={"const": "assistant"},
        content=_or_null(_TEXT),
        refusal=_or_null(_TEXT),
        tool_calls=_array(_ref("ToolCallDelta")),
        function_call=_object({}, name=_TEXT, arguments=_TEXT),
        audio=_object({}, id=_TEXT, data=_TEXT, expires_at=_COUNT, transcript=_TEXT),
        **_BESIDE,
    ),
    "ChatCompletion": _object(
        {
            **_HEAD,
            "object": {"const": "chat.completion"},
            "choices": _array(
                _object(
                    {
                        "index": _COUNT,
                        "message": _ref("AnswerMessage"),
                        "logprobs": _or_null(_ref("Logprobs")),
                        "finish_reason": _FINISH,
                    }
                )
            ),
        },
        usage=_ref("Usage"),
        **_SYSTEM,
    ),
    "ChatCompletionChunk": _object(
        {
            **_HEAD,
            "object": {"const": "chat.completion.chunk"},
            "choices": _array(
                _object(
                    {
                        "index": _COUNT,
                        "delta": _ref("Delta"),
                        "logprobs": _or_null(_ref("Logprobs")),
                        "finish_reason": {"enum": [*_FINISH["enum"], None]},
                    }
                )
            ),
        },
        usage=_or_null(_ref("Usage")),
        **_SYSTEM,
    ),
    "TextCompletion": {
        **_object(
            {
                **_HEAD,
                "object": {"const": "text_completion"},
                "choices": _array(
                    _object(
                        {
                            "text": _TEXT,
                            "index": _COUNT,
                            "logprobs": _or_null(_ANY_OBJECT),
                            "finish_reason": {"enum": ["content_filter", "length", "stop", None]},
                        }
                    )
                ),
            },
            usage=_or_null(_ref("Usage")),
            system_fingerprint=_TEXT,
        ),
        "description": "The answer in one piece, or an event of a stream: there finish_reason and usage may be null.",
    },
    "Embeddings": _object(
        {
            "object": {"const": "list"},
            "model": _TEXT,
            "data": _array(
                _object(
                    {"object": {"const": "embedding"}, "index": _COUNT},
                    embedding={
                        "anyOf": [
                            _array({"type": ["number", "array", "null"]}),
                            _ANY_OBJECT,
                            {
                                "type": "string",
                                "description": "Where `base64` was asked for, numbers of 32 bits in it, the low "
                                "byte first; else the upstream's string as it came.",
                            },
                        ],
                        "description": "Numbers, or what else the upstream has: a vector for each token, vectors by "
                        "type. Where it has another name, it stands beside.",
                    },
                )
            ),
            "usage": _object({"prompt_tokens": _COUNT, "total_tokens": _COUNT}, estimated={"const": True}),
        }
    ),
    "Moderation": _object(
        {
            "id": _TEXT,
            "model": _TEXT,
            "results": _array(
                _object(
                    {},
                    flagged=_FLAG,
                    categories=_ANY_OBJECT,
                    category_scores=_ANY_OBJECT,
                    category_applied_input_types=_ANY_OBJECT,
                )
            ),
        }
    ),
    "Model": _object({"id": _TEXT, "object": {"const": "model"}, "created": _COUNT, "owned_by": _TEXT}),
    "AddedModel": _object(
        {"id": _TEXT, "object": {"const": "model"}, "created": _COUNT, "owned_by": _TEXT},
        worker=_TEXT,
        upstream=_TEXT,
        model=_TEXT,
        defaults={"type": ["object", "null"]},
        credential={"type": ["string", "null"]},
    ),
    "Agent": _object(
        {"id": _TEXT, "object": {"const": "agent"}, "created": _COUNT, "name": _TEXT, "model": _TEXT},
        description={"type": ["string", "null"]},
        system_prompt={"type": ["string", "null"]},
        parameters=_ANY_OBJECT,
        tools={"type": ["array", "null"], "items": _ANY_OBJECT},
        tool_choice={"type": ["string", "object", "null"]},
        response_format={"type": ["object", "null"]},
        add_today=_FLAG,
        time_zone={"type": ["string", "null"]},
        locked=_array(_TEXT),
    ),
    "Agents": _object({"object": {"const": "list"}, "data": _array(_ref("Agent"))}),
    "Deleted": _object({"id": _TEXT, "object": {"enum": ["model", "agent", "credential"]}, "deleted": {"const": True}}),
    "Models": _object({"object": {"const": "list"}, "data": _array(_ref("Model"))}),
    "Credential": _object(
        {
            "id": _TEXT,
            "object": {"const": "credential"},
            "name": _TEXT,
            "worker": _TEXT,
            "upstream": _TEXT,
            "secret": _TEXT,
            "pair": _TEXT,
            "created": _COUNT,
        }
    ),
    "Credentials": _object({"object": {"const": "list"}, "data": _array(_ref("Credential"))}),
    "Usages": _object(
        {
            "object": {"const": "list"},
            "from": _COUNT,
            "to": _COUNT,
            "currency": _TEXT,
            "data": _array(
                _object(
                    dict.fromkeys(_SUMS, _COUNT) | {"cost": {"type": "number", "minimum": 0}},
                    **dict.fromkeys(_GROUPS, _TEXT),
                )
            ),
            "has_more": _FLAG,
        }
    ),
    "SessionEvents": {
        "type": "string",
        "contentMediaType": "text/event-stream",
        "description": "Events `request.started`, `tool_call.emitted`, `usage`, `request.finished`, `request.failed`, "
        "each with an id to go on behind, and `session.gap`: events may be missing before the next one.",
    },
    "Alive": _object({"status": {"const": "ok"}}),
    "Readiness": _object({"status": _TEXT, "workers": {"type": "object", "additionalProperties": _FLAG}}),
}
