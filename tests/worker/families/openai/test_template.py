"""Chunks that are like one before are read by what stands around their text, and mean what they meant."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trestle.errors import CallError
from trestle.v1 import chat_pb2, completion_pb2
from worker.families.openai import FAMILY
from worker.families.openai.family import OpenAIUpstream
from worker.families.openai.template import Plain, TextTemplate
from worker.family import Upstream

UPSTREAM = Upstream("vendor", OpenAIUpstream(base_url="http://127.0.0.1"))
HEAD = b'{"id":"a","object":"chat.completion.chunk","created":1,"model":"m",'
KEY = b'"content":'
TEXT = b"TEXT"
FORMS = {
    "openai": HEAD + b'"choices":[{"index":0,"delta":{"content":TEXT},"logprobs":null,"finish_reason":null}]}',
    "padded": HEAD + b'"choices":[{"index":0,"delta":{"content":TEXT},"finish_reason":null}],"obfuscation":"aB3"}',
    "padded first": b'{"obfuscation":"aB3",' + HEAD[1:] + b'"choices":[{"index":0,"delta":{"content":TEXT}}]}',
    "usage is null": HEAD + b'"choices":[{"index":0,"delta":{"content":TEXT},"finish_reason":null}],"usage":null}',
    "spaces": HEAD + b'"choices": [ {"index": 0, "delta": {"role": "assistant", "content": \t TEXT } } ] }',
    "another choice": HEAD + b'"choices":[{"index":3,"delta":{"content":TEXT}}]}',
    "an extra": HEAD + b'"choices":[{"index":0,"delta":{"content":TEXT}}],"p":"abc"}',
    "an extra and padding": HEAD + b'"choices":[{"index":0,"delta":{"content":TEXT}}],"p":1,"obfuscation":"a"}',
    "the key in a text": HEAD + b'"choices":[{"index":0,"delta":{"content":TEXT}}],"service_tier":"\\"content\\":"}',
    "the key in vain": b'{"error":null,' + HEAD[1:] + b'"choices":[{"index":0,"delta":{"\\u0063ontent":TEXT}}]}',
    "two choices": HEAD + b'"choices":[{"index":0,"delta":{"content":TEXT}},{"index":1,"delta":{}}]}',
    "finished": HEAD + b'"choices":[{"index":0,"delta":{"content":TEXT},"finish_reason":"stop"}]}',
    "thinking": HEAD + b'"choices":[{"index":0,"delta":{"content":TEXT,"reasoning_content":"Hm"}}]}',
}
# In the place of a text: what is none, what is no JSON, and what would say more than a text.
STRANGE = [
    b"null", b"1", b"[]", b'[{"type":"text","text":"x"}]', b"{}", b"", b'"', b'"open', b'"a" ', b' "a"', b'"a""b"',
    b'"a","role":"user"', b'"a","refusal":"no"', b'"a"},"finish_reason":"stop","x":{"y":"z"', b'"\x01"', b'"\xff"',
    b'"\\ud800"', b'"\\ud83d\\ude00"', b'"\\u00e4\\n\\/"', b'"a\\"b"', b'"\\x"', b'"\\"', '"☃"'.encode(), b'""',
]  # fmt: skip


def decoded(events: list[bytes], *, learning: bool, name: str = "") -> tuple[list[chat_pb2.ChatChunk], str, Any]:
    """The chunks of these events, how it failed, and the usage that is known then."""
    decoder: Any = FAMILY.chat_decoder(chat_pb2.ChatRequest(model="asked"), UPSTREAM)
    if not learning:
        decoder._key = b"no such member"  # noqa: SLF001
    response = chat_pb2.ChatResponse()
    failed = ""
    try:
        for event in events:
            decoder.feed((name, event), response.chunks)
    except CallError as error:
        failed = f"{error.reason} {error.message}"
    assert (decoder._template is not None) <= learning  # noqa: SLF001
    chunks = list(response.chunks)
    for chunk in chunks:
        chunk.ClearField("started")
    return chunks, failed, decoder.usage


def both(events: list[bytes], name: str = "") -> list[chat_pb2.ChatChunk]:
    learnt = decoded(events, learning=True, name=name)
    assert learnt == decoded(events, learning=False, name=name)
    return learnt[0]


@pytest.mark.parametrize("form", FORMS)
def test_which_are_learnt(form: str) -> None:
    decoder: Any = FAMILY.chat_decoder(chat_pb2.ChatRequest(model="asked"), UPSTREAM)
    for event in of(form, *PLAIN):
        decoder.feed(("", event), chat_pb2.ChatResponse().chunks)
    others = {"an extra", "an extra and padding", "padded first", "the key in vain", "two choices"}
    others |= {"finished", "thinking"}
    assert (decoder._template is None) == (form in others)  # noqa: SLF001


def of(form: str, *texts: bytes) -> list[bytes]:
    return [FORMS[form].replace(TEXT, text) for text in texts]


PLAIN = [b'"one"', b'" two"', b'"three"', b'"four"']


@pytest.mark.parametrize("form", FORMS)
@given(text=st.text(st.characters(exclude_categories=["Cs"])), escaped=st.booleans())
def test_a_text_is_what_it_was(form: str, text: str, escaped: bool) -> None:
    said = json.dumps(text, ensure_ascii=escaped).encode()
    chunks = both(of(form, *PLAIN, said, *PLAIN))
    if form not in ("the key in vain", "thinking"):
        assert "".join(chunk.text for chunk in chunks) == f"one twothreefour{text}one twothreefour"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("strange", STRANGE)
def test_what_stands_in_a_texts_place(form: str, strange: bytes) -> None:
    both(of(form, *PLAIN, strange, *PLAIN))


@pytest.mark.parametrize(
    "padding", [b'"x1"', b'""', b'"a b"', b"null", b"1", b'"\\u0061"', b'"a"},{"x":"b"', b'"a","p":"b"']
)
def test_what_stands_in_a_paddings_place(padding: bytes) -> None:
    events = of("padded", *PLAIN)
    both([*events, FORMS["padded"].replace(TEXT, b'"x"').replace(b'"aB3"', padding), *events])
    both([FORMS["padded"].replace(TEXT, b'"x"').replace(b'"aB3"', padding), *events])


def test_padding_is_carried_on() -> None:
    events = [FORMS["padded"].replace(TEXT, b'"%d"' % i).replace(b"aB3", b"p%d" % i) for i in range(8)]
    told = [(chunk.text, chunk.answer_extra_json) for chunk in both(events) if chunk.text]
    assert told == [(f"{i}", b'{"obfuscation":"p%d"}' % i) for i in range(8)]
    assert not any(chunk.HasField("text") for chunk in both([*events, *of("padded", b'""')])[-1:])


@pytest.mark.parametrize("first", FORMS)
@pytest.mark.parametrize("second", FORMS)
def test_forms_may_change(first: str, second: str) -> None:
    both([*of(first, *PLAIN), *of(second, *PLAIN), *of(first, *PLAIN), b"[DONE]"])


def test_an_extra_that_waits_is_not_passed_by() -> None:
    waiting = HEAD + b'"choices":[],"p":"abc"}'
    chunks = both([*of("openai", *PLAIN), waiting, *of("openai", *PLAIN)])
    assert [chunk.answer_extra_json for chunk in chunks if chunk.answer_extra_json] == [b'{"p":"abc"}']


def test_an_event_by_another_name_is_not_taken_for_it() -> None:
    assert decoded(of("openai", *PLAIN), learning=True, name="error")[1]
    both(of("openai", *PLAIN), name="chunk")


def test_text_completions() -> None:
    form = HEAD + b'"choices":[{"text":TEXT,"index":1,"logprobs":null,"finish_reason":null}]}'
    decoder: Any = FAMILY.completion_decoder(completion_pb2.CompleteRequest(model="asked"), UPSTREAM)
    response = completion_pb2.CompleteResponse()
    for text in (*PLAIN, b'"\\u00e4"', *PLAIN):
        decoder.feed(("", form.replace(TEXT, text)), response.chunks)
    assert decoder._template is not None  # noqa: SLF001
    assert [chunk.text for chunk in response.chunks if chunk.text] == [
        "one", " two", "three", "four", "ä", "one", " two", "three", "four",
    ]  # fmt: skip
    assert {chunk.choice for chunk in response.chunks if chunk.text} == {1}


def read(data: bytes) -> Plain | None:
    """As the long way does, for data that may be anything."""
    try:
        answer = json.loads(data)
        return answer["choices"][0]["delta"]["content"], answer.get("obfuscation", "").encode()
    except (ValueError, LookupError):
        return None


def test_a_template_is_made_of_what_it_can_prove() -> None:
    template = TextTemplate.of(of("padded", b'"a"')[0], 0, KEY, read)
    assert template is not None
    assert template.read(FORMS["padded"].replace(TEXT, b'"b"').replace(b"aB3", b"Zz")) == ("b", b"Zz")
    assert template.read(FORMS["openai"].replace(TEXT, b'"b"')) is None
    for form in ("the key in vain", "the key in a text"):
        assert (TextTemplate.of(of(form, b'"a"')[0], 0, KEY, read) is None) == (form == "the key in vain")
    elsewhere = b'{"choices":[{"delta":{"content":"a"}}],"x":{"content":"a"}}'
    assert TextTemplate.of(elsewhere, 0, KEY, read) is None
    nested = b'{"choices":[{"delta":{"content":"a","y":{"obfuscation":"p"}}}]}'
    assert TextTemplate.of(nested, 0, KEY, read) is None
