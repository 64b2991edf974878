"""The conversation: system text apart, turns in alternation, everything in the form of its block."""

from __future__ import annotations

from typing import Any

import pytest
from support.anthropic import chat, encoded, sent

from trestle.errors import CallError, Reason
from worker.families.anthropic.turns import GO_ON, PLACEHOLDER

Object = dict[str, Any]
CACHE = {"type": "ephemeral"}


def turns(*messages: Object, **members: Any) -> list[Object]:
    found: list[Object] = sent(messages=list(messages), **members)["messages"]
    return found


def user(content: Any, **members: Any) -> Object:
    return {"role": "user", "content": content, **members}


def assistant(content: Any = None, **members: Any) -> Object:
    return {"role": "assistant", "content": content, **members}


def call(call_id: str, name: str = "f", arguments: str = "{}") -> Object:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def result(call_id: str, content: Any, **members: Any) -> Object:
    return {"role": "tool", "tool_call_id": call_id, "content": content, **members}


class TestSystem:
    def test_a_lone_text_is_a_string(self) -> None:
        body = sent(messages=[{"role": "system", "content": "Be brief."}, user("Hi")])
        assert body["system"] == "Be brief."
        assert body["messages"] == [user("Hi")]

    def test_all_of_them_in_order_with_their_cache_hints(self) -> None:
        hinted = {"type": "text", "text": "B", "cache_control": CACHE}
        body = sent(
            messages=[
                {"role": "system", "content": "A"},
                user("Hi"),
                {"role": "developer", "content": [hinted, {"type": "text", "text": " "}]},
                {"role": "system", "content": "C", "cache_control": CACHE},
            ]
        )
        assert body["system"] == [
            {"type": "text", "text": "A"},
            hinted,
            {"type": "text", "text": "C", "cache_control": CACHE},
        ]

    def test_only_text_can_be_said_there(self) -> None:
        image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
        with pytest.raises(CallError) as caught:
            encoded(chat(messages=[{"role": "system", "content": [image]}]))
        assert (caught.value.reason, caught.value.param) == (Reason.UNSUPPORTED, "messages[0].content[0]")


class TestTurns:
    def test_neighbours_of_one_role_become_one_turn(self) -> None:
        assert turns(user("A"), user("B"), assistant("C"), assistant("D"), user("E")) == [
            user([{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]),
            assistant([{"type": "text", "text": "C"}, {"type": "text", "text": "D"}]),
            user("E"),
        ]

    @pytest.mark.parametrize("empty", ["", " \n", [{"type": "text", "text": ""}]])
    def test_blank_texts_are_left_out(self, empty: Any) -> None:
        assert turns(user("A"), assistant(empty), user("B")) == [
            user([{"type": "text", "text": "A"}, {"type": "text", "text": "B"}])
        ]

    @pytest.mark.parametrize(
        "messages", [[{"role": "system", "content": "Be brief."}], [user("")], [assistant("Welcome.")]]
    )
    def test_there_is_always_a_user_first(self, messages: list[Object]) -> None:
        assert turns(*messages)[0] == user(PLACEHOLDER)

    def test_an_answer_to_go_on_with_ends_in_no_blank(self) -> None:
        assert turns(user("A poem:"), assistant("Roses are \n"))[-1] == assistant("Roses are")

    def test_a_refusal_is_what_the_assistant_said(self) -> None:
        part = {"type": "refusal", "refusal": "No."}
        said = turns(user("A"), assistant([part]), user("B"), assistant(None, refusal="Never."), user("C"))
        assert [turn["content"] for turn in said] == ["A", "No.", "B", "Never.", "C"]

    def test_a_cache_hint_on_a_message_is_one_on_its_last_block(self) -> None:
        (turn,) = turns(user("A", cache_control=CACHE))
        assert turn["content"] == [{"type": "text", "text": "A", "cache_control": CACHE}]

    def test_openais_cache_breakpoint_is_one(self) -> None:
        part = {"type": "text", "text": "A", "prompt_cache_breakpoint": {"mode": "explicit"}}
        assert turns(user([part]))[0]["content"] == [{"type": "text", "text": "A", "cache_control": CACHE}]


class TestCalls:
    def test_results_stand_in_one_turn_with_what_the_user_says(self) -> None:
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
        said = turns(
            user("Go"),
            assistant("I will.", tool_calls=[call("a", arguments='{"x": 1.0}'), call("b", "g", "")]),
            result("a", "one", is_error=True),
            result("b", [{"type": "text", "text": "two"}, image]),
            user("And?"),
        )
        assert said[1]["content"] == [
            {"type": "text", "text": "I will."},
            {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1.0}},
            {"type": "tool_use", "id": "b", "name": "g", "input": {}},
        ]
        assert said[2]["content"] == [
            {"type": "tool_result", "tool_use_id": "a", "content": "one", "is_error": True},
            {
                "type": "tool_result",
                "tool_use_id": "b",
                "content": [
                    {"type": "text", "text": "two"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                ],
            },
            {"type": "text", "text": "And?"},
        ]

    def test_an_empty_result_is_a_result(self) -> None:
        said = turns(user("Go"), assistant(tool_calls=[call("a")]), result("a", ""))
        assert said[2]["content"] == [{"type": "tool_result", "tool_use_id": "a"}]

    def test_ids_are_made_fit_and_used_once(self) -> None:
        loop = [assistant(tool_calls=[call("f:0"), call("f:0")]), result("f:0", "1"), result("f:0", "2")]
        said = turns(user("Go"), *loop, *loop)
        called = [block["id"] for turn in (said[1], said[3]) for block in turn["content"]]
        assert called == ["f_0", "f_0_2", "f_0_3", "f_0_4"]
        answered = [(b["tool_use_id"], b["content"]) for turn in (said[2], said[4]) for b in turn["content"]]
        assert answered == [("f_0", "1"), ("f_0_2", "2"), ("f_0_3", "1"), ("f_0_4", "2")]

    def test_legacy_calls_are_answered_by_name(self) -> None:
        said = turns(
            user("Go"),
            assistant(function_call={"name": "f", "arguments": "{}"}),
            {"role": "function", "name": "f", "content": "done"},
            functions=[{"name": "f"}],
        )
        (called,), (answer,) = said[1]["content"], said[2]["content"]
        assert called["id"] == answer["tool_use_id"] != ""

    def test_a_custom_call_carries_its_text(self) -> None:
        custom = {"id": "a", "type": "custom", "custom": {"name": "run", "input": "ls -l"}}
        said = turns(user("Go"), assistant(tool_calls=[custom]), result("a", "total 0"))
        assert said[1]["content"][0]["input"] == {"input": "ls -l"}

    def test_a_call_of_an_unknown_kind_is_named(self) -> None:
        with pytest.raises(CallError) as caught:
            encoded(chat(messages=[user("Go"), assistant(tool_calls=[{"type": "magic"}])]))
        assert caught.value.param == "messages[1].tool_calls[0]"
        assert "'magic'" in caught.value.message

    def test_a_result_of_no_call_goes_on_for_the_upstream_to_judge(self) -> None:
        assert turns(user("Go"), result("lost:1", "x"))[0]["content"][1]["tool_use_id"] == "lost_1"


class TestTheEnd:
    @pytest.mark.parametrize("model", ["claude-sonnet-4-5", "kimi-k2"])
    def test_an_answer_goes_on_from_its_last_word(self, model: str) -> None:
        body = encoded(chat(model, messages=[user("A"), assistant("So: \n")]))
        assert body["messages"] == [user("A"), assistant("So:")]

    @pytest.mark.parametrize("model", ["claude-sonnet-4-6", "claude-opus-4-8", "claude-haiku-5-5", "claude-fable-5"])
    def test_newer_models_are_asked_to(self, model: str) -> None:
        """They refuse a request whose last message is the assistant's."""
        assert turns(user("A"), assistant("So: "), model=model) == [user("A"), assistant("So: "), user(GO_ON)]

    def test_a_turn_that_was_paused_is_taken_up_as_it_is(self) -> None:
        asked = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "q"}}
        paused = assistant("Let me see.", content_blocks=[{"index": 1, **asked}])
        said = turns(user("A"), paused, model="claude-sonnet-4-6")
        assert said[-1] == assistant([{"type": "text", "text": "Let me see."}, asked])


class TestKeptBlocks:
    SEARCH: Object = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "q"}}
    FOUND: Object = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}

    def test_go_back_to_their_places(self) -> None:
        kept = [{"index": 0, **self.SEARCH}, {"index": 1, **self.FOUND}]
        said = turns(user("Search"), assistant("Found.", content_blocks=kept), user("Thanks"))
        assert said[1]["content"] == [self.SEARCH, self.FOUND, {"type": "text", "text": "Found."}]

    PLACES: tuple[Object, ...] = (
        {"index": 0, "type": "text", "start_index": 0, "end_index": 5},
        {"index": 3, "type": "text", "start_index": 5, "end_index": 7},
    )

    def test_text_on_both_sides_of_them_does_too(self) -> None:
        kept = [{"index": 1, **self.SEARCH}, {"index": 2, **self.FOUND}, *self.PLACES]
        said = turns(user("Search"), assistant("Well, so.", content_blocks=kept), user("Thanks"))
        assert said[1]["content"][0] == {"type": "text", "text": "Well, so."}, "it is not the text that it was"
        said = turns(user("Search"), assistant("Well,so", content_blocks=kept), user("Thanks"))
        first, last = ({"type": "text", "text": text} for text in ("Well,", "so"))
        assert said[1]["content"] == [first, self.SEARCH, self.FOUND, last]

    def test_numbers_that_cannot_be(self) -> None:
        kept = [
            {"index": 10**12, **self.SEARCH},
            {"index": -1, **self.FOUND},
            *(dict(place, start_index="x") for place in self.PLACES),
            {"index": 999_999_999, **self.FOUND},
            {"index": 3, **self.FOUND},
        ]
        said = turns(user("Search"), assistant("Well,so", content_blocks=kept), user("Thanks"))
        assert {"type": "text", "text": "Well,"} in said[1]["content"]

    @pytest.mark.parametrize("kept", [{"type": "tool_use"}, {"type": "text", "deltas": []}])
    def test_some_were_only_for_the_clients_eyes(self, kept: Object) -> None:
        assert turns(user("A"), assistant("B", content_blocks=[kept]), user("C"))[1]["content"] == "B"

    @pytest.mark.parametrize("kept", ["x", [1]])
    def test_anything_else_is_named(self, kept: Any) -> None:
        with pytest.raises(CallError) as caught:
            encoded(chat(messages=[user("A"), assistant("B", content_blocks=kept)]))
        assert caught.value.param == "messages[1].content_blocks"


class TestContent:
    def content(self, part: Object) -> Object:
        (block,) = turns(user([part]))[0]["content"]
        return dict(block)

    @pytest.mark.parametrize(
        ("url", "source"),
        [
            ("https://example.com/a.png", {"type": "url", "url": "https://example.com/a.png"}),
            ("data:image/jpg;base64,/9j/", {"type": "base64", "media_type": "image/jpeg", "data": "/9j/"}),
            ("data:image/gif,GIF", {"type": "base64", "media_type": "image/gif", "data": "R0lG"}),
        ],
    )
    def test_images(self, url: str, source: Object) -> None:
        part = {"type": "image_url", "image_url": {"url": url}, "cache_control": CACHE}
        assert self.content(part) == {"type": "image", "source": source, "cache_control": CACHE}

    @pytest.mark.parametrize(
        ("file", "block"),
        [
            ({"file_id": "file_1"}, {"type": "document", "source": {"type": "file", "file_id": "file_1"}}),
            (
                {"file_id": "file_1", "filename": "a.PNG"},
                {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
            ),
            (
                {"file_data": "data:application/pdf;base64,JVBERi0=", "filename": "a.pdf"},
                {
                    "type": "document",
                    "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
                    "title": "a.pdf",
                },
            ),
            (
                {"file_data": "JVBERi0="},
                {
                    "type": "document",
                    "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
                },
            ),
            (
                {"file_data": "aMOk", "filename": "a.txt"},
                {
                    "type": "document",
                    "source": {"type": "text", "media_type": "text/plain", "data": "hä"},
                    "title": "a.txt",
                },
            ),
            (
                {"file_data": "https://example.com/a.pdf"},
                {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}},
            ),
            (
                {"file_data": "iVBORw0KGgo="},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
            ),
        ],
    )
    def test_files(self, file: Object, block: Object) -> None:
        assert self.content({"type": "file", "file": file}) == block

    def test_anthropics_own_blocks_go_on_as_they_are(self) -> None:
        document = {
            "type": "document",
            "source": {"type": "text", "media_type": "text/plain", "data": "Water is wet."},
            "citations": {"enabled": True},
        }
        assert self.content(document) == document

    @pytest.mark.parametrize(
        ("part", "param"),
        [
            ({"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}, ".input_audio"),
            ({"type": "image_url", "image_url": {"url": "data:image/bmp;base64,AA"}}, ".image_url.url"),
            ({"type": "image_url", "image_url": {"url": "data:nothing"}}, ".image_url.url"),
            ({"type": "file", "file": {"file_data": "data:video/mp4;base64,AA"}}, ".file"),
            ({"type": "file", "file": {"file_data": "%", "filename": "a.txt"}}, ".file.file_data"),
            ({"type": "file", "file": {}}, ".file"),
            ({"type": "input_video", "url": "x"}, ""),
        ],
    )
    def test_what_is_not_taken_is_named(self, part: Object, param: str) -> None:
        with pytest.raises(CallError) as caught:
            encoded(chat(messages=[user([{"type": "text", "text": "A"}, part])]))
        assert caught.value.param == f"messages[0].content[1]{param}"
        assert caught.value.reason in (Reason.UNSUPPORTED, Reason.INVALID_REQUEST)

    def test_earlier_spoken_answers_are_not_had(self) -> None:
        with pytest.raises(CallError) as caught:
            encoded(chat(messages=[user("A"), assistant(audio={"id": "audio_1"}), user("B")]))
        assert caught.value.param == "messages[1].audio"
