"""Whether a JSON value satisfies a client's JSON Schema (2020-12), in bounded time. Pure.

Schemas are the clients', and a few lines of one can keep a full checker busy for ever: patterns,
references that double, `uniqueItems`. So only rules that are quick are looked at, and each takes
its part of a budget. The budget counts work and not time: the same answer always gives the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

__all__ = ["BUDGET", "satisfies"]

# Rules of one check, and entries of what they walk: some 20 ms.
BUDGET = 20_000
# Schemas within schemas. Far below the interpreter's own bound, which depends on the caller.
MAX_DEPTH = 100


def satisfies(value: Any, schema: Mapping[str, Any]) -> bool | None:
    """Whether a JSON value satisfies a schema; None where that cannot be told.

    Nothing is told where a rule that is looked at is malformed, a reference leads out of the
    schema, or the check takes more than `BUDGET`. Rules that are not in `_RULES`, patterns among
    them, are passed over; so are `enum` and `const` of a list or an object.
    """
    try:
        return _Check(schema).accepts(schema, value)
    except Exception:  # noqa: BLE001 - the schema and the answer are strangers', and so is every error
        # Whatever they make fail (infinite multiples, references into a text) is no reason to
        # stop at the record: its other signals are as good as ever.
        return None


class _GivenUp(Exception):
    """The check takes too long, or the schema is none."""


class _Check:
    """One check: the schema that references point into, and what is left of the budget."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._left = BUDGET
        self._depth = 0

    def accepts(self, schema: Any, value: Any) -> bool:
        """Whether a value satisfies the root or a schema within it."""
        self.spend(1)
        if isinstance(schema, bool):
            return schema
        self._depth += 1
        if self._depth > MAX_DEPTH or not isinstance(schema, dict):
            raise _GivenUp
        # In the order of the rules: a schema's own order may be lost on its way.
        accepted = all(
            self._holds(keyword, schema, value) for keyword in _RULES if keyword in schema
        )
        self._depth -= 1
        return accepted

    def spend(self, work: int) -> None:
        """Takes from the budget."""
        self._left -= work
        if self._left < 0:
            raise _GivenUp

    def find(self, reference: str) -> Any:
        """What a reference of the form `#` or `#/...` points to."""
        if reference == "#":
            return self._root
        if not reference.startswith("#/"):
            raise _GivenUp
        found = self._root
        for part in unquote(reference[2:]).split("/"):
            name = part.replace("~1", "/").replace("~0", "~")
            found = found[int(name)] if isinstance(found, list) else found[name]
        return found

    def _holds(self, keyword: str, schema: dict[str, Any], value: Any) -> bool:
        types, rule = _RULES[keyword]
        wanted = schema[keyword]
        if not isinstance(wanted, types):
            raise _GivenUp
        self.spend(1 + _size(wanted) + (0 if isinstance(value, str) else _size(value)))
        return rule(self, wanted, value, schema)


def _size(walked: Any) -> int:
    return len(walked) if isinstance(walked, dict | list | str) else 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_integer(value: Any) -> bool:
    return _is_number(value) and (isinstance(value, int) or value.is_integer())


_TYPES: dict[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": _is_integer,
    "number": _is_number,
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}

# A rule: the check, what the schema asks for, the value, the schema that the rule stands in.
_Rule = Callable[[_Check, Any, Any, dict[str, Any]], bool]


def _type(check: _Check, wanted: Any, value: Any, schema: dict[str, Any]) -> bool:
    del check, schema
    return any(_TYPES[name](value) for name in ([wanted] if isinstance(wanted, str) else wanted))


def _equal(value: Any, other: Any) -> bool:
    # To Python true is 1.
    return isinstance(value, bool) is isinstance(other, bool) and bool(value == other)


def _enum(check: _Check, wanted: Any, value: Any, schema: dict[str, Any]) -> bool:
    del check, schema
    # Comparing what is nested takes as long as it is large, for each of the choices.
    return isinstance(value, dict | list) or any(_equal(value, each) for each in wanted)


def _const(check: _Check, wanted: Any, value: Any, schema: dict[str, Any]) -> bool:
    return _enum(check, [wanted], value, schema)


def _multiple_of(check: _Check, wanted: Any, value: Any, schema: dict[str, Any]) -> bool:
    del check, schema
    if not _is_number(value):
        return True
    if isinstance(wanted, float):
        # 0.3 % 0.1 is not 0, and 4.5 % 0.1 neither; the quotient is nearer to what is meant.
        quotient = value / wanted
        return bool(int(quotient) == quotient)
    return bool(value % wanted == 0)


def _bound(
    holds: Callable[[Any, Any], bool],
    concerns: Callable[[Any], bool],
    measure: Callable[[Any], Any] = lambda value: value,
) -> _Rule:
    """A rule that compares a measure of the values that it concerns with the schema's number."""

    def rule(check: _Check, wanted: Any, value: Any, schema: dict[str, Any]) -> bool:
        del check, schema
        return not concerns(value) or holds(measure(value), wanted)

    return rule


def _at_least(found: Any, wanted: Any) -> bool:
    return bool(found >= wanted)


def _at_most(found: Any, wanted: Any) -> bool:
    return bool(found <= wanted)


def _required(check: _Check, wanted: Any, value: Any, schema: dict[str, Any]) -> bool:
    del check, schema
    return not isinstance(value, dict) or all(name in value for name in wanted)


def _dependent_required(check: _Check, wanted: Any, value: Any, schema: dict[str, Any]) -> bool:
    if not isinstance(value, dict):
        return True
    for name in value:
        if name in wanted:
            check.spend(_size(wanted[name]))
            if not _required(check, wanted[name], value, schema):
                return False
    return True


def _properties(check: _Check, wanted: Any, value: Any, schema: dict[str, Any]) -> bool:
    del schema
    return not isinstance(value, dict) or all(
        check.accepts(wanted[name], each) for name, each in value.items() if name in wanted
    )


def _additional_properties(check: _Check, wanted: Any, value: Any, schema: dict[str, Any]) -> bool:
    # Which ones are additional beside patterns, only the patterns could tell.
    if not isinstance(value, dict) or "patternProperties" in schema:
        return True
    known = schema.get("properties", {})
    return all(check.accepts(wanted, each) for name, each in value.items() if name not in known)


def _property_names(check: _Check, wanted: Any, value: Any, schema: dict[str, Any]) -> bool:
    del schema
    return not isinstance(value, dict) or all(check.accepts(wanted, name) for name in value)


def _prefix_items(check: _Check, wanted: Any, value: Any, schema: dict[str, Any]) -> bool:
    del schema
    return not isinstance(value, list) or all(
        check.accepts(item, each) for item, each in zip(wanted, value, strict=False)
    )


def _items(check: _Check, wanted: Any, value: Any, schema: dict[str, Any]) -> bool:
    if not isinstance(value, list):
        return True
    return all(check.accepts(wanted, each) for each in value[len(schema.get("prefixItems", ())) :])


def _contains(check: _Check, wanted: Any, value: Any, schema: dict[str, Any]) -> bool:
    if not isinstance(value, list):
        return True
    found = sum(check.accepts(wanted, each) for each in value)
    least, most = schema.get("minContains", 1), schema.get("maxContains", found)
    return bool(least <= found <= most)


def _all_of(check: _Check, wanted: Any, value: Any, schema: dict[str, Any]) -> bool:
    del schema
    return all(check.accepts(each, value) for each in wanted)


def _any_of(check: _Check, wanted: Any, value: Any, schema: dict[str, Any]) -> bool:
    del schema
    return any(check.accepts(each, value) for each in wanted)


def _one_of(check: _Check, wanted: Any, value: Any, schema: dict[str, Any]) -> bool:
    del schema
    return sum(check.accepts(each, value) for each in wanted) == 1


def _not(check: _Check, wanted: Any, value: Any, schema: dict[str, Any]) -> bool:
    del schema
    return not check.accepts(wanted, value)


def _if(check: _Check, wanted: Any, value: Any, schema: dict[str, Any]) -> bool:
    branch = "then" if check.accepts(wanted, value) else "else"
    return check.accepts(schema.get(branch, True), value)


def _ref(check: _Check, wanted: Any, value: Any, schema: dict[str, Any]) -> bool:
    del schema
    return check.accepts(check.find(wanted), value)


_NUMBER, _SCHEMA = (int, float), (dict, bool)
_is_text, _is_list, _is_object = (_TYPES[name] for name in ("string", "array", "object"))

# What is looked at: what the schema has to ask with, and the rule.
_RULES: dict[str, tuple[type | tuple[type, ...], _Rule]] = {
    "type": ((str, list), _type),
    "enum": (list, _enum),
    "const": (object, _const),
    "multipleOf": (_NUMBER, _multiple_of),
    "minimum": (_NUMBER, _bound(_at_least, _is_number)),
    "maximum": (_NUMBER, _bound(_at_most, _is_number)),
    "exclusiveMinimum": (_NUMBER, _bound(lambda found, least: found > least, _is_number)),
    "exclusiveMaximum": (_NUMBER, _bound(lambda found, most: found < most, _is_number)),
    "minLength": (_NUMBER, _bound(_at_least, _is_text, len)),
    "maxLength": (_NUMBER, _bound(_at_most, _is_text, len)),
    "minItems": (_NUMBER, _bound(_at_least, _is_list, len)),
    "maxItems": (_NUMBER, _bound(_at_most, _is_list, len)),
    "minProperties": (_NUMBER, _bound(_at_least, _is_object, len)),
    "maxProperties": (_NUMBER, _bound(_at_most, _is_object, len)),
    "required": (list, _required),
    "dependentRequired": (dict, _dependent_required),
    "properties": (dict, _properties),
    "additionalProperties": (_SCHEMA, _additional_properties),
    "propertyNames": (_SCHEMA, _property_names),
    "prefixItems": (list, _prefix_items),
    "items": (_SCHEMA, _items),
    "contains": (_SCHEMA, _contains),
    "allOf": (list, _all_of),
    "anyOf": (list, _any_of),
    "oneOf": (list, _one_of),
    "not": (_SCHEMA, _not),
    "if": (_SCHEMA, _if),
    "$ref": (str, _ref),
}
