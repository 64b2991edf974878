"""Random conversations: whatever a client may say is encoded, keeps to Google's schemas, and arrives whole and in
order."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.conversations import as_input, conversations, expected, options, says, texts_in
from support.gemini import FOLDER, VERTEX, assert_request, chat, encoded, ignored, upstream

from worker.families.gemini.turns import GO_ON, PLACEHOLDER, UNSEALED

Object = dict[str, Any]

MODELS = (
    "gemini-2.0-flash",
    "gemini-2.5-flash",
    "gemini-2.5-pro",
    "gemini-3-pro-preview",
    "gemini-3.5-flash",
    "gemini-3.6-flash",
    "gemini-flash-latest",
    "gemma-3-27b-it",
)
NO_PREFILL = ("gemini-3.6-flash", "gemini-flash-latest")
UPSTREAMS = (upstream(), upstream(**VERTEX))


def arrived(turns: list[Object]) -> list[Any]:
    """What goes upstream, in the form of `expected`."""
    found: list[Any] = []
    for part in (part for turn in turns for part in turn["parts"]):
        if "text" in part:
            found.append(part["text"])
        elif "functionCall" in part:
            found.append(("call", part["functionCall"]["name"], part["functionCall"]["args"]))
        elif "functionResponse" in part:
            found.append(("result", part["functionResponse"]["response"]))
    return found


def given_back(texts: list[str]) -> Object:
    """What the texts of a call's result are to become."""
    if len(texts) > 1:
        return {"output": texts}
    found: Object = as_input(texts[0]) if texts else {}
    return {"output": texts[0]} if texts and says(texts[0]) and "arguments" in found else found


@given(st.sampled_from(MODELS), st.sampled_from(UPSTREAMS), conversations, options)
@settings(max_examples=400)
def test_nothing_is_lost_or_moved(model: str, to: Any, messages: list[Object], wishes: Object) -> None:
    request = chat(model, **{**wishes, "messages": messages})
    body = encoded(request, to)
    assert len(set(ignored(request, to))) == len(ignored(request, to))
    if FOLDER.is_dir():
        assert_request(body)

    turns = body["contents"]
    kinds = [(turn["role"], "functionResponse" in turn["parts"][0]) for turn in turns]
    assert kinds[0][0] == "user"
    assert all(one != other for one, other in itertools.pairwise(kinds)), "neighbours of a kind are one turn"
    assert all(len({"functionResponse" in part for part in turn["parts"]}) == 1 for turn in turns)
    system = [message["content"] for message in messages if message["role"] in ("system", "developer")]
    instructed = [text for content in system for text in texts_in(content, bool)]
    wanted: list[Any] = []
    if model.startswith("gemma-3"):
        assert "systemInstruction" not in body
        wanted += instructed
    else:
        assert [part["text"] for part in body.get("systemInstruction", {"parts": []})["parts"]] == instructed
    for each in expected(messages, bool):
        if isinstance(each, str):
            wanted.append(each)
        elif each[0] == "call":
            wanted.append((*each[:2], as_input(each[2])))
        else:
            wanted.append(("result", given_back(list(each[1:]))))
    got = arrived(turns)
    if turns[0]["parts"] == [{"text": PLACEHOLDER}] and (not wanted or wanted[0] != PLACEHOLDER):
        got = got[1:]
    if model in NO_PREFILL:
        assert turns[-1]["role"] == "user" or "functionCall" in str(turns[-1])
        if len(got) > len(wanted) and turns[-2]["role"] == "model":
            assert got.pop() in (PLACEHOLDER, GO_ON)
    assert got == wanted


@given(st.sampled_from(MODELS), conversations)
@settings(max_examples=150)
def test_results_name_their_calls(model: str, messages: list[Object]) -> None:
    """A result has the name of the function that was called under its id, and no id that its call does not have."""
    turns = encoded(chat(model, messages=messages))["contents"]
    names: dict[str, str] = {}
    for part in (part for turn in turns for part in turn["parts"]):
        called, given_for = part.get("functionCall"), part.get("functionResponse")
        if called and "id" in called:
            names[called["id"]] = called["name"]
        if given_for and "id" in given_for:
            assert given_for["name"] == names[given_for["id"]]


@given(st.sampled_from(MODELS), conversations)
@settings(max_examples=150)
def test_the_first_call_of_a_step_is_sealed_where_it_must_be(model: str, messages: list[Object]) -> None:
    for turn in encoded(chat(model, messages=messages))["contents"]:
        calls = [part for part in turn["parts"] if "functionCall" in part]
        sealed = [part.get("thoughtSignature") for part in calls]
        wanted = UNSEALED if "gemini-3" in model or "latest" in model else None
        assert sealed == [wanted if at == 0 else None for at in range(len(calls))]
