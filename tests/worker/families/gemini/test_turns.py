"""Messages as the API takes them: roles, media, calls and their results, seals, what was kept for us."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.gemini import UPSTREAM, VERTEX, answer, chat, decode, encoded, fold, ignored, sent, upstream

from trestle.errors import CallError, Reason
from worker.families.gemini.turns import GO_ON, MADE_ID, PLACEHOLDER, UNSEALED

Object = dict[str, Any]
PNG = "data:image/png;base64,iVBORw0KGgo="


def turns(*messages: Object, model: str = "gemini-2.5-flash") -> list[Object]:
    found: list[Object] = sent(model, messages=list(messages))["contents"]
    return found


def user(*parts: Any) -> Object:
    return {"role": "user", "content": list(parts) if parts and isinstance(parts[0], dict) else parts[0]}


def parts_of(part: Object, **settings: Any) -> list[Object]:
    body = encoded(chat(messages=[user(part)]), upstream(**settings))
    found: list[Object] = body["contents"][0]["parts"]
    return found


def call(name: str = "f", arguments: str = "{}", call_id: str = "c1", **members: Any) -> Object:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}, **members}


def assistant(*calls: Object, content: Any = None, **members: Any) -> Object:
    return {"role": "assistant", "content": content, **({"tool_calls": list(calls)} if calls else {}), **members}


def result(content: Any, call_id: str = "c1", **members: Any) -> Object:
    return {"role": "tool", "tool_call_id": call_id, "content": content, **members}


def refused(**members: Any) -> CallError:
    with pytest.raises(CallError) as caught:
        encoded(chat(**members))
    return caught.value


class TestRoles:
    def test_instructions_stand_apart(self) -> None:
        messages = [
            {"role": "system", "content": "A"},
            user("Hello"),
            {"role": "developer", "content": [{"type": "text", "text": "B"}, {"type": "text", "text": ""}]},
        ]
        body = sent(messages=messages)
        assert body["systemInstruction"] == {"parts": [{"text": "A"}, {"text": "B"}]}
        assert body["contents"] == [{"role": "user", "parts": [{"text": "Hello"}]}]

    def test_neighbours_of_one_role_are_one_turn(self) -> None:
        assert turns(user("A"), user("B"), assistant(content="C"), assistant(content="D"), user("E")) == [
            {"role": "user", "parts": [{"text": "A"}, {"text": "B"}]},
            {"role": "model", "parts": [{"text": "C"}, {"text": "D"}]},
            {"role": "user", "parts": [{"text": "E"}]},
        ]

    @pytest.mark.parametrize("messages", [[{"role": "system", "content": "A"}], [user("")], [assistant(content="A")]])
    def test_a_user_speaks_first(self, messages: list[Object]) -> None:
        assert turns(*messages)[0] == {"role": "user", "parts": [{"text": PLACEHOLDER}]}

    def test_a_refusal_is_something_said(self) -> None:
        messages = [user("A"), {"role": "assistant", "content": None, "refusal": "No."}]
        assert turns(*messages)[1] == {"role": "model", "parts": [{"text": "No."}]}
        parts = [{"type": "text", "text": "Well."}, {"type": "refusal", "refusal": "No."}]
        assert turns(user("A"), assistant(content=parts))[1]["parts"] == [{"text": "Well."}, {"text": "No."}]

    def test_instructions_are_text(self) -> None:
        image = {"type": "image_url", "image_url": {"url": PNG}}
        error = refused(messages=[{"role": "system", "content": [image]}])
        assert (error.reason, error.param) == (Reason.UNSUPPORTED, "messages[0].content[0]")


class TestMedia:
    @pytest.mark.parametrize(
        ("part", "sent_part"),
        [
            (
                {"type": "image_url", "image_url": {"url": PNG}},
                {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}},
            ),
            (
                {"type": "image_url", "image_url": {"url": "data:image/jpg;base64,/9j/"}},
                {"inlineData": {"mimeType": "image/jpeg", "data": "/9j/"}},
            ),
            (
                {"type": "image_url", "image_url": {"url": "https://example.com/a.webp?x=.gif"}},
                {"fileData": {"mimeType": "image/webp", "fileUri": "https://example.com/a.webp?x=.gif"}},
            ),
            (
                {"type": "image_url", "image_url": {"url": "https://example.com/a"}},
                {"fileData": {"mimeType": "image/jpeg", "fileUri": "https://example.com/a"}},
            ),
            (
                {"type": "image_url", "image_url": {"url": "http://[half/a.png"}},
                {"fileData": {"mimeType": "image/png", "fileUri": "http://[half/a.png"}},
            ),
            (
                {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
                {"inlineData": {"mimeType": "audio/wav", "data": "UklGRg=="}},
            ),
            (
                {"type": "input_audio", "input_audio": {"data": "SUQz", "format": "mp3"}},
                {"inlineData": {"mimeType": "audio/mp3", "data": "SUQz"}},
            ),
            (
                {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0="}},
                {"inlineData": {"mimeType": "application/pdf", "data": "JVBERi0="}},
            ),
            (
                {"type": "file", "file": {"file_data": "JVBERi0="}},
                {"inlineData": {"mimeType": "application/pdf", "data": "JVBERi0="}},
            ),
            (
                {"type": "file", "file": {"file_data": "YSxi", "filename": "a.csv"}},
                {"inlineData": {"mimeType": "text/csv", "data": "YSxi"}},
            ),
            (
                {"type": "file", "file": {"file_id": "gs://bucket/a.pdf"}},
                {"fileData": {"mimeType": "application/pdf", "fileUri": "gs://bucket/a.pdf"}},
            ),
            (
                {"type": "file", "file": {"file_id": "files/abc"}},
                {"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/abc"}},
            ),
            (
                {"type": "video_url", "video_url": {"url": "https://www.youtube.com/watch?v=1"}},
                {"fileData": {"mimeType": "video/mp4", "fileUri": "https://www.youtube.com/watch?v=1"}},
            ),
            (
                {"type": "file_data", "file_data": {"file_uri": "gs://b/v"}, "video_metadata": {"fps": 2}},
                {"fileData": {"fileUri": "gs://b/v"}, "videoMetadata": {"fps": 2}},
            ),
        ],
    )
    def test_a_part(self, part: Object, sent_part: Object) -> None:
        assert turns(user(part)) == [{"role": "user", "parts": [sent_part]}]

    def test_hints_of_geminis_own_go_along(self) -> None:
        part = {"type": "image_url", "image_url": {"url": PNG}, "media_resolution": {"level": "MEDIA_RESOLUTION_LOW"}}
        assert parts_of(part)[0]["mediaResolution"] == {"level": "MEDIA_RESOLUTION_LOW"}
        assert ignored(chat(messages=[user(part)])) == []

    def test_a_file_of_vertex_is_named_as_it_is(self) -> None:
        part = {"type": "file", "file": {"file_id": "files/abc"}}
        assert parts_of(part, **VERTEX) == [{"fileData": {"fileUri": "files/abc"}}]

    @pytest.mark.parametrize(
        ("part", "param"),
        [
            ({"type": "file", "file": {"file_data": "AAAA"}}, "messages[0].content[0].file.file_data"),
            ({"type": "file", "file": {}}, "messages[0].content[0].file"),
            ({"type": "holograph", "holograph": {}}, "messages[0].content[0]"),
            ({"type": "image_url", "image_url": {"url": "data:image/png"}}, "messages[0].content[0].image_url.url"),
        ],
    )
    def test_what_cannot_be_sent_is_named(self, part: Object, param: str) -> None:
        assert refused(messages=[user(part)]).param == param


class TestTheEnd:
    @pytest.mark.parametrize("model", ["gemini-2.5-flash", "gemini-3.5-flash", "in-house"])
    def test_the_models_turn_may_be_the_last(self, model: str) -> None:
        assert turns(user("A"), assistant(content="So:"), model=model)[-1]["role"] == "model"

    @pytest.mark.parametrize("model", ["gemini-3.6-flash", "gemini-3.5-flash-lite", "gemini-flash-latest"])
    def test_newer_models_are_asked_to_go_on(self, model: str) -> None:
        assert turns(user("A"), assistant(content="So:"), model=model)[2:] == [
            {"role": "user", "parts": [{"text": GO_ON}]}
        ]
        blank = {"role": "user", "content": ""}
        assert turns(user("A"), assistant(content="So:"), blank, model=model)[2:] == [
            {"role": "user", "parts": [{"text": PLACEHOLDER}]}
        ]


class TestSystemOfOlderModels:
    @pytest.mark.parametrize("model", ["gemma-3-27b-it", "models/gemma-3n-e4b-it", "gemini-3.1-flash-tts-preview"])
    def test_is_told_by_the_user(self, model: str) -> None:
        system = {"role": "system", "content": "Be brief."}
        body = sent(model, messages=[user("A"), system, assistant(content="B"), user("C")])
        assert "systemInstruction" not in body
        assert body["contents"][0]["parts"] == [{"text": "Be brief."}, {"text": "A"}]
        body = sent(model, messages=[system])
        assert [turn["parts"] for turn in body["contents"]] == [[{"text": "Be brief."}]]


class TestCalls:
    def test_a_call_and_its_result(self) -> None:
        assert turns(user("A"), assistant(call(arguments='{"a": 1.0}')), result('{"b": 2}'), user("C")) == [
            {"role": "user", "parts": [{"text": "A"}]},
            {"role": "model", "parts": [{"functionCall": {"id": "c1", "name": "f", "args": {"a": 1.0}}}]},
            {"role": "user", "parts": [{"functionResponse": {"id": "c1", "name": "f", "response": {"b": 2}}}]},
            {"role": "user", "parts": [{"text": "C"}]},
        ]

    def test_ids_that_the_api_did_not_give_are_not_sent(self) -> None:
        made = f"{MADE_ID}1"
        called, answered = turns(user("A"), assistant(call(call_id=made)), result("B", made))[1:]
        assert called["parts"] == [{"functionCall": {"name": "f", "args": {}}}]
        assert answered["parts"] == [{"functionResponse": {"name": "f", "response": {"output": "B"}}}]

    def test_results_find_their_names(self) -> None:
        messages = [assistant(call("f", call_id="1"), call("g", call_id="2")), result("B", "2"), result("A", "1")]
        parts = turns(user("Go"), *messages)[2]["parts"]
        assert [(p["functionResponse"]["name"], p["functionResponse"]["id"]) for p in parts] == [("g", "2"), ("f", "1")]
        lost = turns(user("Go"), result("A", "unheard"), result("B", "of", name="h"))[1]["parts"]
        assert [part["functionResponse"]["name"] for part in lost] == ["unheard", "h"]

    @pytest.mark.parametrize(
        ("content", "response"),
        [
            ("It rains.", {"output": "It rains."}),
            ("[1]", {"output": "[1]"}),
            ("", {}),
            ('{"id": 12345678901234567890}', {"output": '{"id": 12345678901234567890}'}),
            ([{"type": "text", "text": "A"}, {"type": "text", "text": "B"}], {"output": ["A", "B"]}),
        ],
    )
    def test_a_result_is_an_object(self, content: Any, response: Object) -> None:
        (part,) = turns(user("A"), assistant(call()), result(content))[2]["parts"]
        assert part["functionResponse"]["response"] == response

    def test_a_failure_says_so(self) -> None:
        message = result("No such place.", is_error=True)
        (part,) = turns(user("A"), assistant(call()), message)[2]["parts"]
        assert part["functionResponse"]["response"] == {"error": "No such place."}
        assert ignored(chat(messages=[user("A"), assistant(call()), message])) == []

    SEEN: tuple[Object, ...] = ({"type": "text", "text": "See."}, {"type": "image_url", "image_url": {"url": PNG}})

    def test_images_in_a_result(self) -> None:
        image = {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}
        asked = [user("A"), assistant(call(call_id="1"), call(call_id="2"))]
        results = [result(list(self.SEEN), "1"), result("B", "2"), user("C")]
        answers, said = turns(*asked, *results, model="gemini-3-flash-preview")[2:]
        assert answers["parts"][0]["functionResponse"]["parts"] == [image]
        assert said["parts"] == [{"text": "C"}]
        answers, said = turns(*asked, *results)[2:]
        assert [part["functionResponse"]["id"] for part in answers["parts"]] == ["1", "2"]
        assert said["parts"] == [image, {"text": "C"}], "older models see them after all results"

    @pytest.mark.parametrize("to", [UPSTREAM, upstream(**VERTEX)], ids=["gemini", "vertex"])
    def test_references_in_a_result(self, to: Any) -> None:
        """The Gemini API knows them as parts of a turn only."""
        url = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
        messages = [user("A"), assistant(call()), result([url])]
        found = encoded(chat("gemini-3-flash-preview", messages=messages), to)["contents"][2:]
        image = {"fileData": {"mimeType": "image/png", "fileUri": "https://example.com/a.png"}}
        if to is UPSTREAM:
            assert found[1] == {"role": "user", "parts": [image]}
        else:
            assert found[0]["parts"][0]["functionResponse"]["parts"] == [image]

    def test_names_that_begin_with_a_digit(self) -> None:
        """OpenAI takes them, Gemini does not: they go with an underscore before, and come back without."""
        tools = [{"type": "function", "function": {"name": "21st"}}]
        choice = {"type": "function", "function": {"name": "21st"}}
        request = chat(messages=[user("A"), assistant(call("21st")), result("B")], tools=tools, tool_choice=choice)
        body = encoded(request)
        _, called, answered = (turn["parts"][0] for turn in body["contents"])
        assert (called["functionCall"]["name"], answered["functionResponse"]["name"]) == ("_21st", "_21st")
        assert body["tools"][0]["functionDeclarations"][0]["name"] == "_21st"
        assert body["toolConfig"]["functionCallingConfig"]["allowedFunctionNames"] == ["_21st"]
        made = answer({"functionCall": {"name": "_21st", "args": {}}})
        (back,) = fold(decode([json.dumps(made).encode()], request)).choices[0].calls.values()
        assert back.name == "21st"

    def test_arguments_that_are_no_object(self) -> None:
        (part,) = turns(user("A"), assistant(call(arguments="12")))[1]["parts"]
        assert part["functionCall"]["args"] == {"arguments": "12"}

    def test_the_legacy_form(self) -> None:
        called = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"a":1}'}}
        answered = {"role": "function", "name": "f", "content": "B"}
        assert [turn["parts"] for turn in turns(user("A"), called, answered)[1:]] == [
            [{"functionCall": {"name": "f", "args": {"a": 1}}}],
            [{"functionResponse": {"name": "f", "response": {"output": "B"}}}],
        ]

    def test_other_kinds_of_calls_are_refused(self) -> None:
        custom = {"id": "c", "type": "custom", "custom": {"name": "f", "input": "x"}}
        assert refused(messages=[user("A"), assistant(custom)]).param == "messages[1].tool_calls[0]"
        assert refused(messages=[user("A"), assistant({"id": "c", "type": "mcp"})]).reason is Reason.UNSUPPORTED
        assert refused(messages=[user("A"), assistant(content="B", audio={"id": "a"})]).param == "messages[1].audio"


SEAL = {"by": "gemini", "signature": "c2ln"}


class TestSeals:
    def test_a_seal_goes_back_with_its_call(self) -> None:
        called = assistant(call(seal=SEAL), call(call_id="c2"))
        parts = turns(user("A"), called, model="gemini-3-pro-preview")[1]["parts"]
        assert [part.get("thoughtSignature") for part in parts] == ["c2ln", None]

    def test_a_seal_as_googles_own_endpoint_gives_it(self) -> None:
        sealed = call(extra_content={"google": {"thought_signature": "c2ln"}})
        assert turns(user("A"), assistant(sealed))[1]["parts"][0]["thoughtSignature"] == "c2ln"
        assert ignored(chat(messages=[user("A"), assistant(sealed)])) == []

    @pytest.mark.parametrize("odd", [None, 1, {"google": None}, {"google": {"thought_signature": 1}}])
    def test_other_extras_are_no_seals(self, odd: Any) -> None:
        parts = turns(user("A"), assistant(call(extra_content=odd)))[1]["parts"]
        assert "thoughtSignature" not in parts[0]

    @pytest.mark.parametrize(
        ("model", "seals"),
        [
            ("gemini-2.5-pro", [None, None]),
            ("gemini-3-pro-preview", [UNSEALED, None]),
            ("gemini-flash-latest", [UNSEALED, None]),
        ],
    )
    def test_without_a_seal_the_documented_word_stands_for_it(self, model: str, seals: list[str | None]) -> None:
        parts = turns(user("A"), assistant(call(), call(call_id="c2")), model=model)[1]["parts"]
        assert [part.get("thoughtSignature") for part in parts] == seals

    def test_sealed_thoughts_go_back_to_their_places(self) -> None:
        blocks = [
            {"index": 0, "text": "Hm.", "signature": "MQ==", "position": 0, "by": "gemini"},
            {"index": 1, "text": "not sealed", "position": 1},
            {"index": 2, "text": "", "signature": "Mg==", "position": 1, "by": "gemini"},
            {"index": 3, "text": "", "signature": "Mw==", "position": 2, "by": "gemini"},
        ]
        message = assistant(call(), content="A text.", reasoning_blocks=blocks)
        assert turns(user("A"), message)[1]["parts"] == [
            {"text": "Hm.", "thought": True, "thoughtSignature": "MQ=="},
            {"text": "A text.", "thoughtSignature": "Mg=="},
            {"functionCall": {"id": "c1", "name": "f", "args": {}}},
            {"text": "", "thoughtSignature": "Mw=="},
        ]

    def test_a_place_beyond_the_end_is_the_end(self) -> None:
        block = {"text": "Hm.", "signature": "MQ==", "position": 99, "by": "gemini"}
        parts = turns(user("A"), assistant(content="B", reasoning_blocks=[block]))[1]["parts"]
        assert [part["text"] for part in parts] == ["B", "Hm."]

    def test_thinking_without_a_seal_stays_here(self) -> None:
        message = {**assistant(content="B"), "reasoning_content": "Hm."}
        assert turns(user("A"), message)[1]["parts"] == [{"text": "B"}]


class TestKeptParts:
    def test_they_return_to_their_places(self) -> None:
        code = {"executableCode": {"language": "PYTHON", "code": "1"}, "thoughtSignature": "MQ=="}
        done = {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}}
        kept = [
            {"index": 0, "position": 0, "part": code},
            {"index": 1, "position": 0, "part": done},
            {"index": 2, "position": 9, "part": {"inlineData": {"mimeType": "image/png", "data": "AA=="}}},
            {"index": 3, "position": 0, "part": {"functionCall": {"name": "g", "args": {}}}},
            {"index": 4, "position": 0, "extra": {"partMetadata": {}}},
        ]
        parts = turns(user("A"), assistant(content="B", content_parts=kept))[1]["parts"]
        assert parts == [code, done, {"text": "B"}, kept[2]["part"]]
        assert ignored(chat(messages=[user("A"), assistant(content="B", content_parts=kept)])) == []

    def test_a_null_keeps_nothing(self) -> None:
        assert turns(user("A"), assistant(content="B", content_parts=None))[1]["parts"] == [{"text": "B"}]

    @pytest.mark.parametrize("kept", [1, [1], {}])
    def test_they_are_a_list_of_objects(self, kept: Any) -> None:
        error = refused(messages=[user("A"), assistant(content="B", content_parts=kept)])
        assert (error.reason, error.param) == (Reason.INVALID_REQUEST, "messages[1].content_parts")
