"""Any request through both codecs: an OpenAI-like upstream gets what the client said, and what neither of us knows byte
for byte, at whatever level it stood."""

from __future__ import annotations

import itertools
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.openai.request import decode_chat
from trestle.v1 import chat_pb2
from worker.families.openai.encode import Names, encode_chat

JSON = dict[str, Any]
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="@"), max_size=12)
WORD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="@"), min_size=1, max_size=12)
# JSON as nobody would write it again: forms of numbers, escapes, blanks, members twice.
VERBATIM = st.sampled_from(
    [
        "1.0", "1E5", "-0", "-0.0", "123456789012345678901234567890", "1e400", "0.1000", "null", "true", '""',
        r'"\u00e9\/"', '"é"', r'"\ud83c\udf89"', "[ ]", "{ }", '{"a" : 1 , "a":2}', '{"b":[1.50,\t{"c":null}],"a":0}',
    ]
)  # fmt: skip
_numbers = itertools.count()


@st.composite
def open_object(draw: st.DrawFn, /, required: dict[str, st.SearchStrategy[Any]], **optional: Any) -> JSON:
    """An object with these members and, now and then, one that nobody knows: a placeholder for verbatim text."""
    found: JSON = draw(st.fixed_dictionaries(required, optional=optional))
    if draw(st.integers(0, 3)) == 0:
        number = next(_numbers)
        found[f"x_{number}"] = f"@@[{number}, {draw(VERBATIM)}]@@"
    names = draw(st.permutations(list(found)))
    return {name: found[name] for name in names}


ARGUMENTS = st.sampled_from(["", "{}", '{"a": 1}', "{broken"])
SCHEMA = st.sampled_from([{}, {"type": "object", "properties": {"b": {}, "a": {}}, "x": "@@1.0@@"}])
NAMED = open_object({"name": WORD})
CALLED = open_object({"name": WORD, "arguments": ARGUMENTS})
CALL = st.one_of(
    open_object({"id": WORD, "type": st.just("function"), "function": CALLED}),
    open_object({"id": WORD, "type": st.just("custom"), "custom": open_object({"name": WORD, "input": TEXT})}),
    open_object({"id": WORD, "type": st.just("vendor_call"), "what": st.just({"name": 1})}),
)
PART = st.one_of(
    open_object({"type": st.just("text"), "text": TEXT}, cache_control=st.just({"type": "ephemeral"})),
    open_object({"type": st.just("refusal"), "refusal": TEXT}),
    open_object({"type": st.just("image_url"), "image_url": open_object({"url": WORD}, detail=WORD)}),
    open_object({"type": st.just("input_audio"), "input_audio": open_object({"data": WORD, "format": WORD})}),
    open_object({"type": st.just("file"), "file": open_object({}, file_id=WORD, file_data=WORD, filename=WORD)}),
    open_object({"type": st.just("vendor_part"), "text": st.just(7)}),
)
CONTENT = TEXT | st.lists(PART, min_size=1, max_size=3)
MESSAGE = st.one_of(
    open_object({"role": st.sampled_from(["system", "developer", "user"]), "content": CONTENT}, name=WORD),
    open_object(
        {"role": st.just("assistant"), "content": CONTENT | st.none()},
        tool_calls=st.lists(CALL, min_size=1, max_size=3),
        function_call=CALLED,
        refusal=TEXT,
        reasoning_content=TEXT,
        audio=st.just({"id": "a", "x": "@@1.0@@"}),
    ),
    open_object({"role": st.just("tool"), "content": CONTENT, "tool_call_id": WORD}),
    open_object({"role": st.just("function"), "content": TEXT, "name": WORD}),
)
FUNCTION = open_object({"name": WORD}, description=TEXT, parameters=SCHEMA, strict=st.booleans())
TOOL = st.one_of(
    open_object({"type": st.just("function"), "function": FUNCTION}),
    open_object({"type": st.just("web_search"), "filters": SCHEMA}),
)
FORMAT = st.one_of(
    open_object({"type": st.sampled_from(["text", "json_object", "grammar"])}),
    open_object(
        {
            "type": st.just("json_schema"),
            "json_schema": open_object({"name": WORD}, description=TEXT, schema=SCHEMA, strict=st.booleans()),
        }
    ),
)
MODE = st.sampled_from(["auto", "none", "required"])
INT64 = st.integers(-(2**63), 2**63 - 1)
REQUEST = open_object(
    {"model": WORD, "messages": st.lists(MESSAGE, min_size=1, max_size=3)},
    stream=st.just(True),
    stream_options=open_object({}),
    temperature=st.floats(0, 2) | st.integers(0, 2),
    top_p=st.floats(0, 1),
    frequency_penalty=st.floats(-2, 2),
    presence_penalty=st.integers(-2, 2),
    max_tokens=INT64,
    max_completion_tokens=INT64,
    stop=TEXT | st.lists(TEXT, min_size=1, max_size=4),
    seed=INT64,
    n=st.integers(1, 128),
    logit_bias=st.dictionaries(WORD, st.integers(-100, 100) | st.floats(-100, 100), min_size=1, max_size=3),
    logprobs=st.just(True),
    tools=st.lists(TOOL, min_size=1, max_size=3),
    tool_choice=st.one_of(MODE, open_object({"type": st.just("function"), "function": NAMED}),
                          open_object({"type": st.just("allowed_tools"), "mode": MODE})),
    parallel_tool_calls=st.booleans(),
    functions=st.lists(FUNCTION, min_size=1, max_size=2),
    function_call=st.sampled_from(["auto", "none"]) | NAMED,
    response_format=FORMAT,
    reasoning_effort=WORD,
    verbosity=WORD,
    service_tier=WORD,
    user=WORD,
    safety_identifier=WORD,
    modalities=st.lists(WORD, min_size=1, max_size=2),
    audio=SCHEMA,
    web_search_options=SCHEMA,
    metadata=SCHEMA,
    prediction=SCHEMA,
    prompt_cache_key=TEXT,
    store=st.booleans(),
)  # fmt: skip


def written(value: Any) -> str:
    """JSON, its placeholders replaced by the text they stand for."""
    text = json.dumps(value, ensure_ascii=False)
    parts = text.split("@@")
    assert len(parts) % 2 == 1
    out = []
    for i, part in enumerate(parts):
        out.append(json.loads(f'"{part}"') if i % 2 else part[i > 0 : len(part) - (i < len(parts) - 1)])
    return "".join(out)


def verbatim(value: Any) -> list[str]:
    """The texts of all placeholders."""
    if isinstance(value, dict | list):
        inside = value.values() if isinstance(value, dict) else value
        return [text for each in inside for text in verbatim(each)]
    return [value.strip("@")] if isinstance(value, str) and value.startswith("@@") else []


def forwarded(body: str) -> bytes:
    """What the upstream gets of a body, the model's name left alone."""
    asked = decode_chat(body.encode())
    request = chat_pb2.ChatRequest.FromString(asked.request.SerializeToString())
    request.model = asked.model
    return encode_chat(request, Names(), stream_usage=True)


@settings(max_examples=400)
@given(request=REQUEST)
def test_what_the_client_said_is_what_the_upstream_gets(request: JSON) -> None:
    body = written(request)
    sent = forwarded(body)
    expected = json.loads(body)
    if "stream" in expected:
        expected["stream_options"] = {**expected.get("stream_options", {}), "include_usage": True}
    else:
        expected.pop("stream_options", None)
    assert json.loads(sent) == expected
    for text in verbatim({name: value for name, value in request.items() if name in expected}):
        assert text.encode() in sent


@settings(max_examples=200)
@given(request=REQUEST, data=st.data())
def test_null_means_absent(request: JSON, data: st.DataObject) -> None:
    optional = [name for name in request if name not in ("model", "messages") and not name.startswith("x_")]
    gone = data.draw(st.sets(st.sampled_from(optional))) if optional else set()
    without = {name: value for name, value in request.items() if name not in gone}
    nulls = {name: None if name in gone else value for name, value in request.items()}
    assert forwarded(written(nulls)) == forwarded(written(without))


@given(request=REQUEST)
def test_what_was_forwarded_is_a_request_again(request: JSON) -> None:
    """Two bridges in a row are as good as one."""
    once = forwarded(written(request))
    assert json.loads(forwarded(once.decode())) == json.loads(once)
