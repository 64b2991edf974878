"""Answers and what becomes of them: texts, thoughts and seals, calls, parts without a word, finishes, usage, cuts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.gemini import answer, answered, chat, decode, events, fold

from trestle.errors import CallError, Reason
from trestle.v1 import chat_pb2
from worker.families.gemini.turns import MADE_ID

Object = dict[str, Any]
TEXT = {"text": "Hello."}
CODE = {"executableCode": {"language": "PYTHON", "code": "print(1)"}, "thoughtSignature": "MQ=="}


def failing(*found: Object, clean: bool = True, stream: bool = True) -> CallError:
    data = events(*found) if stream else json.dumps(found[0]).encode()
    with pytest.raises(CallError) as caught:
        decode([data], chat(stream=stream), clean=clean)
    return caught.value


def reason(*parts: Object, asked: Object | None = None, **members: Any) -> tuple[int, str]:
    finish = answered(*parts, asked=asked, **members).choices[0].finish
    assert finish is not None
    return finish.reason, finish.upstream_reason


@pytest.mark.parametrize("stream", [False, True])
class TestParts:
    def test_text(self, stream: bool) -> None:
        found = answered(TEXT, {"text": " "}, {"text": "World."}, stream=stream)
        assert found.choices[0].text == "Hello. World."
        assert found.started is not None
        assert (found.started.id, found.started.model) == ("r1", "gemini-2.5-flash")

    def test_thoughts_and_a_seal_on_the_text(self, stream: bool) -> None:
        thought = {"text": "Hm.", "thought": True}
        found = answered(thought, TEXT, {"text": "", "thoughtSignature": "c2ln"}, stream=stream).choices[0]
        assert found.text == "Hello."
        blocks = [(b.text, b.signature, b.sealed_by, b.position, b.ended) for b in found.reasoning]
        assert blocks == [("Hm.", "", "", 0, True), ("", "c2ln", "gemini", 1, True)]

    def test_a_sealed_thought(self, stream: bool) -> None:
        thought = {"text": "Hm.", "thought": True, "thoughtSignature": "c2ln"}
        (block,) = answered(thought, TEXT, stream=stream).choices[0].reasoning
        assert (block.text, block.signature, block.sealed_by) == ("Hm.", "c2ln", "gemini")

    def test_a_seal_alone(self, stream: bool) -> None:
        (block,) = answered(TEXT, {"thoughtSignature": "c2ln"}, stream=stream).choices[0].reasoning
        assert (block.text, block.signature, block.position) == ("", "c2ln", 1)

    def test_calls(self, stream: bool) -> None:
        first = {"functionCall": {"name": "f", "args": {"a": 1.0, "b": [1]}}, "thoughtSignature": "c2ln"}
        found = answered(first, {"functionCall": {"id": "x", "name": "g"}}, stream=stream).choices[0]
        calls = [(call.name, call.arguments, call.signature, call.sealed_by) for call in found.calls.values()]
        assert calls == [("f", '{"a":1.0,"b":[1]}', "c2ln", "gemini"), ("g", "{}", "", "")]
        assert found.calls[0].id.startswith(MADE_ID)
        assert found.calls[1].id == "x"
        assert found.finish is not None
        assert found.finish.reason == chat_pb2.FINISH_REASON_TOOL_CALLS

    def test_a_legacy_call_is_the_only_one(self, stream: bool) -> None:
        called = {"functionCall": {"name": "f", "args": {}}}
        found = answered(called, called, stream=stream, asked={"functions": [{"name": "f"}]}).choices[0]
        assert [(call.kind, call.id) for call in found.calls.values()] == [(chat_pb2.TOOL_KIND_LEGACY_FUNCTION, "")]
        assert found.finish is not None
        assert found.finish.reason == chat_pb2.FINISH_REASON_FUNCTION_CALL
        assert json.loads(found.delta_extra["content_parts"])[0]["part"] == called

    def test_parts_without_a_word_are_kept(self, stream: bool) -> None:
        image = {"inlineData": {"mimeType": "image/png", "data": "AA=="}}
        called = {"functionCall": {"name": "f", "args": {}}}
        found = answered(CODE, TEXT, image, called, {"new": [1.0]}, {}, stream=stream).choices[0]
        kept = json.loads(found.delta_extra["content_parts"])
        assert kept == [
            {"index": 0, "position": 0, "part": CODE},
            {"index": 1, "position": 1, "part": image},
            {"index": 2, "position": 2, "part": {"new": [1.0]}},
        ]

    def test_what_stands_beside_a_text_or_a_call_is_kept(self, stream: bool) -> None:
        beside = {"partMetadata": {"a": 1}}
        called = {"functionCall": {"name": "f", "args": {}, "brandNew": False}, **beside}
        found = answered({**TEXT, **beside}, called, stream=stream).choices[0]
        assert json.loads(found.delta_extra["content_parts"]) == [{"index": 0, "position": 1, "extra": beside}]
        assert (found.calls[0].extra, found.calls[0].function_extra) == (
            {"partMetadata": '{"a": 1}'},
            {"brandNew": "false"},
        )

    def test_logprobs(self, stream: bool) -> None:
        chosen = [{"token": "Hel", "tokenId": 1, "logProbability": -0.5}, {"token": "lo.", "logProbability": -1}]
        top = [{"candidates": [chosen[0], {"token": "Hi", "logProbability": -2.5}]}]
        found = answered(TEXT, stream=stream, logprobsResult={"chosenCandidates": chosen, "topCandidates": top})
        logprobs = found.choices[0].logprobs
        assert logprobs is not None
        told = [(each.token, each.logprob, each.token_bytes, len(each.top)) for each in logprobs.content]
        assert told == [("Hel", -0.5, b"Hel", 2), ("lo.", -1.0, b"lo.", 0)]
        assert logprobs.has_content

    def test_logprobs_of_an_event_without_text(self, stream: bool) -> None:
        result = {"chosenCandidates": [{"token": "x", "logProbability": -1.0}]}
        logprobs = answered({"functionCall": {"name": "f"}}, stream=stream, logprobsResult=result).choices[0].logprobs
        assert logprobs is not None
        assert logprobs.content[0].token == "x"

    def test_several_candidates(self, stream: bool) -> None:
        whole = answer(TEXT)
        other = {"content": {"parts": [{"text": "Hi."}]}, "finishReason": "MAX_TOKENS", "index": 1}
        whole["candidates"].append(other)
        data = events(whole) if stream else json.dumps(whole).encode()
        found = fold(decode([data], chat(stream=stream)))
        assert {index: choice.text for index, choice in found.choices.items()} == {0: "Hello.", 1: "Hi."}


class TestSources:
    def test_grounding_in_characters(self) -> None:
        text = "Größe: 2 m. Süß."
        start, end = len("Größe: 2 m. ".encode()), len(text.encode())
        metadata = {
            "webSearchQueries": ["q"],
            "groundingChunks": [
                {"web": {"uri": "https://example.com/a", "title": "A"}},
                {"retrievedContext": {"uri": "gs://b/c"}},
            ],
            "groundingSupports": [
                {"segment": {"startIndex": start, "endIndex": end, "text": "Süß."}, "groundingChunkIndices": [0, 1, 7]},
                {"segment": {"startIndex": 1, "endIndex": 3, "text": "2 m"}, "groundingChunkIndices": [0]},
                {"segment": {"text": "never said"}, "groundingChunkIndices": [0]},
            ],
        }
        found = answered({"text": text}, groundingMetadata=metadata).choices[0]
        spans = [
            (each["url_citation"]["start_index"], each["url_citation"]["end_index"])
            for each in json.loads(found.delta_extra["annotations"])
        ]
        assert [text[start:end] for start, end in spans] == ["Süß.", "2 m", ""]
        assert json.loads(found.extra["groundingMetadata"]) == metadata

    def test_citations(self) -> None:
        metadata = {"citations": [{"startIndex": 1, "endIndex": 3, "uri": "https://example.com/"}, {"license": "mit"}]}
        found = answered(TEXT, citationMetadata=metadata).choices[0]
        (annotation,) = json.loads(found.delta_extra["annotations"])
        url = "https://example.com/"
        citation = {"start_index": 1, "end_index": 3, "url": url, "title": url}
        assert annotation == {"type": "url_citation", "url_citation": citation}
        assert json.loads(found.extra["citationMetadata"]) == metadata

    @pytest.mark.parametrize("name", ["groundingMetadata", "citationMetadata"])
    def test_what_cannot_be_read_is_kept(self, name: str) -> None:
        members: Object = {name: [1]}
        found = answered(TEXT, **members).choices[0]
        assert (found.extra, found.delta_extra) == ({name: "[1]"}, {})


class TestFinishes:
    @pytest.mark.parametrize(
        ("word", "expected"),
        [
            ("STOP", chat_pb2.FINISH_REASON_STOP),
            ("MAX_TOKENS", chat_pb2.FINISH_REASON_LENGTH),
            ("SAFETY", chat_pb2.FINISH_REASON_CONTENT_FILTER),
            ("RECITATION", chat_pb2.FINISH_REASON_CONTENT_FILTER),
            ("BLOCKLIST", chat_pb2.FINISH_REASON_CONTENT_FILTER),
            ("PROHIBITED_CONTENT", chat_pb2.FINISH_REASON_CONTENT_FILTER),
            ("SPII", chat_pb2.FINISH_REASON_CONTENT_FILTER),
            ("IMAGE_SAFETY", chat_pb2.FINISH_REASON_CONTENT_FILTER),
            ("IMAGE_ANYTHING", chat_pb2.FINISH_REASON_CONTENT_FILTER),
            ("MALFORMED_FUNCTION_CALL", chat_pb2.FINISH_REASON_OTHER),
            ("OTHER", chat_pb2.FINISH_REASON_OTHER),
            ("A_WORD_OF_TOMORROW", chat_pb2.FINISH_REASON_OTHER),
        ],
    )
    def test_a_word(self, word: str, expected: int) -> None:
        assert reason(TEXT, finish=word) == (expected, word)

    def test_a_call_cut_by_the_limit_keeps_the_limit(self) -> None:
        called = {"functionCall": {"name": "f", "args": {}}}
        assert reason(called, finish="MAX_TOKENS")[0] == chat_pb2.FINISH_REASON_LENGTH

    def test_an_empty_answer_is_one(self) -> None:
        for word in ("STOP", "MAX_TOKENS", "SAFETY"):
            assert reason(finish=word)[1] == word

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("word", ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "OTHER"])
    def test_nothing_at_all_is_an_error(self, word: str, stream: bool) -> None:
        error = failing(answer(finish=word, finishMessage="Malformed: f("), stream=stream)
        assert (error.reason, error.type) == (Reason.UPSTREAM_FAILED, word)
        assert "Malformed: f(" in error.message
        assert error.usage is not None
        assert error.usage.input_tokens == 10

    @pytest.mark.parametrize("stream", [False, True])
    def test_a_blocked_prompt(self, stream: bool) -> None:
        feedback = {"blockReason": "PROHIBITED_CONTENT", "blockReasonMessage": "No.", "safetyRatings": []}
        whole = {"promptFeedback": feedback, "usageMetadata": {"promptTokenCount": 4}, "responseId": "r"}
        data = events(whole) if stream else json.dumps(whole).encode()
        found = fold(decode([data], chat(stream=stream)))
        choice = found.choices[0]
        assert choice.finish is not None
        assert choice.finish.reason == chat_pb2.FINISH_REASON_CONTENT_FILTER
        assert choice.finish.upstream_reason == "PROHIBITED_CONTENT"
        assert (choice.text, choice.refusal) == (None, "No.")
        assert json.loads(found.extra["promptFeedback"]) == feedback
        assert found.usage is not None
        assert found.usage.input_tokens == 4

    def test_what_the_upstream_says_beside_it_is_kept(self) -> None:
        ratings = [{"category": "HARM_CATEGORY_HARASSMENT", "probability": "LOW"}]
        whole = {**answer(TEXT, safetyRatings=ratings, avgLogprobs=-0.1), "createTime": "2026-01-01T00:00:00Z"}
        found = fold(decode([json.dumps(whole).encode()], chat()))
        assert json.loads(found.choices[0].extra["safetyRatings"]) == ratings
        assert found.choices[0].extra["avgLogprobs"] == "-0.1"
        assert found.extra == {"createTime": '"2026-01-01T00:00:00Z"'}


    @pytest.mark.parametrize("member", ["groundingMetadata", "urlContextMetadata"])
    @pytest.mark.parametrize("last", [{}, None])
    def test_an_empty_one_takes_nothing_away(self, member: str, last: Object | None) -> None:
        told = {"webSearchQueries": ["kiwis"]}
        first, second = answer(TEXT, finish=None), answer()
        first["candidates"][0][member], second["candidates"][0][member] = told, last
        data = events(first, second)
        choice = fold(decode([data], chat(stream=True))).choices[0]
        assert json.loads(choice.extra[member]) == told

    def test_a_prompt_blocked_in_the_middle(self) -> None:
        data = events(answer(TEXT, finish=None), {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}})
        choice = fold(decode([data], chat(stream=True))).choices[0]
        assert choice.text == "Hello."
        assert choice.finish == chat_pb2.Finish(
            reason=chat_pb2.FINISH_REASON_CONTENT_FILTER, upstream_reason="PROHIBITED_CONTENT"
        )

    @pytest.mark.parametrize("word", ["BLOCK_REASON_UNSPECIFIED", "BLOCKED_REASON_UNSPECIFIED"])
    def test_a_block_that_is_none(self, word: str) -> None:
        data = events({**answer(TEXT), "promptFeedback": {"blockReason": word}})
        finish = fold(decode([data], chat(stream=True))).choices[0].finish
        assert finish == chat_pb2.Finish(reason=chat_pb2.FINISH_REASON_STOP, upstream_reason="STOP")


class TestEnds:
    def test_the_finish_waits_for_the_end(self) -> None:
        """What comes after the finishReason still belongs to the answer."""
        late = answer(finish=None, groundingMetadata={"webSearchQueries": ["q"]})
        found = decode([events(answer(TEXT), late)], chat(stream=True))
        assert [chunk.WhichOneof("event") for chunk in found] == ["started", "usage", "text", "finish"]
        assert b"webSearchQueries" in found[-1].choice_extra_json

    def test_a_proxys_done_ends_nothing(self) -> None:
        data = events(answer(TEXT)) + b"data: [DONE]\n\n"
        assert fold(decode([data], chat(stream=True))).choices[0].text == "Hello."

    @pytest.mark.parametrize("clean", [False, True])
    def test_without_a_finish(self, clean: bool) -> None:
        error = failing(answer(TEXT, finish=None, usage={"promptTokenCount": 10}), clean=clean)
        assert error.reason is Reason.UPSTREAM_TRUNCATED
        assert error.usage is not None
        assert (error.usage.input_tokens, error.usage.output_tokens, error.usage.estimated) == (10, 2, True)

    def test_a_finish_that_is_none(self) -> None:
        unspecified = answer(TEXT, finish="FINISH_REASON_UNSPECIFIED")
        assert failing(unspecified).reason is Reason.UPSTREAM_TRUNCATED
        finish = fold(decode([events(unspecified, answer())], chat(stream=True))).choices[0].finish
        assert finish is not None
        assert finish.upstream_reason == "STOP"

    @pytest.mark.parametrize("nothing", [b"data: \n\n", b"data:\n\n"])
    def test_an_event_of_nothing(self, nothing: bytes) -> None:
        data = nothing + events(answer(TEXT)) + nothing
        assert fold(decode([data], chat(stream=True))).choices[0].text == "Hello."

    def test_a_list_in_an_event(self) -> None:
        """As Google's APIs write errors."""
        error = {"error": {"code": 429, "message": "Slow down.", "status": "RESOURCE_EXHAUSTED"}}
        data = events(answer(TEXT, finish=None)) + b"data: [%b]\n\n" % json.dumps(error).encode()
        with pytest.raises(CallError) as caught:
            decode([data], chat(stream=True))
        assert (caught.value.reason, caught.value.message) == (Reason.UPSTREAM_RATE_LIMITED, "Slow down.")

    def test_nothing_came(self) -> None:
        assert failing().reason is Reason.UPSTREAM_TRUNCATED

    def test_one_candidate_is_not_enough(self) -> None:
        begun = answer(TEXT, finish=None)
        begun["candidates"].append({"index": 1, "finishReason": "STOP"})
        assert failing(begun).reason is Reason.UPSTREAM_TRUNCATED

    def test_an_error_inside(self) -> None:
        status = {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}
        error = failing(answer(TEXT, finish=None), {"error": status})
        assert (error.reason, error.message) == (Reason.UPSTREAM_OVERLOADED, "The model is overloaded.")
        assert error.usage is not None
        assert error.usage.input_tokens == 10

    @pytest.mark.parametrize("body", ["", "{", "[]", "{}", "[1]", '{"candidates": 1}', '{"candidates": []}', "<html>"])
    def test_what_is_no_answer(self, body: str) -> None:
        with pytest.raises(CallError) as caught:
            decode([body.encode()], chat())
        assert caught.value.reason is Reason.UPSTREAM_PROTOCOL

    def test_an_event_that_is_none(self) -> None:
        with pytest.raises(CallError) as caught:
            decode([b"data: {\n\n"], chat(stream=True))
        assert caught.value.reason is Reason.UPSTREAM_PROTOCOL


class TestUsage:
    def test_every_part(self) -> None:
        counted = {
            "promptTokenCount": 100,
            "toolUsePromptTokenCount": 20,
            "candidatesTokenCount": 10,
            "thoughtsTokenCount": 5,
            "cachedContentTokenCount": 60,
            "totalTokenCount": 136,
            "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 7}, {"modality": "TEXT", "tokenCount": 93}],
            "candidatesTokensDetails": [{"modality": "AUDIO", "tokenCount": 3}],
            "serviceTier": "standard",
            "trafficType": "ON_DEMAND",
            "new": 1,
        }
        found = answered(TEXT, usage=counted)
        usage = found.usage
        assert usage is not None
        assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (120, 15, 136)
        assert (usage.cache_read_tokens, usage.reasoning_tokens) == (60, 5)
        assert (usage.input_audio_tokens, usage.output_audio_tokens) == (7, 3)
        assert json.loads(usage.extra_json).keys() == {
            "promptTokensDetails",
            "candidatesTokensDetails",
            "serviceTier",
            "trafficType",
            "new",
        }
        assert found.started is not None
        assert found.started.service_tier == "default"

    def test_that_counts_nothing_is_none(self) -> None:
        """Vertex AI's earlier chunks."""
        error = failing(answer({"text": "A" * 40}, finish=None, usage={"trafficType": "ON_DEMAND"}))
        assert error.usage is not None
        assert (error.usage.input_tokens > 0, error.usage.output_tokens, error.usage.estimated) == (True, 10, True)

    def test_an_output_that_is_not_told(self) -> None:
        counted = {"promptTokenCount": 10, "totalTokenCount": 10}
        usage = answered({"text": "A" * 40}, usage=counted).usage
        assert usage is not None
        assert (usage.input_tokens, usage.output_tokens, usage.estimated) == (10, 10, True)

    def test_none_is_an_estimate(self) -> None:
        whole = answer(TEXT)
        del whole["usageMetadata"]
        usage = fold(decode([json.dumps(whole).encode()], chat())).usage
        assert usage is not None
        assert (usage.output_tokens, usage.estimated) == (2, True)

    @pytest.mark.parametrize("odd", [-1, 1e300])
    def test_impossible_counts_count_nothing(self, odd: float) -> None:
        usage = answered(TEXT, usage={"promptTokenCount": odd, "candidatesTokenCount": 2}).usage
        assert usage is not None
        assert (usage.input_tokens, usage.output_tokens) == (0, 2)


@pytest.mark.parametrize("stream", [False, True])
def test_half_a_character_is_told_as_one_that_is_lost(stream: bool) -> None:
    """Escapes of lone surrogates, which an endpoint that cuts in UTF-16 sends."""
    assert answered({"text": "a\ud83d"}, {"text": "b😀"}, stream=stream).choices[0].text == "a\ufffdb😀"


def test_half_a_character_in_a_list_of_answers() -> None:
    data = json.dumps([answer({"text": "a\ud83d"})]).encode()
    assert fold(decode([data], chat())).choices[0].text == "a\ufffd"
