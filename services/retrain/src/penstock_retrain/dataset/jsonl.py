"""OpenAI's fine-tuning files, line by line: supervised and preference examples. Pure.

SFT: `{"messages": [{"role": "user", "content": ...}, ..., {"role": "assistant", ...}]}`; the last
turn is the answer. Preference: `{"input": {"messages": [...]}, "preferred_output": [{"role":
"assistant", ...}], "non_preferred_output": [...]}`. As OpenAI's guides on supervised fine-tuning
and on direct preference optimisation have them. What only leads somewhere else is refused by name:
tools, pictures, weights of single turns.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

from penstock_retrain.dataset.errors import DatasetError
from penstock_retrain.dataset.examples import Example, Pool
from penstock_retrain.dataset.rows import Message

__all__ = ["MAX_FAULTS", "Fault", "Faults", "Form", "as_line", "parse_lines"]

ROLES = ("system", "developer", "user", "assistant")
MAX_FAULTS = 20


class Form(StrEnum):
    """What a line is."""

    SFT = "sft"
    PREFERENCE = "preference"


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a line.

    Attributes:
        line: Its number, from 1.
        field: As a path into the line's object; empty for the line itself.
        message: What is wrong, and what it must be. Holds no text of the line.
    """

    line: int
    field: str
    message: str

    def __str__(self) -> str:
        where = f"line {self.line}: {self.field}" if self.field else f"line {self.line}"
        return f"{where}: {self.message}"


class Faults(DatasetError):
    """A file has faults; at most `MAX_FAULTS` are named.

    Attributes:
        faults: The first ones.
        lines: How many lines have one.
    """

    def __init__(self, faults: Sequence[Fault], lines: int) -> None:
        self.faults = list(faults[:MAX_FAULTS])
        self.lines = lines
        shown = "\n".join(str(fault) for fault in self.faults)
        more = f"\n{lines} lines have faults" if lines > len({f.line for f in self.faults}) else ""
        super().__init__(shown + more)


def parse_lines(lines: Iterable[bytes], form: Form | None = None) -> list[Example]:
    """The examples of a file.

    Args:
        lines: Its lines, with or without their ends.
        form: What each has to be; None takes what the first one is.

    Raises:
        Faults: Names lines and fields; all lines are looked at.
    """
    faults: list[Fault] = []
    faulty = 0
    examples: dict[str, Example] = {}
    for number, line in enumerate(lines, start=1):
        check = _Line(number)
        body = check.parsed(line)
        if body is not None:
            form = form or (Form.PREFERENCE if "preferred_output" in body else Form.SFT)
            example = check.example(body, form)
            if example is not None and not check.faults:
                # A line that stands there twice says nothing new, and would count as leakage.
                examples.setdefault(example.id, example)
        faulty += bool(check.faults)
        faults += check.faults[: MAX_FAULTS - len(faults)]
    if faulty:
        raise Faults(faults, faulty)
    return list(examples.values())


def as_line(example: Example, form: Form) -> str | None:
    """An example as a line; None where the form cannot say it: a preference needs a rejected one.

    A prompt that is no conversation becomes a turn of the user.
    """
    turns = [_turn(m) for m in example.messages] or [_turn(Message("user", example.prompt))]
    answer = _turn(Message("assistant", example.target))
    body: dict[str, Any]
    if form is Form.SFT:
        body = {"messages": [*turns, answer]}
    elif example.rejected is None:
        return None
    else:
        body = {
            "input": {"messages": turns, "tools": [], "parallel_tool_calls": True},
            "preferred_output": [answer],
            "non_preferred_output": [_turn(Message("assistant", example.rejected))],
        }
    return json.dumps(body, ensure_ascii=False)


def _turn(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": message.content}


class _Line:
    """Checks one line, and collects what is wrong with it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.faults: list[Fault] = []

    def fault(self, field: str, message: str) -> None:
        self.faults.append(Fault(self.number, field, message))

    def parsed(self, line: bytes) -> dict[str, Any] | None:
        try:
            text = line.decode("utf-8-sig" if self.number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            self.fault("", f"byte {error.start} is no UTF-8; write the file as UTF-8")
            return None
        if not text.strip():
            self.fault("", "it is blank; remove it")
            return None
        try:
            # NaN is no JSON, though Python reads it.
            body = json.loads(text, parse_constant=_no_number)
        except RecursionError:
            self.fault("", "it is nested too deeply")
            return None
        except ValueError as error:
            column = getattr(error, "colno", 0)
            self.fault("", f"it is no JSON, at column {column}: one object on one line")
            return None
        if not isinstance(body, dict):
            self.fault("", "it is no JSON object")
            return None
        return body

    def example(self, body: Mapping[str, Any], form: Form) -> Example | None:
        return self._sft(body) if form is Form.SFT else self._preference(body)

    def _sft(self, body: Mapping[str, Any]) -> Example | None:
        self._known("", body, {"messages"})
        turns = self._turns("messages", body.get("messages"))
        if not turns:
            return None
        if turns[-1].role != "assistant":
            self.fault(f"messages[{len(turns) - 1}].role", "the last turn must be the assistant's")
            return None
        if not self._question("messages", turns[:-1]):
            return None
        return _example(turns[:-1], turns[-1].content, None)

    def _preference(self, body: Mapping[str, Any]) -> Example | None:
        self._known("", body, {"input", "preferred_output", "non_preferred_output"})
        given = body.get("input")
        if not isinstance(given, dict):
            self.fault("input", _must(given, "an object with messages"))
            return None
        self._known("input.", given, {"messages", "tools", "parallel_tool_calls"})
        if given.get("tools"):
            self.fault("input.tools", "tools are not supported; leave them out")
        turns = self._turns("input.messages", given.get("messages"))
        preferred = self._output("preferred_output", body.get("preferred_output"))
        rejected = self._output("non_preferred_output", body.get("non_preferred_output"))
        if not turns or preferred is None or rejected is None:
            return None
        if preferred == rejected:
            self.fault("non_preferred_output", "it is the preferred one again")
            return None
        if not self._question("input.messages", turns):
            return None
        return _example(turns, preferred, rejected)

    def _output(self, field: str, value: Any) -> str | None:
        turns = self._turns(field, value)
        if not turns:
            return None
        if len(turns) != 1 or turns[0].role != "assistant":
            self.fault(field, "it must be one turn of the assistant")
            return None
        return turns[0].content

    def _question(self, field: str, turns: Sequence[Message]) -> bool:
        if any(turn.role == "user" for turn in turns):
            return True
        self.fault(field, "there must be a turn of the user before the answer")
        return False

    def _turns(self, field: str, value: Any) -> list[Message]:
        """The turns; empty where any has a fault."""
        if not isinstance(value, list) or not value:
            self.fault(field, _must(value, "a list of turns"))
            return []
        found = [self._message(f"{field}[{index}]", each) for index, each in enumerate(value)]
        whole = [turn for turn in found if turn is not None]
        return whole if len(whole) == len(found) else []

    def _message(self, field: str, value: Any) -> Message | None:
        if not isinstance(value, dict):
            self.fault(field, _must(value, "an object with role and content"))
            return None
        before = len(self.faults)
        self._known(f"{field}.", value, {"role", "content", "name", "weight"})
        role, content = value.get("role"), value.get("content")
        if role not in ROLES:
            self.fault(f"{field}.role", f"it must be one of {', '.join(ROLES)}")
        if not isinstance(content, str):
            self.fault(f"{field}.content", _must(content, "a text"))
        elif role in ("user", "assistant") and not content.strip():
            self.fault(f"{field}.content", "it is blank")
        elif not _whole(content):
            self.fault(f"{field}.content", "it has half a character, an escape without its pair")
        if value.get("weight", 1) not in (1, True):
            self.fault(f"{field}.weight", "turns without weight are not supported; leave it out")
        if len(self.faults) > before:
            return None
        # OpenAI's newer name for the same turn.
        return Message("system" if role == "developer" else str(role), str(content))

    def _known(self, path: str, value: Mapping[str, Any], names: set[str]) -> None:
        for name in value:
            if name not in names:
                shown = name if len(name) <= 40 and name.isidentifier() else "a field"
                expected = ", ".join(sorted(names))
                self.fault(f"{path}{shown}", f"it is not supported here; there are {expected}")


def _example(turns: Sequence[Message], target: str, rejected: str | None) -> Example:
    question = json.dumps([[m.role, m.content] for m in turns], ensure_ascii=False)
    # Rows of one question must not be split: another answer to it is leakage.
    group = hashlib.sha256(question.encode()).hexdigest()[:32]
    whole = json.dumps([question, target, rejected], ensure_ascii=False)
    return Example(
        id=f"row-{hashlib.sha256(whole.encode()).hexdigest()[:32]}",
        group=f"imported/{group}",
        messages=tuple(turns),
        prompt="",
        target=target,
        rejected=rejected,
        label_source=Pool.IMPORTED.value,
        labels={},
        time_ms=0,
        pool=Pool.IMPORTED,
    )


def _must(value: Any, what: str) -> str:
    return f"it is missing; it must be {what}" if value is None else f"it must be {what}"


def _whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _no_number(_: str) -> Iterator[None]:
    raise ValueError("not a number")
