"""Chunks to events: every arm of the contract, and the quick way beside the general one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.openai.stream import ChatStreamEncoder
from trestle.errors import CallError, Reason
from trestle.v1 import chat_pb2

Chunk = chat_pb2.ChatChunk
STARTED = Chunk(started=chat_pb2.Started(id="a", model="m", created=7))
STOP = Chunk(finish=chat_pb2.Finish(reason=chat_pb2.FINISH_REASON_STOP))


def begun(*chunks: Chunk, include_usage: bool = False) -> ChatStreamEncoder:
    """An encoder that was fed with these after its start."""
    encoder = ChatStreamEncoder(include_usage)
    encoder.feed([STARTED, *chunks])
    return encoder


def events(data: bytes) -> list[Any]:
    """The events of some bytes, each in the form that is promised."""
    texts = data.decode().split("\n\n")
    assert texts.pop() == ""
    assert all(text.startswith("data: ") and "\n" not in text and "\r" not in text for text in texts)
    return [text[6:] if text == "data: [DONE]" else json.loads(text[6:]) for text in texts]


def choices(data: bytes) -> list[Any]:
    return [choice for event in events(data) for choice in event["choices"]]


def deltas(*chunks: Chunk) -> list[Any]:
    return [choice["delta"] for choice in choices(ChatStreamEncoder(False).feed([STARTED, *chunks]))]


def call(**fields: Any) -> Chunk:
    return Chunk(tool_call=chat_pb2.ToolCallDelta(**fields))


@given(text=st.text(st.characters(exclude_categories=["Cs"])), include_usage=st.booleans(), choice=st.integers(0, 127))
def test_the_quick_way_writes_what_the_general_one_does(text: str, include_usage: bool, choice: int) -> None:
    """Extras, even none, take the general way."""
    quick, general = (begun(Chunk(choice=choice, text="a"), include_usage=include_usage) for _ in range(2))
    written = quick.feed([Chunk(choice=choice, text=text)])
    assert written == general.feed([Chunk(choice=choice, text=text, choice_extra_json=b"{}")])
    assert choices(written)[0]["delta"] == {"content": text}


@pytest.mark.parametrize(
    "extra",
    [b'{"obfuscation":"aZ09"}', b'{"obfuscation":""}', b'{"obfuscation":"a\\u0062"}', b'{"obfuscation":1}',
     b'{"obfuscation":"a","model":"x"}', b'{ "obfuscation":"a"}', b'{"obfuscation":"a"} ', b"{}", b'{"model":"x"}'],
)  # fmt: skip
@pytest.mark.parametrize("include_usage", [False, True])
def test_what_goes_with_every_chunk_is_written_so_too(extra: bytes, include_usage: bool) -> None:
    quick, general = (begun(Chunk(text="a"), include_usage=include_usage) for _ in range(2))
    written = quick.feed([Chunk(text="wörd", answer_extra_json=extra)])
    assert written == general.feed([Chunk(text="wörd", answer_extra_json=extra, choice_extra_json=b"{}")])
    assert quick.chars == general.chars


def test_every_chunk_has_the_same_head() -> None:
    started = chat_pb2.Started(id="a", model="m", created=7, system_fingerprint="fp", service_tier="flex")
    told = events(ChatStreamEncoder(False).feed([Chunk(started=started), Chunk(text="a"), Chunk(text="b"), STOP]))
    assert len(told) == 3
    for event in told:
        del event["choices"]
        assert event == {
            "id": "a",
            "object": "chat.completion.chunk",
            "created": 7,
            "model": "m",
            "system_fingerprint": "fp",
            "service_tier": "flex",
        }


def test_a_vendors_tier_is_not_openais_to_say() -> None:
    started = chat_pb2.Started(id="a", model="m", service_tier="on_demand")
    assert "service_tier" not in events(ChatStreamEncoder(False).feed([Chunk(started=started), STOP]))[0]


def test_the_role_comes_first_and_once_for_each_choice() -> None:
    said = deltas(Chunk(text="a"), Chunk(choice=1, reasoning="b"), Chunk(text="c"), Chunk(choice=1, text="d"), STOP)
    assert said == [
        {"role": "assistant", "content": "a"},
        {"role": "assistant", "reasoning_content": "b"},
        {"content": "c"},
        {"content": "d"},
        {},
    ]


def test_a_choice_that_says_nothing_has_a_role_all_the_same() -> None:
    assert deltas(STOP) == [{"role": "assistant"}]


def test_nothing_is_written_before_something_is_said() -> None:
    encoder = ChatStreamEncoder(True)
    assert encoder.feed([STARTED, Chunk(usage=chat_pb2.Usage(input_tokens=1))]) == b""
    assert not encoder.whole


def test_calls() -> None:
    function, custom = chat_pb2.TOOL_KIND_FUNCTION, chat_pb2.TOOL_KIND_CUSTOM
    said = deltas(
        call(index=0, id="c", name="f", kind=function),
        call(index=0, arguments="{}"),
        call(index=1, id="d", name="g", kind=custom, arguments="x"),
        call(index=1, arguments="y", kind=custom),
    )
    assert said == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}],
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]},
        {"tool_calls": [{"index": 1, "id": "d", "type": "custom", "custom": {"name": "g", "input": "x"}}]},
        {"tool_calls": [{"index": 1, "custom": {"input": "y"}}]},
    ]


def test_the_legacy_call() -> None:
    legacy = chat_pb2.TOOL_KIND_LEGACY_FUNCTION
    said = deltas(call(name="f", kind=legacy), call(arguments="{}", kind=legacy))
    assert said == [
        {"role": "assistant", "function_call": {"name": "f", "arguments": ""}},
        {"function_call": {"arguments": "{}"}},
    ]


def test_the_legacy_calls_extras_stand_in_the_function() -> None:
    legacy = chat_pb2.TOOL_KIND_LEGACY_FUNCTION
    (said,) = deltas(call(name="f", kind=legacy, function_extra_json=b'{"name":"forged","strict":true}'))
    assert said["function_call"] == {"name": "f", "arguments": "", "strict": True}


def test_calls_of_one_index_in_two_choices_are_two() -> None:
    kind = chat_pb2.TOOL_KIND_FUNCTION
    other = Chunk(choice=1, tool_call=chat_pb2.ToolCallDelta(id="d", name="g", kind=kind))
    said = deltas(call(id="c", name="f", kind=kind), other)
    assert [delta["tool_calls"][0]["id"] for delta in said] == ["c", "d"]


def test_a_call_after_text_leaves_the_content_alone() -> None:
    said = deltas(Chunk(text="a"), call(id="c", name="f", kind=chat_pb2.TOOL_KIND_FUNCTION))
    assert set(said[1]) == {"tool_calls"}


def test_a_sealed_call() -> None:
    kind = chat_pb2.TOOL_KIND_FUNCTION
    (said,) = deltas(call(id="c", name="f", kind=kind, signature="s", sealed_by="gemini", extra_json=b'{"x":1.0}'))
    (told,) = said["tool_calls"]
    assert (told["seal"], told["x"]) == ({"by": "gemini", "signature": "s"}, 1.0)


def thought(*pieces: str, choice: int = 0, **end: Any) -> list[Chunk]:
    return [
        *(Chunk(choice=choice, reasoning=piece) for piece in pieces),
        Chunk(choice=choice, reasoning_end=chat_pb2.ReasoningEnd(**end)),
    ]


def test_sealed_thoughts_are_told_whole() -> None:
    """Each with its own text and its place among what the answer holds, choice by choice."""
    kind = chat_pb2.TOOL_KIND_FUNCTION
    said = deltas(
        *thought("H", "m", signature="s1", sealed_by="anthropic"),
        Chunk(text="a"),
        Chunk(text="b"),
        *thought(redacted=b"\x01\x02"),
        *thought("other", choice=1, signature="s2"),
        call(index=0, id="c", name="f", kind=kind),
        call(index=1, id="d", name="g", kind=kind),
        *thought("x", signature="s3"),
    )
    assert said[0] == {"role": "assistant", "reasoning_content": "H"}
    assert [block for delta in said for block in delta.get("reasoning_blocks", ())] == [
        {"index": 0, "text": "Hm", "position": 0, "signature": "s1", "by": "anthropic"},
        {"index": 1, "text": "", "position": 1, "redacted": "AQI="},
        {"index": 0, "text": "other", "position": 0, "signature": "s2"},
        {"index": 2, "text": "x", "position": 3, "signature": "s3"},
    ]


def test_a_thought_without_a_seal_ends_without_a_word() -> None:
    encoder = begun(Chunk(reasoning="H"))
    assert encoder.feed([Chunk(reasoning_end=chat_pb2.ReasoningEnd(sealed_by="x"))]) == b""
    sealed = choices(encoder.feed(thought("m", signature="s")))[-1]["delta"]
    assert sealed["reasoning_blocks"] == [{"index": 0, "text": "m", "position": 0, "signature": "s"}]


def test_what_a_request_is_charged_and_logged_by() -> None:
    """The characters of all that was generated, the first finish, the model that answers."""
    encoder = ChatStreamEncoder(False)
    assert (encoder.chars, encoder.finish, encoder.model, encoder.whole) == (0, "", "", False)
    kind, legacy = chat_pb2.TOOL_KIND_FUNCTION, chat_pb2.TOOL_KIND_LEGACY_FUNCTION
    padded = Chunk(text="fg", answer_extra_json=b'{"obfuscation":"x"}')
    first = Chunk(choice=1, finish=chat_pb2.Finish(reason=chat_pb2.FINISH_REASON_LENGTH))
    encoder.feed([STARTED, Chunk(text="a"), Chunk(text="bcde"), padded, Chunk(reasoning="h"), Chunk(refusal="ij")])
    assert (encoder.chars, encoder.model) == (10, "m")
    encoder.feed([call(id="c", name="f", arguments="{}", kind=kind), call(name="g", arguments="{", kind=legacy)])
    assert encoder.chars == 15
    encoder.feed([first, STOP])
    assert (encoder.finish, encoder.finished) == ("length", {0, 1})


def test_a_finish_before_the_start_is_no_whole_answer() -> None:
    encoder = ChatStreamEncoder(False)
    encoder.feed([STOP])
    assert not encoder.whole


def test_extras_without_any_content_have_a_chunk_of_their_own() -> None:
    said = deltas(Chunk(delta_extra_json=b'{"x":1}'), Chunk(delta_extra_json=b'{"y":2}'))
    assert said == [{"role": "assistant", "content": "", "x": 1}, {"y": 2}]
    told = choices(begun(Chunk(text="a")).feed([Chunk(choice_extra_json=b'{"z":3}'), Chunk(answer_extra_json=b"{}")]))
    assert [(choice["delta"], choice.get("z")) for choice in told] == [({}, 3), ({}, None)]


def test_no_extra_of_the_answer_takes_the_place_of_a_member_of_ours() -> None:
    """Not even of one that this answer leaves out."""
    ours = ("id", "object", "created", "model", "choices", "usage", "service_tier", "system_fingerprint")
    forged = json.dumps({**dict.fromkeys(ours, "forged"), "more": 1}).encode()
    data = ChatStreamEncoder(False).feed([STARTED, Chunk(text="a", answer_extra_json=forged)])
    assert b"forged" not in data
    assert events(data)[0]["more"] == 1


def test_logprobs_without_any_content_have_a_chunk_of_their_own() -> None:
    (told,) = choices(begun(Chunk(text="a")).feed([Chunk(logprobs=chat_pb2.Logprobs(has_content=True))]))
    assert (told["delta"], told["logprobs"]) == ({}, {"content": [], "refusal": None})


def test_extras_that_are_no_object_are_left_out() -> None:
    broken = Chunk(text="a", answer_extra_json=b"[1]", choice_extra_json=b"{", delta_extra_json=b"1")
    assert deltas(broken) == [{"role": "assistant", "content": "a"}]


def test_refusal_and_audio() -> None:
    said = deltas(
        Chunk(refusal="No"),
        Chunk(audio=chat_pb2.AudioDelta(id="a", data="AA")),
        Chunk(audio=chat_pb2.AudioDelta(transcript="t", expires_at=9)),
    )
    assert said[0] == {"role": "assistant", "refusal": "No"}
    assert [delta["audio"] for delta in said[1:]] == [{"id": "a", "data": "AA"}, {"transcript": "t", "expires_at": 9}]


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        (chat_pb2.FINISH_REASON_STOP, "stop"),
        (chat_pb2.FINISH_REASON_LENGTH, "length"),
        (chat_pb2.FINISH_REASON_TOOL_CALLS, "tool_calls"),
        (chat_pb2.FINISH_REASON_CONTENT_FILTER, "content_filter"),
        (chat_pb2.FINISH_REASON_FUNCTION_CALL, "function_call"),
        (chat_pb2.FINISH_REASON_OTHER, "stop"),
        (chat_pb2.FINISH_REASON_UNSPECIFIED, "stop"),
        (99, "stop"),
    ],
)
def test_the_finish_is_one_of_openais_words(reason: Any, word: str) -> None:
    finish = Chunk(finish=chat_pb2.Finish(reason=reason, upstream_reason="their_word"))
    assert choices(begun(Chunk(text="a")).feed([finish]))[0]["finish_reason"] == word


def test_logprobs() -> None:
    top = [chat_pb2.TokenLogprob(token="b", logprob=-2.5)]
    token = chat_pb2.TokenLogprob(token="é", logprob=-0.5, token_bytes="é".encode(), top=top)
    logprobs = chat_pb2.Logprobs(has_content=True, content=[token], has_refusal=True)
    told = choices(begun(Chunk(text="a")).feed([Chunk(text="é", logprobs=logprobs)]))[0]["logprobs"]
    assert told == {
        "content": [
            {
                "token": "é",
                "logprob": -0.5,
                "bytes": [195, 169],
                "top_logprobs": [{"token": "b", "logprob": -2.5, "bytes": None}],
            }
        ],
        "refusal": [],
    }


def test_extras_stand_at_their_level_and_never_in_place_of_ours() -> None:
    chunk = Chunk(
        text="a",
        answer_extra_json=b'{"id":"forged","object":"x","choices":[],"usage":{},"citations":[1.0]}',
        choice_extra_json=b'{"index":9,"finish_reason":"x","hate":{}}',
        delta_extra_json=b'{"content":"forged","thought":null}',
    )
    data = ChatStreamEncoder(False).feed([STARTED, chunk])
    (event,) = events(data)
    assert b"1.0" in data
    assert (event["id"], event["object"], event["citations"]) == ("a", "chat.completion.chunk", [1.0])
    assert "usage" not in event
    assert event["choices"] == [
        {
            "index": 0,
            "delta": {"role": "assistant", "content": "a", "thought": None},
            "logprobs": None,
            "finish_reason": None,
            "hate": {},
        }
    ]


@pytest.mark.parametrize(
    ("field", "extra", "told"),
    [
        ("delta_extra_json", b'{"thought":1}', {"delta": {"content": "b", "thought": 1}}),
        ("choice_extra_json", b'{"hate":1}', {"hate": 1}),
        ("logprobs", chat_pb2.Logprobs(has_content=True), {"logprobs": {"content": [], "refusal": None}}),
        ("choice_extra_json", b'{"logprobs":{"tokens":["b"]}}', {"logprobs": {"tokens": ["b"]}}),
    ],
)
def test_a_later_piece_of_text_loses_nothing_either(field: str, extra: Any, told: dict[str, Any]) -> None:
    chunk = Chunk(text="b", **{field: extra})
    (choice,) = choices(begun(Chunk(text="a")).feed([chunk]))
    usual = {"index": 0, "delta": {"content": "b"}, "logprobs": None, "finish_reason": None}
    assert choice == {**usual, **told}


class TestEnd:
    USAGE = Chunk(usage=chat_pb2.Usage(input_tokens=5, output_tokens=2, cache_read_tokens=3))

    def test_without_usage(self) -> None:
        assert begun(Chunk(text="a"), STOP, self.USAGE).close() == b"data: [DONE]\n\n"

    def test_with_usage(self) -> None:
        encoder = ChatStreamEncoder(True)
        told = events(encoder.feed([STARTED, Chunk(text="a"), Chunk(text="b"), STOP, self.USAGE]))
        assert [event["usage"] for event in told] == [None, None, None]
        last, done = events(encoder.close())
        assert (last["choices"], done) == ([], "[DONE]")
        assert last["usage"]["total_tokens"] == 7
        assert last["usage"]["prompt_tokens_details"]["cached_tokens"] == 3

    def test_with_usage_that_never_came(self) -> None:
        assert events(begun(STOP, include_usage=True).close())[0]["usage"] is None

    def test_an_estimate_is_marked(self) -> None:
        usage = Chunk(usage=chat_pb2.Usage(output_tokens=2, estimated=True))
        assert events(begun(STOP, usage, include_usage=True).close())[0]["usage"]["estimated"] is True

    def test_the_last_usage_counts(self) -> None:
        early = Chunk(usage=chat_pb2.Usage(input_tokens=5))
        assert begun(early, Chunk(text="a"), self.USAGE).usage == self.USAGE.usage

    def test_a_failure_is_an_event_and_no_end(self) -> None:
        data = begun(Chunk(text="a")).fail(CallError(Reason.UPSTREAM_TRUNCATED, "Cut.", param="x"))
        assert events(data) == [
            {
                "error": {
                    "message": "Cut.",
                    "type": "service_unavailable",
                    "param": "x",
                    "code": "upstream_truncated",
                }
            }
        ]

    def test_whole_is_when_every_choice_has_finished(self) -> None:
        encoder = begun(Chunk(text="a"), Chunk(choice=1, text="b"))
        assert not encoder.whole
        encoder.feed([STOP])
        assert not encoder.whole
        encoder.feed([Chunk(choice=1, finish=STOP.finish)])
        assert encoder.whole


def test_an_arm_newer_than_we_are_is_skipped_and_counted() -> None:
    encoder = begun(Chunk(text="a"))
    newer = Chunk.FromString(b"\xf2\x06\x03new")  # field 110, which no chunk of today has
    assert encoder.feed([newer]) == b""
    assert encoder.unknown == 1
    assert choices(encoder.feed([Chunk(text="b")]))[0]["delta"] == {"content": "b"}
