"""What people are told of a YAML document that is not what it has to be."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from penstock.documents import DocumentError, fault_lines, read_mapping


class Oven(BaseModel):
    model_config = ConfigDict(extra="forbid")

    degrees: int = Field(ge=0)
    fan: bool = False


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1\nb: 2", "no YAML: line 2: "),
        ("a: \x00", "no YAML: "),
        ("- 1", "write fields"),
        ("word", "write fields"),
    ],
)
def test_what_is_no_mapping_says_so(text: str, said: str) -> None:
    with pytest.raises(DocumentError, match=said):
        read_mapping(text, "write fields")


def test_an_empty_document_has_no_fields() -> None:
    assert read_mapping("# nothing yet\n", "write fields") == {}
    assert read_mapping("degrees: 180", "write fields") == {"degrees": 180}


@pytest.mark.parametrize(
    ("written", "line"),
    [
        ({}, "oven.degrees: missing; add it"),
        ({"degrees": 1, "fann": True}, "oven.fann: not known; did you mean fan?"),
        ({"degrees": 1, "colour": "red"}, "oven.colour: not known; remove it"),
        ({"degrees": -1}, "oven.degrees: Input should be greater than or equal to 0 (it is -1)"),
    ],
)
def test_each_fault_names_its_field_and_the_remedy(written: dict[str, object], line: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Oven.model_validate(written)
    assert list(fault_lines(caught.value, lambda _: Oven.model_fields, below="oven")) == [line]
