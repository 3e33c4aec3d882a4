"""Whether an answer is JSON of the form that was asked for."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator

from penstock_retrain.gates.examples import Answer, Example
from penstock_retrain.gates.metrics.parsing import parsed

__all__ = ["JsonSchema", "JsonValid"]


@dataclasses.dataclass(frozen=True)
class JsonValid:
    """The whole answer is one JSON value, and satisfies the example's schema where it has one."""

    name: ClassVar[str] = "json_valid"

    def score(self, example: Example, answer: Answer) -> float | None:
        """See `Metric`; says nothing where neither a schema nor an object is expected."""
        expected = parsed(example.expected) if isinstance(example.expected, str) else None
        wanted = expected if expected is not None else example.expected
        if example.schema is None and not isinstance(wanted, dict | list):
            return None
        found = parsed(answer.text)
        if found is None:
            return 0.0
        if example.schema is None:
            return float(type(found) is type(wanted))
        return float(_checker(json.dumps(example.schema, sort_keys=True)).is_valid(found))


def _check_schema(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    # Takes a while to load, and most suites have no schema.
    from jsonschema import Draft202012Validator, SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"it is no JSON Schema: {error.message}") from None
    return schema


# As a field of a document: what no answer could be held against is refused with it.
JsonSchema = Annotated[Mapping[str, Any], AfterValidator(_check_schema)]


@functools.lru_cache(maxsize=64)
def _checker(schema: str) -> Any:
    # Takes a while to load, and most suites have no schema.
    from jsonschema import Draft202012Validator

    return Draft202012Validator(json.loads(schema))
