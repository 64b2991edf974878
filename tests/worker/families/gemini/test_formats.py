"""The generationConfig: sampling, limits, thinking, the form of the answer, and Gemini's own words for them."""

from __future__ import annotations

from typing import Any

import pytest
from support.gemini import VERTEX, chat, encoded, ignored, sent, upstream

from trestle.errors import CallError, Reason

Object = dict[str, Any]


def config(model: str = "gemini-2.5-flash", **members: Any) -> Object:
    found: Object = sent(model, **members).get("generationConfig", {})
    return found


class TestSampling:
    def test_everything(self) -> None:
        wishes: Object = {
            "temperature": 1.7,
            "top_p": 0.9,
            "top_k": 40,
            "max_tokens": 5,
            "max_completion_tokens": 6,
            "stop": ["a", "b"],
            "presence_penalty": 0.5,
            "frequency_penalty": -0.5,
            "seed": 7,
            "logprobs": True,
            "top_logprobs": 3,
        }
        assert config("gemini-2.0-flash", **wishes) == {
            "temperature": 1.7,
            "topP": 0.9,
            "topK": 40,
            "maxOutputTokens": 6,
            "stopSequences": ["a", "b"],
            "presencePenalty": 0.5,
            "frequencyPenalty": -0.5,
            "seed": 7,
            "responseLogprobs": True,
            "logprobs": 3,
        }
        assert ignored(chat("gemini-2.0-flash", **wishes)) == []

    @pytest.mark.parametrize("model", ["gemini-2.5-flash", "gemini-3.5-flash"])
    def test_penalties_are_taken_by_older_models_and_vertex(self, model: str) -> None:
        request = chat(model, presence_penalty=0.5, frequency_penalty=-0.5)
        assert "generationConfig" not in encoded(request)
        assert ignored(request) == ["presence_penalty", "frequency_penalty"]
        vertex = upstream(**VERTEX)
        assert encoded(request, vertex)["generationConfig"] == {"presencePenalty": 0.5, "frequencyPenalty": -0.5}
        assert ignored(request, vertex) == []

    @pytest.mark.parametrize("model", ["gemini-3.6-flash", "gemini-3.5-flash-lite", "gemini-flash-latest"])
    def test_newer_models_sample_as_they_see_fit(self, model: str) -> None:
        request = chat(model, temperature=0, top_p=0.5, top_k=3, seed=1)
        assert encoded(request)["generationConfig"] == {"seed": 1}
        assert ignored(request) == ["temperature", "top_p", "top_k"]
        assert ignored(chat(model, temperature=1, top_p=1)) == []

    def test_nothing(self) -> None:
        wishes: Object = {"presence_penalty": 0, "frequency_penalty": 0, "logprobs": False, "max_tokens": -1, "n": 3}
        assert "generationConfig" not in sent(**wishes)

    def test_a_limit_of_nothing_is_for_the_upstream_to_judge(self) -> None:
        assert config(max_tokens=0) == {"maxOutputTokens": 0}

    def test_seeds_are_of_32_bits(self) -> None:
        assert config(seed=-5)["seed"] == -5
        assert config(seed=2**40 + 3)["seed"] == 3

    def test_empty_stops_are_left_out(self) -> None:
        request = chat(stop=["a", ""])
        assert encoded(request)["generationConfig"] == {"stopSequences": ["a"]}
        assert ignored(request) == ["stop"]

    def test_logprobs_of_alternatives_only(self) -> None:
        request = chat()
        request.sampling.top_logprobs = 2
        assert "generationConfig" not in encoded(request)
        assert ignored(request) == ["top_logprobs"]


THOUGHTS = {"includeThoughts": True}


class TestThinking:
    @pytest.mark.parametrize(
        ("model", "effort", "thinking", "honoured"),
        [
            ("gemini-2.5-flash", "none", {"thinkingBudget": 0}, True),
            ("gemini-2.5-flash", "low", {"thinkingBudget": 1024, **THOUGHTS}, True),
            ("gemini-2.5-flash", "max", {"thinkingBudget": 24576, **THOUGHTS}, True),
            ("gemini-2.5-flash-lite", "minimal", {"thinkingBudget": 512, **THOUGHTS}, True),
            ("gemini-2.5-pro", "none", {"thinkingBudget": 128}, False),
            ("gemini-2.5-pro", "xhigh", {"thinkingBudget": 32768, **THOUGHTS}, True),
            ("models/gemini-2.5-pro", "high", {"thinkingBudget": 24576, **THOUGHTS}, True),
            ("gemini-3-pro-preview", "none", {"thinkingLevel": "LOW"}, False),
            ("gemini-3-pro-preview", "minimal", {"thinkingLevel": "LOW", **THOUGHTS}, True),
            ("gemini-3-pro-preview", "medium", {"thinkingLevel": "LOW", **THOUGHTS}, True),
            ("gemini-3.1-pro-preview", "medium", {"thinkingLevel": "MEDIUM", **THOUGHTS}, True),
            ("gemini-3-flash-preview", "minimal", {"thinkingLevel": "MINIMAL", **THOUGHTS}, True),
            ("gemini-3.7-flash", "minimal", {"thinkingLevel": "LOW", **THOUGHTS}, True),
            ("gemini-3.7-flash-lite", "minimal", {"thinkingLevel": "MINIMAL", **THOUGHTS}, True),
            ("gemini-flash-latest", "none", {"thinkingLevel": "LOW"}, False),
            ("gemini-flash-latest", "xhigh", {"thinkingLevel": "HIGH", **THOUGHTS}, True),
            ("gemini-2.0-flash", "none", None, True),
            ("gemini-2.0-flash", "high", None, False),
            ("gemini-2.5-flash-image", "high", None, False),
            ("gemma-3-27b-it", "high", None, False),
        ],
    )
    def test_effort(self, model: str, effort: str, thinking: Object | None, honoured: bool) -> None:
        assert config(model, reasoning_effort=effort).get("thinkingConfig") == thinking
        assert ignored(chat(model, reasoning_effort=effort)) == ([] if honoured else ["reasoning_effort"])

    def test_unknown_words(self) -> None:
        body = encoded(chat("gemini-3-pro-preview", reasoning_effort="ultra"))
        assert body["generationConfig"]["thinkingConfig"]["thinkingLevel"] == "ULTRA"
        with pytest.raises(CallError) as caught:
            encoded(chat("gemini-2.5-pro", reasoning_effort="ultra"))
        assert (caught.value.reason, caught.value.param) == (Reason.INVALID_REQUEST, "reasoning_effort")

    @pytest.mark.parametrize(
        "own",
        [
            {"thinkingConfig": {"thinkingBudget": 77}},
            {"thinking_config": {"thinking_budget": 77}},
            {"generationConfig": {"thinkingConfig": {"thinkingBudget": 77}}},
            {"generation_config": {"thinking_config": {"thinkingBudget": 77}}},
            {"extra_body": {"google": {"thinking_config": {"thinking_budget": 77}}}},
            {"google": {"thinking_config": {"thinking_budget": 77}}},
        ],
    )
    def test_geminis_own_words_win(self, own: Object) -> None:
        assert config(reasoning_effort="high", **own) == {"thinkingConfig": {"thinkingBudget": 77}}
        assert ignored(chat(**own)) == []

    def test_the_settings_know_better(self) -> None:
        to = upstream(traits={"in-house-": {"thinking": "level", "levels": ["low", "xhigh"], "seals": True}})
        request = chat("in-house-1", reasoning_effort="max")
        assert encoded(request, to)["generationConfig"]["thinkingConfig"]["thinkingLevel"] == "XHIGH"


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


class TestForms:
    def test_any_json(self) -> None:
        assert config(response_format={"type": "json_object"}) == {"responseMimeType": "application/json"}
        assert config(response_format={"type": "text"}) == {}

    def test_a_schema(self) -> None:
        wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}
        expected = {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA}
        assert config(response_format=wanted) == expected

    def test_a_description_is_not_lost(self) -> None:
        form: Object = {"name": "x", "description": "An x.", "schema": SCHEMA}
        wanted = {"type": "json_schema", "json_schema": form}
        assert config(response_format=wanted)["responseJsonSchema"] == {**SCHEMA, "description": "An x."}
        form["schema"] = {**SCHEMA, "description": "Its own."}
        assert config(response_format=wanted)["responseJsonSchema"]["description"] == "Its own."

    def test_other_forms_are_refused(self) -> None:
        with pytest.raises(CallError) as caught:
            encoded(chat(response_format={"type": "grammar", "grammar": "x"}))
        assert (caught.value.reason, caught.value.param) == (Reason.UNSUPPORTED, "response_format")

    def test_modalities(self) -> None:
        assert config(modalities=["text"]) == {}
        assert config(modalities=["text", "image"]) == {"responseModalities": ["TEXT", "IMAGE"]}

    @pytest.mark.parametrize(
        ("members", "param"),
        [
            ({"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}, "modalities"),
            ({"audio": {"voice": "alloy", "format": "wav"}}, "audio"),
        ],
    )
    def test_speech_is_refused(self, members: Object, param: str) -> None:
        with pytest.raises(CallError) as caught:
            encoded(chat(**members))
        assert (caught.value.reason, caught.value.param) == (Reason.UNSUPPORTED, param)

    def test_speech_in_geminis_own_words(self) -> None:
        voice = {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "Kore"}}}
        own = {"responseModalities": ["AUDIO"], "speechConfig": voice}
        assert config("gemini-2.5-flash-preview-tts", generationConfig=own) == own


class TestOwnMembers:
    def test_they_go_on(self) -> None:
        settings = [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]
        wishes: Object = {
            "safety_settings": settings,
            "cachedContent": "cachedContents/a",
            "labels": {"team": "x"},
            "generation_config": {"media_resolution": "MEDIA_RESOLUTION_LOW", "temperature": 0.1},
            "temperature": 0.9,
        }
        body = sent(**wishes)
        assert body["safetySettings"] == settings
        assert (body["cachedContent"], body["labels"]) == ("cachedContents/a", {"team": "x"})
        assert body["generationConfig"] == {"temperature": 0.1, "mediaResolution": "MEDIA_RESOLUTION_LOW"}
        assert ignored(chat(**wishes)) == []

    def test_null_says_nothing(self) -> None:
        assert sent(safetySettings=None, generationConfig=None, thinkingConfig=None).keys() == {"contents"}

    def test_choices_are_asked_for_by_n(self) -> None:
        request = chat(generationConfig={"candidateCount": 2}, n=2)
        assert "generationConfig" not in encoded(request)
        assert ignored(request) == ["generationConfig.candidateCount"]

    @pytest.mark.parametrize("name", ["generationConfig", "toolConfig", "thinking_config"])
    def test_what_must_be_an_object(self, name: str) -> None:
        members: Object = {name: [1]}
        with pytest.raises(CallError) as caught:
            encoded(chat(**members))
        assert caught.value.reason is Reason.INVALID_REQUEST

    @pytest.mark.parametrize(
        ("tier", "expected", "left"),
        [
            ("auto", None, []),
            ("default", "standard", []),
            ("flex", "flex", []),
            ("priority", "priority", []),
            ("scale", None, ["service_tier"]),
        ],
    )
    def test_tiers(self, tier: str, expected: str | None, left: list[str]) -> None:
        assert sent(service_tier=tier).get("serviceTier") == expected
        assert ignored(chat(service_tier=tier)) == left

    def test_vertex_has_no_tiers(self) -> None:
        to = upstream(**VERTEX)
        assert "serviceTier" not in encoded(chat(service_tier="flex"), to)
        assert ignored(chat(service_tier="flex"), to) == ["service_tier"]
