"""Members beside what the contract names, merged by their rules."""

from __future__ import annotations

import json

import pytest

from trestle.extras import Extras
from trestle.rawjson import join_object

MERGES: dict[str, tuple[list[str], str]] = {
    "the last wins": (['{"a":1,"b":2}', '{"a":3}'], '{"a":3,"b":2}'),
    "numbers as written": (['{"a":1.0}', '{"b":12345678901234567890}'], '{"a":1.0,"b":12345678901234567890}'),
    "objects are replaced": (['{"a":{"x":1}}', '{"a":{"y":2}}'], '{"a":{"y":2}}'),
    "annotations are concatenated": (['{"annotations":[1]}', '{"annotations":[2]}'], '{"annotations":[1,2]}'),
    "annotations of null are none": (
        ['{"annotations":null}', '{"annotations":[1]}', '{"annotations":null}'],
        '{"annotations":[1]}',
    ),
    "arrays are replaced": (['{"a":[1]}', '{"a":[2]}'], '{"a":[2]}'),
    "an empty array takes nothing away": (['{"a":[1]}', '{"a":[]}'], '{"a":[1]}'),
    "nor one of several": (
        ['{"d":[{"index":0}]}', '{"d":[{"index":1}]}', '{"d":[]}'],
        '{"d":[{"index":0},{"index":1}]}',
    ),
    "what follows an empty array stays as it came": (
        ['{"d":[]}', '{"d":[{"index":0,"text":"a"},{"index":0,"text":"b"}]}'],
        '{"d":[{"index":0,"text":"a"},{"index":0,"text":"b"}]}',
    ),
    "an empty array gives way": (['{"d":[]}', '{"d":[{"index":1}]}'], '{"d":[{"index":1}]}'),
    "annotations of three pieces": (
        ['{"annotations":[1]}', '{"annotations":[]}', '{"annotations":[2,3]}'],
        '{"annotations":[1,2,3]}',
    ),
    "what was merged gives way": (['{"d":[{"index":0}]}', '{"d":[{"index":1}]}', '{"d":[2]}'], '{"d":[2]}'),
    "and can be merged again": (
        ['{"d":[2]}', '{"d":[{"index":1}]}', '{"d":[{"index":2}]}'],
        '{"d":[{"index":1},{"index":2}]}',
    ),
    "what was merged is replaced": (['{"d":[{"index":0}]}', '{"d":[{"index":1}]}', '{"d":3}'], '{"d":3}'),
    "null takes away": (['{"a":[1]}', '{"a":null}'], '{"a":null}'),
    "by index, texts in pieces": (
        [
            '{"details":[{"index":0,"type":"t","text":"He"},{"index":1,"text":"a"}]}',
            '{"details":[{"index":0,"text":"llo","signature":null}]}',
            '{"details":[{"index":0,"signature":"s","id":1},{"index":2}]}',
        ],
        '{"details":[{"index":0,"type":"t","text":"Hello","signature":"s","id":1},{"index":1,"text":"a"},{"index":2}]}',
    ),
    "null does not unsay a member": (
        ['{"d":[{"index":0,"id":"x"}]}', '{"d":[{"index":0,"id":null}]}'],
        '{"d":[{"index":0,"id":"x"}]}',
    ),
    "a member said anew": (
        ['{"d":[{"index":0,"type":"a","n":null,"x":null}]}', '{"d":[{"index":0,"type":"b","n":1,"x":null}]}'],
        '{"d":[{"index":0,"type":"b","n":1,"x":null}]}',
    ),
    "no index, no merge": (['{"d":[{"text":"a"}]}', '{"d":[{"text":"b"}]}'], '{"d":[{"text":"b"}]}'),
    "not only objects": (['{"d":[{"index":0}]}', '{"d":[1]}'], '{"d":[1]}'),
    "escapes survive": (
        ['{"d":[{"index":0,"text":"a\\n\\ud83c\\udf89"}]}', '{"d":[{"index":0,"text":"\\"é"}]}'],
        '{"d":[{"index":0,"text":"a\\n🎉\\"é"}]}',
    ),
    "a pair of surrogates in two pieces": (
        ['{"d":[{"index":0,"text":"\\ud83c"}]}', '{"d":[{"index":0,"text":"\\udf89"}]}'],
        '{"d":[{"index":0,"text":"🎉"}]}',
    ),
    "a half that stays alone": (
        ['{"d":[{"index":0,"\\ud83c":0,"text":"\\ud83c"}]}', '{"d":[{"index":0,"text":"a"}]}'],
        '{"d":[{"index":0,"\\ud83c":0,"text":"\\ud83ca"}]}',
    ),
    "blanks": (['{ "a" : [ {"index" : 0, "text" : "a"} ] }', "\n{}\t"], '{"a":[{"index":0,"text":"a"}]}'),
    "what is no object is passed over": (['{"a":1}', "[1]", "{", "", "nul"], '{"a":1}'),
}


@pytest.mark.parametrize(("extras", "merged"), MERGES.values(), ids=MERGES.keys())
def test_merge(extras: list[str], merged: str) -> None:
    into = Extras()
    for extra in extras:
        into.feed(extra.encode())
    into.close()
    assert json.loads(join_object(into).encode(), parse_float=str) == json.loads(merged, parse_float=str)


def test_merge_survives_an_abyss() -> None:
    into = Extras()
    into.feed(b'{"a":1}')
    into.feed(b'{"b":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    assert into == {"a": "1"}


def test_it_goes_on_after_it_was_closed() -> None:
    into = Extras()
    assert not into
    for piece in "abc":
        into.feed(b'{"d":[{"index":0,"text":"%s"}],"x":1}' % piece.encode())
        into.close()
    assert into == {"d": '[{"index":0,"text":"abc"}]', "x": "1"}
