"""Tools, the choice among them, and JSON by a tool where the model cannot have both."""

from __future__ import annotations

from typing import Any

import pytest
from support.gemini import VERTEX, answered, chat, encoded, ignored, sent, upstream

from trestle.errors import CallError, Reason
from trestle.v1 import chat_pb2
from worker.families.gemini.plan import JSON_TOOL

Object = dict[str, Any]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def tool(name: str = "f", **members: Any) -> Object:
    return {"type": "function", "function": {"name": name, **members}}


def refused(**members: Any) -> CallError:
    with pytest.raises(CallError) as caught:
        encoded(chat(**members))
    return caught.value


def choice_sent(tool_choice: Any, **members: Any) -> Any:
    body = sent(**{"tools": [tool("f"), tool("g")], "tool_choice": tool_choice, **members})
    return body.get("toolConfig", {}).get("functionCallingConfig")


class TestDeclarations:
    def test_a_function(self) -> None:
        body = sent(tools=[tool(description="Does it.", parameters=SCHEMA), tool("g"), tool("h", parameters={})])
        assert body["tools"] == [
            {
                "functionDeclarations": [
                    {"name": "f", "description": "Does it.", "parametersJsonSchema": SCHEMA},
                    {"name": "g"},
                    {"name": "h"},
                ]
            }
        ]
        assert "toolConfig" not in body

    def test_legacy_functions(self) -> None:
        body = sent(functions=[{"name": "f", "parameters": SCHEMA}], function_call={"name": "f"})
        assert body["tools"] == [{"functionDeclarations": [{"name": "f", "parametersJsonSchema": SCHEMA}]}]
        assert body["toolConfig"] == {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}}

    def test_what_the_api_refuses_in_a_schema_is_said_in_another_way(self) -> None:
        schema = {
            "type": "object",
            "properties": {
                "a": {"$ref": "#/$defs/A", "description": "An A."},
                "b": {"$ref": "#/$defs/A"},
                "const": {"const": 1},
                "list": {"type": "array", "items": {"anyOf": [{"const": "x"}, True]}},
                "mixed": {"enum": [1, "x"]},
            },
            "$defs": {"A": {"type": "object", "additionalProperties": {"const": None}}},
        }
        (declared,) = sent(tools=[tool(parameters=schema)])["tools"][0]["functionDeclarations"]
        assert declared["parametersJsonSchema"] == {
            "type": "object",
            "properties": {
                "a": {"description": "An A.", "anyOf": [{"$ref": "#/$defs/A"}]},
                "b": {"$ref": "#/$defs/A"},
                "const": {"enum": [1], "type": "integer"},
                "list": {"type": "array", "items": {"anyOf": [{"enum": ["x"], "type": "string"}, True]}},
                "mixed": {"enum": [1, "x"]},
            },
            "$defs": {"A": {"type": "object", "additionalProperties": {"enum": [None]}}},
        }

    def test_any_other_schema_is_sent_as_it_is(self) -> None:
        schema = b'{"type": "object",  "properties": {"a": {"type": "number", "minimum": 1.0}}}'
        request = chat(tools=[tool(parameters={"type": "object"})])
        request.tools[0].function.parameters_json = schema
        declared = encoded(request)["tools"][0]["functionDeclarations"][0]
        assert declared["parametersJsonSchema"]["properties"]["a"]["minimum"] == 1.0

    @pytest.mark.parametrize(
        ("written", "name"),
        [
            ({"type": "google_search"}, "googleSearch"),
            ({"type": "googleSearch", "googleSearch": {"excludeDomains": ["a.b"]}}, "googleSearch"),
            ({"type": "code_execution", "code_execution": {}}, "codeExecution"),
            ({"type": "url_context"}, "urlContext"),
            ({"type": "file_search", "file_search": {"fileSearchStoreNames": ["fileSearchStores/a"]}}, "fileSearch"),
        ],
    )
    def test_tools_of_geminis_own(self, written: Object, name: str) -> None:
        body = sent(tools=[tool(), written])
        assert body["tools"] == [{"functionDeclarations": [{"name": "f"}]}, {name: written.get(written["type"], {})}]

    @pytest.mark.parametrize("asked", [{}, {"tool_choice": "auto"}])
    def test_newer_models_are_told_of_both_kinds(self, asked: Object) -> None:
        request = chat("gemini-3.5-flash", tools=[tool(), {"type": "google_search"}], **asked)
        assert encoded(request)["toolConfig"] == {
            "includeServerSideToolInvocations": True,
            "functionCallingConfig": {"mode": "VALIDATED"},
        }
        for other in (encoded(request, upstream(**VERTEX)), sent("gemini-3.5-flash", tools=[tool()])):
            assert "includeServerSideToolInvocations" not in other.get("toolConfig", {})

    def test_web_search_options(self) -> None:
        request = chat(web_search_options={"search_context_size": "low"})
        assert encoded(request)["tools"] == [{"googleSearch": {}}]
        assert ignored(request) == ["web_search_options.search_context_size"]

    @pytest.mark.parametrize("kind", ["custom", "mcp", "computer_use_preview"])
    def test_other_tools_are_refused(self, kind: str) -> None:
        error = refused(tools=[tool(), {"type": kind, kind: {"name": "x"}}])
        assert (error.reason, error.param) == (Reason.UNSUPPORTED, "tools[1]")

    def test_a_schema_is_an_object(self) -> None:
        request = chat(tools=[tool(parameters={})])
        request.tools[0].function.parameters_json = b"[1]"
        with pytest.raises(CallError) as caught:
            encoded(request)
        assert caught.value.param == "tools[0].function.parameters"


class TestChoice:
    @pytest.mark.parametrize(
        ("choice", "config"),
        [
            ("auto", {"mode": "AUTO"}),
            ("none", {"mode": "NONE"}),
            ("required", {"mode": "ANY"}),
            ({"type": "function", "function": {"name": "g"}}, {"mode": "ANY", "allowedFunctionNames": ["g"]}),
            (
                {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [tool("g")]}},
                {"mode": "ANY", "allowedFunctionNames": ["g"]},
            ),
        ],
    )
    def test_a_choice(self, choice: Any, config: Object) -> None:
        assert choice_sent(choice) == config

    def test_allowed_tools_that_need_not_be_called(self) -> None:
        choice = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [tool("g")]}}
        body = sent(tools=[tool("f"), tool("g")], tool_choice=choice)
        assert body["tools"] == [{"functionDeclarations": [{"name": "g"}]}]
        assert body["toolConfig"]["functionCallingConfig"] == {"mode": "AUTO"}

    def test_others_are_refused(self) -> None:
        assert refused(tools=[tool()], tool_choice={"type": "mcp"}).param == "tool_choice"
        error = refused(tools=[tool()], tool_choice={"type": "allowed_tools", "allowed_tools": {"tools": 1}})
        assert error.param == "tool_choice.allowed_tools.tools"

    def test_without_functions_there_is_nothing_to_choose(self) -> None:
        request = chat(tools=[{"type": "google_search"}], tool_choice="required")
        assert "toolConfig" not in encoded(request)
        assert ignored(request) == ["tool_choice"]

    @pytest.mark.parametrize(
        ("model", "choice", "mode"),
        [
            ("gemini-2.5-flash", "auto", "VALIDATED"),
            ("gemini-2.5-flash", None, "VALIDATED"),
            ("gemini-2.5-flash", "required", "ANY"),
            ("gemini-2.5-flash", "none", "NONE"),
            ("gemini-2.0-flash", "auto", "AUTO"),
        ],
    )
    def test_strict_calls_are_validated(self, model: str, choice: str | None, mode: str) -> None:
        wishes = {"tools": [tool("f"), tool("g", strict=True)], "tool_choice": choice}
        assert sent(model, **wishes)["toolConfig"]["functionCallingConfig"]["mode"] == mode
        left = ["tools[].function.strict"] if model == "gemini-2.0-flash" else []
        assert ignored(chat(model, **wishes)) == left

    def test_one_call_at_a_time_cannot_be_asked(self) -> None:
        assert ignored(chat(tools=[tool()], parallel_tool_calls=False)) == ["parallel_tool_calls"]
        assert ignored(chat(tools=[tool()], parallel_tool_calls=True)) == []

    def test_geminis_own_words_win(self) -> None:
        own = {"functionCallingConfig": {"mode": "VALIDATED"}, "includeServerSideToolInvocations": True}
        body = sent(tools=[tool()], tool_choice="auto", toolConfig=own)
        assert body["toolConfig"] == own

    def test_arguments_come_whole(self) -> None:
        request = chat(tools=[tool()], toolConfig={"functionCallingConfig": {"streamFunctionCallArguments": True}})
        assert "toolConfig" not in encoded(request)
        assert ignored(request) == ["toolConfig.functionCallingConfig.streamFunctionCallArguments"]


FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "description": "An x.", "schema": SCHEMA}}


class TestJsonByATool:
    """Models before the third refuse JSON beside tools."""

    def asked(self, **members: Any) -> Object:
        return {"tools": [tool("f")], "response_format": FORMAT, **members}

    def test_newer_models_take_both(self) -> None:
        body = sent("gemini-3-pro-preview", **self.asked())
        assert body["generationConfig"]["responseMimeType"] == "application/json"
        assert [each["name"] for each in body["tools"][0]["functionDeclarations"]] == ["f"]

    def test_the_answer_is_asked_for_as_a_call(self) -> None:
        body = sent(**self.asked())
        declared = body["tools"][0]["functionDeclarations"]
        assert [each["name"] for each in declared] == ["f", JSON_TOOL]
        assert declared[1]["parametersJsonSchema"] == SCHEMA
        assert "An x." in declared[1]["description"]
        assert body["toolConfig"] == {"functionCallingConfig": {"mode": "ANY"}}
        assert "generationConfig" not in body

    def test_any_object(self) -> None:
        body = sent(**self.asked(response_format={"type": "json_object"}))
        schema = body["tools"][0]["functionDeclarations"][1]["parametersJsonSchema"]
        assert schema == {"type": "object", "additionalProperties": True}

    def test_its_name_is_its_own(self) -> None:
        body = sent(**self.asked(tools=[tool(JSON_TOOL)]))
        assert body["tools"][0]["functionDeclarations"][1]["name"] == f"{JSON_TOOL}_"

    @pytest.mark.parametrize("model", ["gemini-2.5-flash", "gemini-3-pro-preview"])
    def test_a_forced_call_comes_first(self, model: str) -> None:
        """No model takes the mode ANY beside JSON."""
        body = sent(model, **self.asked(tool_choice="required"))
        assert [each["name"] for each in body["tools"][0]["functionDeclarations"]] == ["f"]
        assert "generationConfig" not in body

    def test_tools_that_may_not_be_called_are_left_out(self) -> None:
        body = sent(**self.asked(tool_choice="none"))
        assert "tools" not in body
        assert body["generationConfig"]["responseJsonSchema"] == {**SCHEMA, "description": "An x."}

    @pytest.mark.parametrize("stream", [False, True])
    def test_the_call_is_the_answer(self, stream: bool) -> None:
        called = {"functionCall": {"name": JSON_TOOL, "args": {"a": 1}}}
        answer = answered({"text": "Here it is."}, called, called, stream=stream, asked=self.asked())
        choice = answer.choices[0]
        assert (choice.text, choice.calls) == ('{"a":1}', {})
        assert choice.finish is not None
        assert choice.finish.reason == chat_pb2.FINISH_REASON_STOP
        assert "Here it is." in choice.delta_extra["content_parts"]
        assert JSON_TOOL in choice.delta_extra["content_parts"]

    def test_a_text_is_the_answer_where_nothing_was_called(self) -> None:
        choice = answered({"text": '{"a":'}, {"text": " 1}"}, asked=self.asked()).choices[0]
        assert choice.text == '{"a": 1}'

    def test_one_of_the_clients_own_may_be_called(self) -> None:
        choice = answered({"functionCall": {"name": "f", "args": {}}}, asked=self.asked()).choices[0]
        assert choice.calls[0].name == "f"
        assert choice.finish is not None
        assert choice.finish.reason == chat_pb2.FINISH_REASON_TOOL_CALLS
