"""The family's face: where requests go, what becomes of parameters, and the models there are."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from support import schemas
from support.anthropic import UPSTREAM, chat, encoded, ignored, sent, upstream

from trestle.errors import CallError, Reason
from trestle.v1 import model_pb2
from worker.families.anthropic import FAMILY
from worker.family import Upstream

Object = dict[str, Any]


class TestRequests:
    @pytest.mark.parametrize("base_url", ["https://api.anthropic.com", "https://api.anthropic.com/v1"])
    def test_go_to_the_messages_api(self, base_url: str) -> None:
        request = FAMILY.encode_chat(chat(), upstream(base_url=base_url))
        assert (request.method, request.url) == ("POST", "https://api.anthropic.com/v1/messages")
        assert request.headers["x-api-key"] == "secret"
        assert request.headers["anthropic-version"] == "2023-06-01"
        assert "authorization" not in request.headers

    def test_show_the_credential_as_configured(self) -> None:
        headers = FAMILY.encode_chat(chat(stream=True), upstream(auth="bearer")).headers
        assert (headers["authorization"], headers["accept"]) == ("Bearer secret", "text/event-stream")
        assert "x-api-key" not in headers

    @pytest.mark.parametrize("auth", ["bearer", "x-api-key"])
    def test_without_a_credential_show_none(self, auth: str) -> None:
        to = Upstream("keyless", upstream(auth=auth).settings)
        assert not {"authorization", "x-api-key"} & FAMILY.encode_chat(chat(), to).headers.keys()

    def test_carry_the_betas_of_both(self) -> None:
        to = upstream(headers={"Anthropic-Beta": "a-2025-01-01"})
        headers = FAMILY.encode_chat(chat(betas=["b-2025-01-01", "c-2025-01-01"]), to).headers
        assert headers["anthropic-beta"] == "a-2025-01-01,b-2025-01-01,c-2025-01-01"
        assert FAMILY.encode_chat(chat(), to).headers["anthropic-beta"] == "a-2025-01-01"

    @pytest.mark.parametrize("betas", ["a", [1], ["a\r\nx: y"], [""]])
    def test_betas_are_names(self, betas: Any) -> None:
        with pytest.raises(CallError) as caught:
            FAMILY.encode_chat(chat(betas=betas), UPSTREAM)
        assert caught.value.param == "betas"


class TestParams:
    def test_the_table_names_every_member_of_the_schema(self) -> None:
        assert set(FAMILY.params) == schemas.members_of(schemas.REQUEST)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("frequency_penalty", 0.5),
            ("presence_penalty", -0.5),
            ("seed", 7),
            ("logit_bias", {"1": 5}),
            ("logprobs", True),
            ("prediction", {"type": "content", "content": "A"}),
            ("prompt_cache_key", "k"),
            ("prompt_cache_options", {"mode": "implicit"}),
            ("prompt_cache_retention", "24h"),
            ("store", True),
            ("verbosity", "low"),
            ("moderation", {"model": "m"}),
            ("unheard_of", 1),
        ],
    )
    def test_what_is_ignored_is_named(self, name: str, value: Any) -> None:
        request = chat(**{name: value})
        assert FAMILY.params.get(name, "ignored") == "ignored"
        assert ignored(request) == [name]
        assert name not in encoded(request)

    def test_top_logprobs_with_the_logprobs_they_need(self) -> None:
        assert ignored(chat(logprobs=True, top_logprobs=2)) == ["logprobs", "top_logprobs"]

    def test_what_asks_for_nothing_is_not_ignored(self) -> None:
        wishes: Object = {"frequency_penalty": 0, "logprobs": False, "store": False, "temperature": 1, "n": 2}
        image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "auto"}}
        options: Object = {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}}
        request = chat(messages=[{"role": "user", "content": [image]}], modalities=["text"], **wishes, **options)
        assert ignored(request) == []

    def test_further_down_by_the_path(self) -> None:
        image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "high"}, "x": 1}
        messages = [
            {"role": "user", "content": [image], "name": "ada"},
            {"role": "assistant", "content": "A", "annotations": [], "mood": "good"},
            {"role": "user", "content": "B"},
        ]
        options: Object = {"stream": True, "stream_options": {"include_obfuscation": True}}
        assert ignored(chat(messages=messages, **options)) == [
            "stream_options.include_obfuscation",
            "messages[].name",
            "messages[].content[].x",
            "messages[].content[].image_url.detail",
            "messages[].mood",
        ]

    @pytest.mark.parametrize(
        ("asked", "param"), [({"modalities": ["text", "audio"]}, "modalities"), ({"audio": {"voice": "a"}}, "audio")]
    )
    def test_speech_is_rejected(self, asked: Object, param: str) -> None:
        with pytest.raises(CallError) as caught:
            encoded(chat(**asked))
        assert (caught.value.reason, caught.value.param) == (Reason.UNSUPPORTED, param)

    def test_stop_without_its_blanks(self) -> None:
        request = chat(stop=["END", "\n"])
        assert encoded(request)["stop_sequences"] == ["END"]
        assert ignored(request) == ["stop"]

    @pytest.mark.parametrize(
        ("asked", "user"),
        [
            ({"user": "u"}, "u"),
            ({"user": "u", "safety_identifier": "s"}, "s"),
            ({"user": "u", "metadata": {"user_id": "m"}}, "m"),
            ({"user": "jane@example.com"}, hashlib.sha256(b"jane@example.com").hexdigest()),
            ({"user": "+49 (89) 123-456"}, hashlib.sha256(b"+49 (89) 123-456").hexdigest()),
            ({"user": "u" * 257}, hashlib.sha256(b"u" * 257).hexdigest()),
            # Whoever looks for an address in this one sits there for hours.
            ({"user": "u" * 1_000_000}, hashlib.sha256(b"u" * 1_000_000).hexdigest()),
        ],
    )
    def test_the_end_user(self, asked: Object, user: str) -> None:
        assert sent(**asked)["metadata"] == {"user_id": user}

    def test_other_metadata_is_named(self) -> None:
        request = chat(metadata={"team": "x"})
        assert "metadata" not in encoded(request)
        assert ignored(request) == ["metadata"]

    @pytest.mark.parametrize(
        ("tier", "sent_as", "left_out"),
        [
            ("auto", "auto", []),
            ("default", "standard_only", []),
            ("priority", "auto", []),
            ("flex", None, ["service_tier"]),
        ],
    )
    def test_service_tier(self, tier: str, sent_as: str | None, left_out: list[str]) -> None:
        request = chat(service_tier=tier)
        assert encoded(request).get("service_tier") == sent_as
        assert ignored(request) == left_out

    def test_anthropics_own_go_on(self) -> None:
        own: Object = {"container": "container_1", "cache_control": {"type": "ephemeral"}, "top_k": 5}
        request = chat(**own)
        body = encoded(request)
        assert {name: body[name] for name in own} == own
        assert ignored(request) == []


class TestModels:
    def test_are_asked_for_in_one_page(self) -> None:
        request = FAMILY.encode_list_models(UPSTREAM)
        assert (request.method, request.url) == ("GET", "https://api.anthropic.com/v1/models?limit=1000")
        assert request.headers["x-api-key"] == "secret"

    def test_with_what_they_can_do(self) -> None:
        entries = [
            {
                "type": "model",
                "id": "claude-opus-4-6",
                "display_name": "Claude Opus 4.6",
                "created_at": "2026-02-04T00:00:00Z",
                "max_input_tokens": 200_000,
                "max_tokens": 128_000,
            },
            {"type": "model", "id": "claude-3-haiku-20240307", "created_at": "long ago"},
        ]
        new, old = FAMILY.decode_list_models(json.dumps({"data": entries, "has_more": False}).encode())
        assert (new.id, new.owned_by, new.created) == ("claude-opus-4-6", "anthropic", 1770163200)
        assert (new.context_tokens, new.max_output_tokens) == (200_000, 128_000)
        assert model_pb2.CAPABILITY_JSON_SCHEMA in new.capabilities
        assert (old.created, model_pb2.CAPABILITY_REASONING in old.capabilities) == (0, False)

    @pytest.mark.parametrize("body", [b"", b"{}", b'{"data": [{}]}'])
    def test_a_list_that_is_none(self, body: bytes) -> None:
        with pytest.raises(CallError) as caught:
            list(FAMILY.decode_list_models(body))
        assert caught.value.reason is Reason.UPSTREAM_PROTOCOL
