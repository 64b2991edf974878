"""What vendors do beside the letter of OpenAI's format, and what must never pass for a proper end."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.openai import JSON, STOP, UPSTREAM, chunk, decoder_for, feed, stream, whole

from trestle.errors import CallError, Reason
from trestle.v1 import chat_pb2
from worker.families.openai import FAMILY


class TestStart:
    def test_what_is_missing_is_made(self) -> None:
        started = stream({"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]}).started
        assert started is not None
        assert started.id.startswith("chatcmpl-")
        assert started.model == "asked"
        assert started.created > 1_700_000_000

    def test_an_empty_first_chunk_starts_nothing_twice(self) -> None:
        """Azure's filter results come first, without a choice; they ride on the next chunk that has one."""
        filters = {"id": "", "model": "", "created": 0, "choices": [], "prompt_filter_results": [{"x": 1}]}
        chunks = feed(decoder_for(), filters, chunk({"content": "a"}), STOP, "[DONE]")
        assert [each.WhichOneof("event") for each in chunks].count("started") == 1
        assert (chunks[0].started.id, chunks[0].started.model) == ("a", "m")
        assert json.loads(chunks[1].answer_extra_json) == {"prompt_filter_results": [{"x": 1}]}
        assert chunks[1].text == "a"

    @pytest.mark.parametrize("created", [2**63, 10**30, -1, 0, None])
    def test_an_instant_that_is_none(self, created: int | None) -> None:
        started = stream(chunk({"content": "a"}, "stop", created=created)).started
        assert started is not None
        assert started.created > 1_700_000_000

    def test_fractions_of_seconds(self) -> None:
        started = stream(chunk({"content": "a"}, "stop", created=1_760_000_000.75)).started
        assert started is not None
        assert started.created == 1_760_000_000


class TestText:
    def test_a_list_of_pieces(self) -> None:
        """Mistral's thinking models."""
        pieces = [
            {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}, {"type": "text", "text": "m."}]},
            {"type": "text", "text": "So."},
        ]
        for answer in (stream(chunk({"content": pieces}), STOP), whole({"content": pieces})):
            choice = answer.choices[0]
            assert (choice.text, [block.text for block in choice.reasoning]) == ("So.", ["Hmm."])
            assert choice.delta_extra == {}

    def test_a_list_with_something_else_loses_nothing(self) -> None:
        pieces = [{"type": "text", "text": "See"}, {"type": "reference", "reference_ids": [1]}]
        choice = stream(chunk({"content": pieces}), STOP).choices[0]
        assert choice.text == "See"
        assert json.loads(choice.delta_extra["content_parts"]) == pieces

    def test_a_summary_of_reasoning(self) -> None:
        """Databricks' models."""
        thought = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]}
        said = [{"type": "text", "text": "So."}]
        choice = stream(chunk({"content": [thought]}), chunk({"content": said}), STOP).choices[0]
        assert (choice.text, [block.text for block in choice.reasoning], choice.delta_extra) == ("So.", ["Hm."], {})

    @pytest.mark.parametrize(
        "piece",
        [
            {"type": "text", "text": "So.", "citations": [1.0]},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm.", "signature": "s"}]},
            {"type": "thinking", "thinking": "Hm.", "closed": True},
        ],
    )
    def test_what_stands_beside_the_text_of_a_piece_is_kept(self, piece: JSON) -> None:
        choice = stream(chunk({"content": [piece]}), STOP).choices[0]
        assert (choice.text == "So.") is (piece["type"] == "text")
        assert [block.text for block in choice.reasoning] == ([] if piece["type"] == "text" else ["Hm."])
        assert json.loads(choice.delta_extra["content_parts"]) == [piece]

    @pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
    def test_both_words_for_reasoning(self, name: str) -> None:
        events = [chunk({name: "H"}), chunk({name: "m", "content": None}), chunk({"content": "So"})]
        choice = stream(*events, STOP).choices[0]
        assert ([block.text for block in choice.reasoning], choice.text) == (["Hm"], "So")

    def test_both_words_at_once_are_one_thought(self) -> None:
        choice = stream(chunk({"reasoning": "Hm", "reasoning_content": "Hm"}), STOP).choices[0]
        assert [block.text for block in choice.reasoning] == ["Hm"]

    def test_reasoning_that_is_no_text_stays_an_extra(self) -> None:
        choice = stream(chunk({"reasoning": {"steps": 1}}), STOP).choices[0]
        assert (choice.reasoning, choice.delta_extra) == ([], {"reasoning": '{"steps": 1}'})

    def test_a_whole_message_in_a_stream(self) -> None:
        event = {"choices": [{"index": 0, "message": {"content": "All."}, "finish_reason": "stop"}]}
        assert stream(event).choices[0].text == "All."


class TestUsage:
    USAGE: JSON = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}

    def test_on_every_chunk_is_told_as_it_changes(self) -> None:
        events = [chunk({"content": "a"}, usage={**self.USAGE, "completion_tokens": i}) for i in (1, 1, 2)]
        chunks = feed(decoder_for(), *events, STOP, "[DONE]")
        assert [each.usage.output_tokens for each in chunks if each.HasField("usage")] == [1, 2]

    def test_inside_groqs_own_member(self) -> None:
        answer = stream(chunk({"content": "a"}), chunk(finish="stop", x_groq={"id": "r", "usage": self.USAGE}))
        assert answer.usage == chat_pb2.Usage(input_tokens=5, output_tokens=2)
        assert json.loads(answer.extra["x_groq"])["id"] == "r"

    def test_after_the_finish(self) -> None:
        answer = stream(chunk({"content": "a"}, "stop"), {"choices": [], "usage": self.USAGE})
        assert answer.usage == chat_pb2.Usage(input_tokens=5, output_tokens=2)

    def test_none_is_an_estimate(self) -> None:
        usage = stream(chunk({"content": "a" * 40}), STOP, chunk(usage=None, choices=[])).usage
        assert usage is not None
        assert usage.estimated
        assert (usage.input_tokens > 0, usage.output_tokens) == (True, 10)

    def test_what_no_counter_holds_is_left_out(self) -> None:
        details = {"reasoning_tokens": None, "audio_tokens": -1}
        usage = whole({"content": "a"}, usage={**self.USAGE, "completion_tokens_details": details}).usage
        assert usage == chat_pb2.Usage(input_tokens=5, output_tokens=2)


def test_logprobs_in_another_form_are_carried_on() -> None:
    strange = {"content": [{"token": "a", "logprob": -1, "bytes": [300]}], "refusal": None}
    event = chunk({"content": "a"}, "stop")
    event["choices"][0]["logprobs"] = strange
    choice = stream(event).choices[0]
    assert choice.logprobs is None
    assert json.loads(choice.extra["logprobs"]) == strange


@pytest.mark.parametrize(
    "entry",
    [
        {"token": "a", "logprob": -1, "sampling_logprob": -1, "token_id": 223, "routing_matrix": "CYv"},
        {"id": 5, "token": "a", "bytes": [97], "logprob": -1, "top_logprobs": []},
        {"token": "a", "logprob": -1, "top_logprobs": [{"id": 5, "token": "a", "logprob": -1}]},
    ],
    ids=["Fireworks", "llama.cpp", "an alternative"],
)
def test_members_beside_a_tokens_likelihood_are_kept(entry: dict[str, Any]) -> None:
    said = [chunk({"content": "a"}), chunk({"content": "a"}), chunk({}, "stop")]
    for each in said[:2]:
        each["choices"][0]["logprobs"] = {"content": [entry]}
    said[2]["choices"][0]["logprobs"] = {"content": []}
    choice = stream(*said).choices[0]
    assert choice.logprobs is None
    assert json.loads(choice.extra["logprobs"])["content"] == [entry, entry]

class TestEnds:
    @pytest.mark.parametrize(
        ("word", "reason"),
        [
            ("stop", chat_pb2.FINISH_REASON_STOP),
            ("eos", chat_pb2.FINISH_REASON_STOP),
            ("length", chat_pb2.FINISH_REASON_LENGTH),
            ("model_length", chat_pb2.FINISH_REASON_LENGTH),
            ("tool_calls", chat_pb2.FINISH_REASON_TOOL_CALLS),
            ("content_filter", chat_pb2.FINISH_REASON_CONTENT_FILTER),
            ("function_call", chat_pb2.FINISH_REASON_FUNCTION_CALL),
            ("eos_token", chat_pb2.FINISH_REASON_STOP),
            ("COMPLETE", chat_pb2.FINISH_REASON_STOP),
            ("MAX_TOKENS", chat_pb2.FINISH_REASON_LENGTH),
            ("model_context_window_exceeded", chat_pb2.FINISH_REASON_LENGTH),
            ("sensitive", chat_pb2.FINISH_REASON_CONTENT_FILTER),
            ("content_filter: PROHIBITED_CONTENT", chat_pb2.FINISH_REASON_CONTENT_FILTER),
            ("a_new_word", chat_pb2.FINISH_REASON_OTHER),
        ],
    )
    def test_the_upstreams_word_is_kept(self, word: str, reason: chat_pb2.FinishReason.ValueType) -> None:
        finish = chat_pb2.Finish(reason=reason, upstream_reason=word)
        assert stream(chunk({"content": "a"}, word)).choices[0].finish == finish
        assert whole({"content": "a"}, word).choices[0].finish == finish

    @pytest.mark.parametrize("word", ["error", "ERROR", "insufficient_system_resource", "network_error", "abort"])
    def test_words_that_are_no_end(self, word: str) -> None:
        with pytest.raises(CallError) as caught:
            stream(chunk({"content": "a"}), chunk(finish=word))
        assert caught.value.reason is Reason.UPSTREAM_FAILED

    def test_nothing_is_finished_before_the_terminal(self) -> None:
        decoder = decoder_for()
        chunks = feed(decoder, chunk({"content": "a"}, "stop"))
        assert not any(each.HasField("finish") for each in chunks)
        assert not decoder.done
        assert [each.WhichOneof("event") for each in feed(decoder, "[DONE]")] == ["finish", "usage"]
        assert decoder.done

    @pytest.mark.parametrize(
        ("events", "clean", "proper"),
        [
            pytest.param([], True, False, id="nothing"),
            pytest.param([chunk({"content": "a"})], True, False, id="no finish"),
            pytest.param([chunk({"content": "a"}, "null"), chunk({}, "")], True, False, id="words for none"),
            pytest.param([chunk({"content": "a"}), STOP], True, True, id="a finish and a clean end"),
            pytest.param([chunk({"content": "a"}), STOP], False, False, id="a finish and a mere close"),
            pytest.param([STOP, chunk(choices=[], usage=TestUsage.USAGE)], False, True, id="usage and a mere close"),
            pytest.param([chunk(usage=TestUsage.USAGE)], False, False, id="usage without a finish"),
            pytest.param([STOP, chunk({"content": "a"}, index=1)], True, False, id="a choice without its finish"),
        ],
    )
    def test_the_end_of_the_body(self, events: list[JSON], clean: bool, proper: bool) -> None:
        decoder, response = decoder_for(), chat_pb2.ChatResponse()
        feed(decoder, *events)
        if proper:
            decoder.close(clean, response.chunks)
            assert response.chunks[0].HasField("finish")
        else:
            with pytest.raises(CallError) as caught:
                decoder.close(clean, response.chunks)
            assert caught.value.reason is Reason.UPSTREAM_TRUNCATED
            assert not response.chunks

    def test_fewer_choices_than_asked_for_are_no_clean_end(self) -> None:
        decoder = decoder_for(n=2)
        feed(decoder, chunk({"content": "a"}, "stop"))
        with pytest.raises(CallError):
            decoder.close(True, chat_pb2.ChatResponse().chunks)

    def test_done_without_a_choice(self) -> None:
        with pytest.raises(CallError) as caught:
            stream(chunk(choices=[]))
        assert caught.value.reason is Reason.UPSTREAM_PROTOCOL

    def test_what_follows_done_is_nothing(self) -> None:
        decoder = decoder_for()
        feed(decoder, STOP, "[DONE]")
        response = chat_pb2.ChatResponse()
        decoder.close(False, response.chunks)
        assert not response.chunks


class TestErrors:
    @pytest.mark.parametrize(
        "event",
        [
            b'{"choices":[{"delta":{"content":"\xff"}}]}',
            b'{"choices":[{"delta":{"content":[{"type":"text","text":"\xff"}]}}]}',
            b'{"choices":[{"delta":{"reasoning":"\xff"}}]}',
            b'{"choices":[{"delta":{"content":"a"}}],"extra":"\xff"}',
            b'{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":{"a":"\xff"}}}]}}]}',
        ],
    )
    def test_bytes_that_are_no_text(self, event: bytes) -> None:
        """Wherever they stand: what only travels through would break the client's reader."""
        with pytest.raises(CallError) as caught:
            decoder_for().feed(("", event), chat_pb2.ChatResponse().chunks)
        assert caught.value.reason is Reason.UPSTREAM_PROTOCOL

    def test_a_code_that_only_looks_like_a_status(self) -> None:
        with pytest.raises(CallError) as caught:
            stream({"error": {"message": "No.", "code": "4" * 5000}})
        assert caught.value.reason is Reason.UPSTREAM_FAILED

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            ({"message": "No.", "type": "server_error"}, Reason.UPSTREAM_FAILED),
            ({"message": "No.", "code": 429}, Reason.UPSTREAM_RATE_LIMITED),
            ({"message": "No.", "code": "503"}, Reason.UPSTREAM_OVERLOADED),
            ({"message": "No.", "code": "context_length_exceeded"}, Reason.CONTEXT_LENGTH_EXCEEDED),
            ({"message": "No.", "type": "overloaded_error"}, Reason.UPSTREAM_OVERLOADED),
            ({"message": "No."}, Reason.UPSTREAM_FAILED),
            ("No.", Reason.UPSTREAM_FAILED),
        ],
    )
    def test_inside_an_answer(self, error: Any, reason: Reason) -> None:
        with pytest.raises(CallError) as streamed:
            stream({"error": error})
        with pytest.raises(CallError) as in_one_piece:
            whole({}, error=error, choices=[])
        for caught in (streamed.value, in_one_piece.value):
            assert (caught.reason, caught.message) == (reason, "No.")

    def test_an_event_named_error(self) -> None:
        with pytest.raises(CallError) as caught:
            decoder_for().feed(("error", b'{"message": "No.", "code": 503}'), chat_pb2.ChatResponse().chunks)
        assert caught.value.reason is Reason.UPSTREAM_OVERLOADED

    def test_an_error_of_null_is_none(self) -> None:
        assert stream(chunk({"content": "a"}, "stop", error=None)).choices[0].text == "a"

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            (b'{"error": {"message": "No."}}', "No."),
            (b'{"error": "No."}', "No."),
            (b'{"message": "No."}', "No."),
            (b'{"detail": "No."}', "No."),
            (b'[{"error": {"message": "No.", "code": 400}}]', "No."),
            (b'{"detail": [{"loc": ["a"], "msg": "bad"}]}', '[{"loc":["a"],"msg":"bad"}]'),
            (b"", "The upstream answered with status 400."),
            (b"<h1>No</h1>\n  <p>.", "The upstream answered with status 400: <h1>No</h1> <p>."),
            (b"\xff\xfe", "The upstream answered with status 400: \ufffd\ufffd"),
            (b"null", "The upstream answered with status 400: null"),
        ],
    )
    def test_bodies_of_any_form(self, body: bytes, message: str) -> None:
        error = FAMILY.decode_error(400, {}, body, UPSTREAM)
        assert (error.reason, error.message) == (Reason.INVALID_REQUEST, message)

    @pytest.mark.parametrize("said", ["The maximum context length is 8192 tokens", "exceeds the context window"])
    def test_a_context_too_long_by_its_words(self, said: str) -> None:
        error = FAMILY.decode_error(400, {}, json.dumps({"error": {"message": said}}).encode(), UPSTREAM)
        assert (error.reason, error.code) == (Reason.CONTEXT_LENGTH_EXCEEDED, "context_length_exceeded")
