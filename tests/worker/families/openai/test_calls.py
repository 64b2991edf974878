"""Calls and finishes as vendors stream them: names that come late, odd numbers, a stop where there were calls."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.openai import JSON, MESSAGES, STOP, UPSTREAM, call, calls, chunk, feed, stream, whole

from trestle.fold import AnswerFold
from trestle.v1 import chat_pb2
from worker.families.openai import FAMILY


def answered(*events: JSON | str, **request: Any) -> AnswerFold:
    """The answer of these events to a request with these members."""
    asked = chat_pb2.ChatRequest(model="asked", messages=MESSAGES, **request)
    answer = AnswerFold()
    answer.feed(feed(FAMILY.chat_decoder(asked, UPSTREAM), *events, "[DONE]"))
    answer.close()
    return answer


def reason(answer: AnswerFold) -> chat_pb2.FinishReason.ValueType:
    finish = answer.choices[0].finish
    assert finish is not None
    return finish.reason


class TestCalls:
    def test_repeated_ids_and_names(self) -> None:
        events = [chunk(call(0, "c", "f", piece)) for piece in ('{"a"', ":1", "}")]
        assert calls(stream(*events, STOP).choices[0]) == [("c", "f", '{"a":1}')]

    def test_no_indexes_but_ids(self) -> None:
        events = [chunk(call(None, "c", "f", "{")), chunk(call(None, "d", "g", "{")), chunk(call(None, "c", None, "}"))]
        assert calls(stream(*events, STOP).choices[0]) == [("c", "f", "{}"), ("d", "g", "{")]

    @pytest.mark.parametrize("id", [None, ""])
    def test_neither_index_nor_id(self, id: str | None) -> None:  # noqa: A002
        events = [call(None, id, "f", "{"), call(None, id, None, "}"), call(None, id, "g", "{}")]
        found = calls(stream(*map(chunk, events), STOP).choices[0])
        assert [(name, arguments) for _, name, arguments in found] == [("f", "{}"), ("g", "{}")]
        assert all(made.startswith("call_") for made, _, _ in found)
        assert len({made for made, _, _ in found}) == 2

    def test_a_name_after_its_id(self) -> None:
        events = [chunk(call(0, "c")), chunk(call(0, None, "f", "")), chunk(call(0, None, None, "{}"))]
        assert calls(stream(*events, STOP).choices[0]) == [("c", "f", "{}")]

    def test_parallel_calls_under_one_index(self) -> None:
        """Some vendors number every call 0; a new id with a name is a new call."""
        events = [call(0, "c", "f", "{"), call(0, None, None, "}"), call(0, "d", "g", "{"), call(0, None, None, "}")]
        assert calls(stream(*map(chunk, events), STOP).choices[0]) == [("c", "f", "{}"), ("d", "g", "{}")]

    @pytest.mark.parametrize("id", [None, ""])
    @pytest.mark.parametrize("name", ["f", "g"])
    def test_whole_calls_under_one_index(self, id: str | None, name: str) -> None:  # noqa: A002
        """Google's endpoint numbers all 0; they come in one delta or in several."""
        pieces = [call(0, id, "f", '{"a":1}'), call(0, id, name, '{"b":2}')]
        together = {"tool_calls": [piece["tool_calls"][0] for piece in pieces]}
        for events in ([chunk(together)], [chunk(piece) for piece in pieces]):
            found = calls(stream(*events, STOP).choices[0])
            assert [(named, arguments) for _, named, arguments in found] == [("f", '{"a":1}'), (name, '{"b":2}')]
            assert len({made for made, _, _ in found}) == 2

    def test_a_name_repeated_without_its_id(self) -> None:
        events = [chunk(call(0, "", "f", piece)) for piece in ('{"a"', ":", '{"b":1}', "}", "")]
        assert [(n, a) for _, n, a in calls(stream(*events, STOP).choices[0])] == [("f", '{"a":{"b":1}}')]

    def test_one_id_for_all(self) -> None:
        listed = [call(None, "c", f"f{i}", "{}")["tool_calls"][0] for i in range(2)]
        found = calls(whole({"tool_calls": listed}, "tool_calls").choices[0])
        assert [(name, arguments) for _, name, arguments in found] == [("f0", "{}"), ("f1", "{}")]
        assert (found[0][0], len({made for made, _, _ in found})) == ("c", 2)

    @pytest.mark.parametrize(
        ("arguments", "text"), [({"a": 1.0}, '{"a": 1.0}'), (None, ""), ([], "[]"), ("", ""), ('{"a":', '{"a":')]
    )
    def test_arguments_of_any_kind(self, arguments: Any, text: str) -> None:
        message = {"tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}]}
        assert calls(whole(message, "tool_calls").choices[0]) == [("c", "f", text)]

    def test_several_in_one_piece_without_indexes(self) -> None:
        listed = [{"id": f"c{i}", "function": {"name": f"f{i}", "arguments": "{}"}} for i in range(3)]
        found = calls(whole({"tool_calls": listed}, "tool_calls").choices[0])
        assert found == [(f"c{i}", f"f{i}", "{}") for i in range(3)]

    def test_the_legacy_form_in_pieces(self) -> None:
        events = [{"function_call": {"name": "f", "arguments": ""}}, {"function_call": {"arguments": "{}"}}]
        choice = stream(*map(chunk, events), chunk(finish="function_call")).choices[0]
        assert calls(choice) == [("", "f", "{}")]
        assert choice.calls[0].kind == chat_pb2.TOOL_KIND_LEGACY_FUNCTION

    @pytest.mark.parametrize("empty", [{}, {"name": "", "arguments": ""}, {"name": None, "arguments": None}])
    def test_calls_of_nothing(self, empty: JSON) -> None:
        """Some vendors write the members of a call beside text, and empty ones after a call."""
        listed = {"index": 0, "id": "", "type": "function", "function": empty}
        nothing = {"function_call": empty, "tool_calls": [listed]}
        for answer in (stream(chunk({"content": "a", **nothing}), STOP), whole({"content": "a", **nothing})):
            assert (answer.choices[0].text, calls(answer.choices[0])) == ("a", [])
        events = [chunk(call(0, "c", "f", "{}")), chunk(nothing)]
        assert calls(stream(*events, STOP).choices[0]) == [("c", "f", "{}")]

    def test_a_call_in_both_forms(self) -> None:
        message = {**call(0, "c", "f", "{}"), "function_call": {"name": "f", "arguments": "{}", "x": 1}}
        for answer in (whole(message, "tool_calls"), stream(chunk(message), STOP)):
            choice = answer.choices[0]
            assert calls(choice) == [("c", "f", "{}")]
            assert choice.calls[0].kind == chat_pb2.TOOL_KIND_FUNCTION
            assert json.loads(choice.delta_extra["function_call"]) == message["function_call"]

    def test_each_choice_has_its_own(self) -> None:
        events = [chunk(call(0, f"c{i}", "f", "{}"), index=i) for i in range(2)]
        answer = stream(*events, chunk(finish="stop"), chunk(finish="stop", index=1), n=2)
        assert [calls(answer.choices[i]) for i in range(2)] == [[("c0", "f", "{}")], [("c1", "f", "{}")]]


class TestNames:
    @pytest.mark.parametrize("none", [None, ""])
    def test_after_arguments(self, none: str | None) -> None:
        """vercel/ai's issue 14722, of vLLM with Command-A and others."""
        pieces = [call(0, "x", none, '{"a": '), call(0, None, "f", "1"), call(0, None, none, "}")]
        chunks = feed(FAMILY.chat_decoder(chat_pb2.ChatRequest(), UPSTREAM), *map(chunk, pieces))
        told = [each.tool_call for each in chunks if each.HasField("tool_call")]
        assert [(each.id, each.name, each.arguments) for each in told] == [("x", "f", '{"a": 1'), ("", "", "}")]

    def test_of_the_second_call_without_numbers(self) -> None:
        begun = [call(None, "x", "f", "{}"), call(None, "y", None, "[")]
        pieces = [*begun, call(None, None, "g", "1"), call(None, "y", None, "]")]
        assert calls(stream(*map(chunk, pieces), STOP).choices[0]) == [("x", "f", "{}"), ("y", "g", "[1]")]

    def test_that_never_come(self) -> None:
        assert calls(stream(chunk(call(0, "x", None, "{}")), STOP).choices[0]) == [("x", "", "{}")]
        assert calls(whole(call(0, "x", None, "{}"), "tool_calls").choices[0]) == [("x", "", "{}")]
        sealed = {"tool_calls": [{"index": 0, "id": "x", "seal": 1, "function": {"kind": 2}}]}
        (found,) = stream(chunk(sealed), STOP).choices[0].calls.values()
        assert (found.extra, found.function_extra) == ({"seal": "1"}, {"kind": "2"})

    def test_members_that_came_before_them(self) -> None:
        early = {"tool_calls": [{"index": 0, "id": "x", "seal": 1, "function": {"arguments": "{", "kind": 2}}]}
        (found,) = stream(chunk(early), chunk(call(0, None, "f", "}")), STOP).choices[0].calls.values()
        assert (found.arguments, found.extra, found.function_extra) == ("{}", {"seal": "1"}, {"kind": "2"})


class TestNumbers:
    def test_from_one(self) -> None:
        """OpenAI's own SDK raises where the first call is not 0; so sends an endpoint in front of Claude."""
        pieces = [call(1, "x", "f", "{"), call(1, None, None, "}"), call(3, "y", "g", "{}"), call(1, None, None, " ")]
        choice = stream(*map(chunk, pieces), STOP).choices[0]
        assert list(choice.calls) == [0, 1]
        assert calls(choice) == [("x", "f", "{} "), ("y", "g", "{}")]

    def test_one_call_that_is_no_list(self) -> None:
        """text-generation-inference's issue 2794."""
        pieces: list[JSON] = [
            {"tool_calls": {"index": 0, "id": "", "function": {"name": name, "arguments": arguments}}}
            for name, arguments in (("f", "{"), (None, "}"))
        ]
        ((id_, name, arguments),) = calls(stream(*map(chunk, pieces), STOP).choices[0])
        assert (bool(id_), name, arguments) == (True, "f", "{}")


TOOLS = [chat_pb2.Tool(function=chat_pb2.FunctionTool(name="f"))]
CALLED = chunk(call(0, "x", "f", "{}"))


class TestFinish:
    def test_a_stop_with_calls(self) -> None:
        """So say Google's endpoint and text-generation-inference, of which agents that go by it end."""
        assert reason(answered(CALLED, STOP, tools=TOOLS)) == chat_pb2.FINISH_REASON_TOOL_CALLS
        assert reason(answered(chunk({"content": "a"}), STOP, tools=TOOLS)) == chat_pb2.FINISH_REASON_STOP
        legacy = {"function_call": {"name": "f", "arguments": "{}"}}
        functions = [chat_pb2.FunctionTool(name="f")]
        assert reason(answered(chunk(legacy), STOP, functions=functions)) == chat_pb2.FINISH_REASON_FUNCTION_CALL

    def test_where_a_name_was_forced_it_is_openais_own_word(self) -> None:
        forced = chat_pb2.ToolChoice(function="f")
        assert reason(answered(CALLED, STOP, tools=TOOLS, tool_choice=forced)) == chat_pb2.FINISH_REASON_STOP

    @pytest.mark.parametrize("word", ["length", "content_filter"])
    def test_other_words_stay(self, word: str) -> None:
        expected = {"length": chat_pb2.FINISH_REASON_LENGTH, "content_filter": chat_pb2.FINISH_REASON_CONTENT_FILTER}
        assert reason(answered(CALLED, chunk(finish=word), tools=TOOLS)) == expected[word]

    def test_no_word_at_all(self) -> None:
        assert reason(answered(CALLED)) == chat_pb2.FINISH_REASON_TOOL_CALLS
        assert reason(answered(chunk({"content": "a"}))) == chat_pb2.FINISH_REASON_STOP

    @pytest.mark.parametrize("word", [None, ""])
    def test_nor_in_one_piece(self, word: str | None) -> None:
        """Ollama may leave it out: an answer in one piece has its end in its JSON's."""
        choices = [{"index": 0, "message": {"content": "All."}, "finish_reason": word}]
        answer = whole({}, choices=choices)
        assert (answer.choices[0].text, reason(answer)) == ("All.", chat_pb2.FINISH_REASON_STOP)
        choices = [{"index": 0, "message": call(0, "x", "f", "{}")}]
        assert reason(whole({}, choices=choices)) == chat_pb2.FINISH_REASON_TOOL_CALLS


def test_a_message_beside_an_empty_delta() -> None:
    """Perplexity's answers in one piece hold both; in its streams the delta counts."""
    both = {"index": 0, "message": {"content": "All of it."}, "delta": {"role": "assistant", "content": ""}}
    assert whole({}, choices=[{**both, "finish_reason": "stop"}]).choices[0].text == "All of it."
    piece = {**both, "delta": {"content": "All"}, "message": {"content": "All"}}
    assert stream({"choices": [piece]}, {"choices": [{**piece, "finish_reason": "stop"}]}).choices[0].text == "AllAll"
