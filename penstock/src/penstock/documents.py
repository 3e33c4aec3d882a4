"""YAML documents that people write: what is wrong with one, a line for each fault. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import yaml
from pydantic import ValidationError

__all__ = ["DocumentError", "fault_lines", "read_mapping"]


class DocumentError(ValueError):
    """A text is no document of the kind that is wanted; says where, and what to write."""


def read_mapping(text: str, wanted: str) -> dict[str, Any]:
    """The fields of a document; none where it is empty.

    Args:
        text: YAML.
        wanted: What to write instead of something that has no fields.

    Raises:
        DocumentError: It is no YAML, or has no fields.
    """
    try:
        found = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise DocumentError(f"no YAML: {line}{error.problem}") from None
    except yaml.YAMLError as error:
        raise DocumentError(f"no YAML: {error}") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise DocumentError(wanted)
    return found


def fault_lines(
    error: ValidationError,
    names: Callable[[Sequence[str]], Iterable[str]],
    *,
    below: str = "",
    whole: str = "policy",
) -> Iterator[str]:
    """One line for each fault that pydantic found: the field, what is wrong, what it holds.

    Args:
        error: What it raised.
        names: The fields that there are below a path; the nearest is proposed for an unknown one.
        below: The section that was validated.
        whole: What the document is called where no field is to blame.
    """
    for each in error.errors():
        path = [str(part) for part in each["loc"]]
        field = ".".join([below, *path] if below else path) or whole
        if each["type"] == "extra_forbidden":
            close = difflib.get_close_matches(path[-1], list(names(path[:-1])), n=1)
            yield f"{field}: not known; " + (f"did you mean {close[0]}?" if close else "remove it")
        elif each["type"] == "missing":
            yield f"{field}: missing; add it"
        else:
            given = each["input"]
            shown = f" (it is {given!r})" if isinstance(given, str | int | float) else ""
            yield f"{field}: {each['msg'].removeprefix('Value error, ')}{shown}"
