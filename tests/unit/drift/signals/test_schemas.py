"""Answers against clients' schemas: right where it is told, and never long."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from penstock_drift.signals.schemas import satisfies

TICKET = {
    "type": "object",
    "properties": {
        "class": {"enum": ["billing", "login", None]},
        "urgency": {"type": "integer", "minimum": 1, "maximum": 5},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "maxItems": 2},
    },
    "required": ["class"],
    "additionalProperties": False,
    "$defs": {"tag": {"type": "string", "minLength": 2, "maxLength": 4}},
}
TREE = {
    "properties": {"next": {"$ref": "#"}, "name": {"$ref": "#/$defs/a~1b%20c~0"}},
    "$defs": {"a/b c~": {"const": "leaf"}},
}
CHOICE = {
    "if": {"properties": {"kind": {"const": "card"}}, "required": ["kind"]},
    "then": {"required": ["number"]},
    "else": {"dependentRequired": {"iban": ["bank"]}},
}


@pytest.mark.parametrize(
    ("schema", "values"),
    [
        (
            TICKET,
            [
                {"class": "login", "urgency": 3, "tags": ["ab"]},
                {"class": None, "urgency": 3.0},
                {"class": "other"},
                {"urgency": 1},
                {"class": "login", "urgency": 6},
                {"class": "login", "urgency": True},
                {"class": "login", "more": 1},
                {"class": "login", "tags": ["a"]},
                {"class": "login", "tags": ["abcde"]},
                {"class": "login", "tags": ["ab", "ab", "ab"]},
                [],
                "login",
            ],
        ),
        (TREE, [{"next": {"next": {"name": "leaf"}}}, {"next": {"next": {"name": "twig"}}}, 1]),
        (
            CHOICE,
            [
                {"kind": "card", "number": 1},
                {"kind": "card"},
                {"iban": 1},
                {"iban": 1, "bank": 1},
            ],
        ),
        ({"type": ["number", "null"]}, [1, 1.5, None, True, "1"]),
        ({"const": 1}, [1, 1.0, True, "1", None]),
        ({"enum": [False, "a"]}, [0, False, "a"]),
        ({"multipleOf": 3}, [9, 10, 9.0, 9.5, "9"]),
        ({"multipleOf": 0.5}, [2, 2.5, 2.25]),
        ({"exclusiveMinimum": 1, "exclusiveMaximum": 2}, [1, 1.5, 2, "0"]),
        ({"minItems": 1, "maxItems": 2}, [[], [1], [1, 2, 3], "123"]),
        ({"minProperties": 1, "maxProperties": 2}, [{}, {"a": 1}, {"a": 1, "b": 1, "c": 1}]),
        ({"prefixItems": [{"type": "null"}], "items": False}, [[], [None], [1], [None, 1]]),
        ({"contains": {"const": 1}, "minContains": 2, "maxContains": 3}, [[1], [1, 1], [1] * 4]),
        ({"contains": {"const": 1}}, [[], [2, 1], [2]]),
        ({"propertyNames": {"maxLength": 2}}, [{"ab": 1}, {"abc": 1}]),
        ({"additionalProperties": {"type": "string"}}, [{"a": "b"}, {"a": 1}]),
        ({"allOf": [{"minimum": 1}, {"maximum": 2}]}, [0, 1, 3]),
        ({"anyOf": [{"minimum": 2}, {"maximum": 1}]}, [0, 1.5, 3]),
        ({"oneOf": [{"minimum": 1}, {"maximum": 2}]}, [0, 1, 3]),
        ({"not": {"type": "string"}}, ["a", 1]),
        ({"not": True}, [1]),
    ],
)
def test_what_is_looked_at_is_told_as_a_full_checker_tells_it(
    schema: dict[str, Any], values: list[Any]
) -> None:
    full = Draft202012Validator(schema)
    assert [satisfies(value, schema) for value in values] == [
        full.is_valid(value) for value in values
    ]


def nested(depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "object"}
    for _ in range(depth):
        found = {"allOf": [found], "unevaluatedProperties": False}
    return found


def doubling(depth: int) -> dict[str, Any]:
    links = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(depth)}
    return {"$ref": "#/$defs/d0", "$defs": {**links, f"d{depth}": {}}}


LONG = [{"words": "word " * 100}] * 100
ANCHORS = {f"d{n}": {"$anchor": f"a{n}"} for n in range(1000)}


@pytest.mark.parametrize(
    ("schema", "value", "told"),
    [
        ({"pattern": "^(a+)+$"}, "a" * 40 + "b", True),
        ({"patternProperties": {"^(a+)+$": {}}}, {"a" * 40 + "b": 1}, True),
        (
            {"patternProperties": {"^(a+)+$": {}}, "additionalProperties": False},
            {"a" * 40 + "b": 1},
            True,
        ),
        (nested(30), {"a": 1}, True),
        (doubling(30), 1, None),
        ({"uniqueItems": True}, [{"n": n} for n in range(1500)], True),
        ({"items": {"anyOf": [{"const": n} for n in range(2000)]}}, [1999] * 200, None),
        ({"items": {"enum": list(range(2000))}}, [1999] * 200, None),
        ({"allOf": [{"$ref": f"#a{n}"} for n in range(500)], "$defs": ANCHORS}, 1, None),
        ({"$ref": "#"}, 1, None),
        # Each of these fails, and a message with the whole value would be made for each.
        ({"anyOf": [{"type": "string"}] * 500}, LONG, None),
        ({"enum": [LONG] * 500}, LONG, True),
        # Many properties, of which the answer has two.
        ({"properties": {f"p{n}": {"type": "string"} for n in range(5000)}}, {"p1": 1}, False),
        ({"required": ["a"] * 30_000}, {"a": 1}, None),
        ({"$ref": "#/" + "a/" * 30_000}, 1, None),
    ],
)
def test_no_schema_takes_long(schema: dict[str, Any], value: Any, told: bool | None) -> None:
    began_s = time.process_time()
    assert satisfies(value, schema) is told
    # Some 20 ms. The full checker takes from half a second to for ever.
    assert time.process_time() - began_s < 0.4


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"$ref": "http://127.0.0.1:1/schema"}, 1),  # never fetched
        ({"$ref": "#/$defs/missing"}, 1),
        ({"$ref": "#/type/0", "type": "integer"}, 1),
        ({"type": "text"}, 1),
        ({"type": 3}, 1),
        ({"required": "name"}, {"n": 1}),
        ({"properties": ["name"]}, {"n": 1}),
        ({"items": [{}]}, [1]),
        ({"minimum": "1"}, 1),
        ({"multipleOf": 0}, 1),
        ({"multipleOf": json.loads("1e999")}, json.loads("[1e999]")[0]),
        ({"multipleOf": 0.5}, json.loads("[1e999]")[0]),
        ({"multipleOf": float("nan")}, 1),
        ({"multipleOf": 0.5}, 10**400),
        ({"items": {"items": 7}}, [[1]]),
    ],
)
def test_what_cannot_be_told_is_not_told(schema: dict[str, Any], value: Any) -> None:
    assert satisfies(value, schema) is None
