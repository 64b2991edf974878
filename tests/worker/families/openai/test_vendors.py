"""Vendors that are configuration of the openai family: where the URL leads and how the credential is shown."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from trestle.v1 import chat_pb2, completion_pb2, embedding_pb2, moderation_pb2
from worker.families.openai import FAMILY
from worker.families.openai.family import OpenAIUpstream
from worker.family import Upstream


def upstream(**settings: Any) -> Upstream[OpenAIUpstream]:
    return Upstream("vendor", OpenAIUpstream(**{"base_url": "https://vendor.example/v1", **settings}), "secret")


def chat() -> chat_pb2.ChatRequest:
    request = chat_pb2.ChatRequest(model="my model/1")
    request.messages.add(role=chat_pb2.ROLE_USER, text="Hello")
    return request


AZURE = {
    "base_url": "https://r.openai.azure.com/openai",
    "credential_header": "api-key",
    "query": {"api-version": "2024-10-21"},
    "deployments": True,
}


def test_the_usual_vendor() -> None:
    sent = FAMILY.encode_chat(chat(), upstream())
    assert sent.url == "https://vendor.example/v1/chat/completions"
    assert sent.headers["authorization"] == "Bearer secret"


def test_azure_names_the_deployment_in_the_path() -> None:
    sent = FAMILY.encode_chat(chat(), upstream(**AZURE))
    assert sent.url == (
        "https://r.openai.azure.com/openai/deployments/my%20model%2F1/chat/completions?api-version=2024-10-21"
    )
    assert sent.headers["api-key"] == "secret"
    assert "authorization" not in sent.headers


@pytest.mark.parametrize(
    ("sent", "path"),
    [
        (
            FAMILY.encode_completion(completion_pb2.CompleteRequest(model="m"), upstream(**AZURE)),
            "/deployments/m/completions",
        ),
        (
            FAMILY.encode_embed(
                embedding_pb2.EmbedRequest(model="m", inputs=[embedding_pb2.EmbedInput(text="a")]), upstream(**AZURE)
            ),
            "/deployments/m/embeddings",
        ),
        (
            FAMILY.encode_moderation(moderation_pb2.ModerateRequest(input_json=b'"a"'), upstream(**AZURE)),
            "/moderations",
        ),
        (FAMILY.encode_list_models(upstream(**AZURE)), "/models"),
    ],
)
def test_azure_elsewhere(sent: Any, path: str) -> None:
    assert sent.url == f"https://r.openai.azure.com/openai{path}?api-version=2024-10-21"


def test_a_vendor_wants_headers_of_its_own() -> None:
    sent = FAMILY.encode_chat(chat(), upstream(headers={"X-Title": "Example"}))
    assert sent.headers["X-Title"] == "Example"


def spoken(**extra: Any) -> chat_pb2.ChatRequest:
    """A conversation whose assistant has thought."""
    request = chat()
    message = request.messages.add(role=chat_pb2.ROLE_ASSISTANT, text="So.", extra_json=msgspec.json.encode(extra))
    message.reasoning.add(text="Hmm.")
    return request


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", ""])
def test_earlier_reasoning_by_the_upstreams_name(name: str) -> None:
    """Groq and Mistral refuse a request with the common one."""
    to = upstream(**({} if name == "reasoning_content" else {"reasoning_field": name}))
    message = msgspec.json.decode(FAMILY.encode_chat(spoken(), to).body)["messages"][1]
    assert message == {"role": "assistant", "content": "So.", **({name: "Hmm."} if name else {})}
    assert FAMILY.ignored_params(spoken(), to) == ([] if name else ["messages[].reasoning_content"])
    assert FAMILY.ignored_params(chat(), to) == []


def test_content_that_was_a_list_is_one_again() -> None:
    """Mistral's thinking, as it gave it."""
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "Hmm."}], "closed": True}]
    message = msgspec.json.decode(FAMILY.encode_chat(spoken(content_parts=parts), upstream()).body)["messages"][1]
    assert message == {"role": "assistant", "content": parts}
    for others in ([{"index": 0, "position": 0, "part": {}}], "x", []):
        body = FAMILY.encode_chat(spoken(content_parts=others), upstream()).body
        message = msgspec.json.decode(body)["messages"][1]
        assert (message["content"], message["content_parts"]) == ("So.", others)
