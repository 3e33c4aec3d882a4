"""Suites and their examples from files. Blocks; every fault is named with file, line and field."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from penstock.jsonlines import split_lines
from penstock_retrain.dataset.rows import Message
from penstock_retrain.gates.errors import SuiteError
from penstock_retrain.gates.examples import Example
from penstock_retrain.gates.loaded import LoadedSuite
from penstock_retrain.gates.metrics.json_valid import JsonSchema
from penstock_retrain.gates.metrics.parsing import parsed
from penstock_retrain.gates.suite import FIELDS, Source, Suite, faults_of
from penstock_retrain.gates.variants import varied

__all__ = ["DEFAULT", "load_suite", "parse_suite"]

# The suite of a policy that names none.
DEFAULT = "default"
MAX_FAULTS = 20


def load_suite(path: Path | str, dataset: Path | None = None) -> LoadedSuite:
    """Reads a suite and makes its examples.

    Args:
        path: A YAML file, or `default`.
        dataset: A job's dataset, for suites whose examples are of one.

    Raises:
        SuiteError: Something is not as it must be.
    """
    name = str(path)
    if name == DEFAULT:
        packaged = resources.files(__package__) / "default_suite.yaml"
        suite, folder = parse_suite(packaged.read_text(encoding="utf-8"), name), Path()
    else:
        suite, folder = parse_suite(_text(Path(path)), name), Path(path).parent
    originals = _originals(name, suite, folder, dataset)
    if not originals:
        raise SuiteError(f"{name}: examples: there are none; a gate without any shows nothing")
    examples = [*originals]
    for variant in suite.variants:
        examples += varied(variant, originals)
    described = [suite.model_dump(mode="json"), [dataclasses.asdict(each) for each in examples]]
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    return LoadedSuite(suite, tuple(examples), digest)


def parse_suite(text: str, name: str) -> Suite:
    """A suite's document.

    Args:
        text: YAML.
        name: The file's, for errors.

    Raises:
        SuiteError: It is none; a line per fault.
    """
    try:
        node = yaml.compose(text)
        written = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SuiteError(f"{name}:{line}: no YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise SuiteError(f"{name}: no YAML: {error}") from None
    if not isinstance(written, dict) or node is None:
        raise SuiteError(f"{name}:1: no suite: begin with `suite: NAME`; see docs/gates.md")
    try:
        suite = Suite.model_validate(written)
    except ValidationError as error:
        found = [(each["loc"], _message(each)) for each in error.errors()]
        raise SuiteError(_told(name, node, found)) from None
    faults = list(faults_of(suite))
    if faults:
        raise SuiteError(_told(name, node, faults))
    return suite


def _originals(name: str, suite: Suite, folder: Path, dataset: Path | None) -> list[Example]:
    source = suite.examples
    if source.split:
        if dataset is None:
            raise SuiteError(
                f"{name}: examples.split: it takes a dataset's rows; name one with --dataset"
            )
        found = _of_dataset(dataset, source)
    else:
        found = _of_lines(folder / source.file, source)
    if suite.schema_ is None:
        return found
    return [dataclasses.replace(e, schema=e.schema or suite.schema_) for e in found]


def _of_dataset(path: Path, source: Source) -> list[Example]:
    # pyarrow takes a while to load, and suites of files have no use for it.
    from penstock_retrain.dataset.errors import DatasetError
    from penstock_retrain.dataset.examples import Split
    from penstock_retrain.dataset.writing import read_split

    try:
        rows = list(read_split(path, Split(source.split)))
    except DatasetError as error:
        raise SuiteError(f"{error}; make the dataset again, or name another") from error
    return [
        Example(
            id=row.id,
            messages=row.messages,
            prompt=row.prompt,
            expected=_expected(row.target),
            labels={**row.labels, "pool": row.pool.value},
            origin=row.id,
        )
        for row in rows[: source.count]
    ]


def _of_lines(path: Path, source: Source) -> list[Example]:
    faults: list[str] = []
    found: dict[str, Example] = {}
    for number, line in enumerate(split_lines(_text(path)), start=1):
        if source.count is not None and len(found) >= source.count:
            break
        try:
            example = _line(line, number, source.fields).example(number)
        except ValidationError as error:
            faults += [f"{path}:{number}: {_field(each)}" for each in error.errors()]
        except ValueError as error:
            faults.append(f"{path}:{number}: {error}")
        else:
            if example.id in found:
                faults.append(f"{path}:{number}: id: an earlier line has the same; ids are unique")
            found[example.id] = example
        if len(faults) >= MAX_FAULTS:
            break
    if faults:
        raise SuiteError("\n".join(faults[:MAX_FAULTS]))
    return list(found.values())


class _Turn(BaseModel):
    model_config = ConfigDict(extra="forbid")
    role: str = Field(pattern="^(system|user|assistant|tool)$")
    content: str


class _Line(BaseModel):
    """A line of a file of examples."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    id: str = ""
    text: str = ""
    messages: tuple[_Turn, ...] = ()
    prompt: str = ""
    expected: Any = None
    schema_: JsonSchema | None = Field(default=None, alias="schema")
    forbidden: tuple[str, ...] = ()
    labels: Mapping[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_question(self) -> _Line:
        if sum(map(bool, (self.text, self.messages, self.prompt))) != 1:
            raise ValueError("name one of text (a user's turn), messages and prompt")
        if not all(self.forbidden):
            raise ValueError("forbidden: an empty text stands in every answer; remove it")
        return self

    def example(self, number: int) -> Example:
        turns = tuple(Message(turn.role, turn.content) for turn in self.messages)
        name = self.id or f"line-{number}"
        return Example(
            id=name,
            messages=(Message("user", self.text),) if self.text else turns,
            prompt=self.prompt,
            expected=self.expected,
            schema=self.schema_,
            forbidden=self.forbidden,
            labels=self.labels,
            origin=name,
        )


def _line(line: str, number: int, fields: Mapping[str, str]) -> _Line:
    try:
        body = json.loads(line)
    except ValueError as error:
        raise ValueError(f"it is no JSON, at column {getattr(error, 'colno', 1)}") from None
    if not isinstance(body, dict):
        raise ValueError("it is no JSON object")
    if fields:
        missing = [theirs for theirs in fields.values() if theirs not in body]
        if missing:
            raise ValueError(f"{missing[0]}: it is missing; examples.fields names it")
        theirs = {ours: fields.get(ours, ours) for ours in FIELDS}
        body = {ours: body[name] for ours, name in theirs.items() if name in body}
    return _Line.model_validate(body)


def _expected(target: str) -> Any:
    """A dataset's target: an object where it is one, so that slices can name its fields."""
    found = parsed(target)
    return found if isinstance(found, dict) else target


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SuiteError(f"{path} cannot be read: {error}") from None


def _field(error: Any) -> str:
    field = ".".join(map(str, error["loc"]))
    return f"{field}: {_message(error)}" if field else _message(error)


def _message(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "it is not known; remove it, or see docs/gates.md"
    if error["type"] == "missing":
        return "it is missing"
    return str(error["msg"]).removeprefix("Value error, ")


def _told(name: str, node: yaml.Node, faults: Sequence[tuple[Any, str]]) -> str:
    lines = []
    for location, message in faults[:MAX_FAULTS]:
        line = _line_of(node, iter(location))
        field = ".".join(str(part) for part in location)
        lines.append(f"{name}:{line}: {field}: {message}" if field else f"{name}:{line}: {message}")
    return "\n".join(lines)


def _line_of(node: yaml.Node, path: Iterator[int | str]) -> int:
    """The line of the deepest part of a path that the document has."""
    line = node.start_mark.line + 1
    for part in path:
        found: yaml.Node | None = None
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(part):
                    line, found = key.start_mark.line + 1, value
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            found = node.value[part]
            line = found.start_mark.line + 1
        if found is None:
            return line
        node = found
    return line
