"""Judges the histories of a run: `python -m tests.chaos.checker DIR`. No import of penstock.

What was asked is what stands on `requests` in the end; what was answered is what stands on
`responses`, read committed. Everything else is held against the two.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos import history
from tests.chaos.history import Asked, At, Line, Lost, Response

SHOWN = 5


@dataclass
class Histories:
    """What a run left behind."""

    asked: dict[str, Asked] = field(default_factory=dict)
    responses: list[Response] = field(default_factory=list)
    probes: set[str] = field(default_factory=set)
    admitted: dict[str, list[At]] = field(default_factory=dict)
    request_ids: dict[str, str] = field(default_factory=dict)
    usage: list[Line] = field(default_factory=list)
    ledger: list[Line] = field(default_factory=list)
    dead: int = 0
    stuck: list[Lost] = field(default_factory=list)
    # Acknowledged by Kafka, or seen by a committed reader; and no more there in the end.
    vanished: list[str] = field(default_factory=list)


@dataclass
class Verdict:
    """What the checker found; every list names the requests or lines concerned.

    Attributes:
        requests: How many were asked.
        answered: How many have a terminal response.
        outcomes: How the responses ended.
        violations: What must never happen, by kind; all are there, mostly empty.
        dead: Records on the dlq.
        unmet: Terminal responses that are no answer: nothing was lost, but somebody was let down.
    """

    requests: int
    answered: int
    outcomes: dict[str, int]
    violations: dict[str, list[str]]
    dead: int
    unmet: list[str]

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not any(self.violations.values())


def read(home: Path) -> Histories:
    """Reads the histories of a run."""
    sent: dict[str, float] = {}
    stored: dict[tuple[int, int], str] = {}
    for line in history.lines(home / "sent.jsonl"):
        if line["event"] == "sent":
            sent.setdefault(line["id"], line["at"])
        elif line["event"] == "stored":
            stored[line["partition"], line["offset"]] = line["id"]
    found = Histories(ledger=history.ledger_lines(home / "ledger.sqlite"))
    there: set[tuple[str, int, int]] = set()
    for line in history.lines(home / "audit.jsonl"):
        place = (line["topic"], line["partition"], line["offset"])
        if place not in there:  # a record is known by where it stands
            there.add(place)
            _take(found, line, sent)
    found.stuck = [
        Lost(line["topic"], line["partition"], line["end"], line["stable"])
        for line in history.lines(home / "ends.jsonl")
        if line["end"] != line["stable"]
    ]
    found.vanished = [
        f"{id_} (requests-{partition} at {offset})"
        for (partition, offset), id_ in stored.items()
        if ("requests", partition, offset) not in there
    ]
    for line in history.lines(home / "seen.jsonl"):
        if (line["topic"], line["partition"], line["offset"]) not in there:
            found.vanished.append(f"{line['topic']}-{line['partition']} at {line['offset']}")
    return found


def _take(found: Histories, line: dict[str, object], sent: dict[str, float]) -> None:
    at = At(int(str(line["partition"])), int(str(line["offset"])))
    match line["topic"]:
        case "requests":
            body = json.loads(history.value_of(line))
            key = line["key"] if isinstance(line["key"], str) else None
            id_ = body["idempotency_key"]
            asked = Asked(id_, body["tenant"], key, at, sent.get(id_, 0.0))
            found.asked.setdefault(id_, asked)
        case "responses":
            response = history.response(line)
            if response.probe:
                found.probes.add(response.request_id)
            else:
                found.responses.append(response)
        case "admitted":
            request_id, id_ = history.admitted_ids(history.value_of(line))
            found.admitted.setdefault(request_id, []).append(at)
            found.request_ids[id_] = request_id
        case "usage":
            found.usage.append(history.usage_line(history.value_of(line)))
        case "dlq":
            found.dead += 1


def judge(found: Histories) -> Verdict:
    """Holds the histories against each other."""
    first: dict[str, Response] = {}
    doubled = []
    for response in sorted(found.responses, key=lambda each: each.at):
        if response.id in first:
            doubled.append(f"{response.id} at {first[response.id].at} and {response.at}")
        else:
            first[response.id] = response
    lost = [_lost(asked, found) for id_, asked in found.asked.items() if id_ not in first]
    violations = {
        "lost": lost,
        "duplicated": doubled,
        "reordered within a key": _reordered(found.asked, first.values()),
        "phantom": _phantoms(found),
        "admitted twice": [
            f"{id_} at {places}" for id_, places in found.admitted.items() if len(places) > 1
        ],
        **_ledger(found, [first[id_] for id_ in found.asked if id_ in first]),
        "vanished from Kafka": found.vanished,
        "partitions stuck for committed readers": [
            f"{each.topic}-{each.partition}: {each.stable} of {each.end}" for each in found.stuck
        ],
    }
    unmet = [
        f"{response.id}: {response.outcome}"
        for response in first.values()
        if response.outcome != "OUTCOME_ANSWERED"
    ]
    return Verdict(
        requests=len(found.asked),
        answered=len(found.asked.keys() & first.keys()),
        outcomes=dict(Counter(response.outcome for response in found.responses)),
        violations=violations,
        dead=found.dead,
        unmet=unmet,
    )


def _lost(asked: Asked, found: Histories) -> str:
    places = found.admitted.get(found.request_ids.get(asked.id, ""), [])
    admitted = "".join(f", admitted-{at.partition} at {at.offset}" for at in places)
    where = f"requests-{asked.at.partition} at {asked.at.offset}"
    return f"{asked.id} ({where}{admitted or ', not admitted'}, key {asked.key})"


def _reordered(asked: dict[str, Asked], responses: Iterable[Response]) -> list[str]:
    """Answers of a key that stand before one that was asked earlier."""
    last: dict[tuple[str, int], Asked] = {}
    found = []
    homes: defaultdict[str, set[int]] = defaultdict(set)
    for response in sorted(responses, key=lambda each: each.at):
        request = asked.get(response.id)
        if request is None or request.key is None:
            continue
        homes[request.key].add(response.at.partition)
        before = last.get((request.key, response.at.partition))
        if before is not None and before.at > request.at:
            found.append(f"{request.key}: {request.id} answered after {before.id}")
        last[request.key, response.at.partition] = request
    found += [f"{key} is on partitions {sorted(on)}" for key, on in homes.items() if len(on) > 1]
    return found


def _phantoms(found: Histories) -> list[str]:
    """Answers to nothing that was asked, or to another than they say."""
    phantoms = []
    names = found.probes | {response.request_id for response in found.responses}
    for response in found.responses:
        asked = found.asked.get(response.id)
        if asked is None:
            phantoms.append(f"{response.id or response.request_id} at {response.at}: not asked")
        elif response.tenant != asked.tenant or response.label != asked.id:
            phantoms.append(f"{response.id} at {response.at}: tenant or labels of another")
        elif asked.key is not None and response.key != asked.key:
            phantoms.append(f"{response.id} at {response.at}: key {response.key}")
    phantoms += [
        f"usage line {line.line_id} of a request without a response"
        for line in found.usage
        if line.request_id not in names and not line.probe
    ]
    return phantoms


def _ledger(found: Histories, responses: Iterable[Response]) -> dict[str, list[str]]:
    """The topic and the database against the answers."""
    answered = {r.request_id: r for r in responses if r.outcome == "OUTCOME_ANSWERED"}
    missing, double, wrong = [], [], []
    for name, kept in (("usage", found.usage), ("ledger", found.ledger)):
        lines: defaultdict[str, list[Line]] = defaultdict(list)
        for line in kept:
            lines[line.request_id].append(line)
        for id_, response in answered.items():
            if id_ not in lines:
                missing.append(f"{name}: {response.id} ({id_})")
        for id_, of in lines.items():
            if len(of) > 1:
                double.append(f"{name}: {id_} has {len(of)} lines")
            if id_ in answered and of[0].tokens != answered[id_].tokens:
                wrong.append(f"{name}: {id_} {of[0].tokens}, not {answered[id_].tokens}")
            if id_ in answered and of[0].tenant != answered[id_].tenant:
                wrong.append(f"{name}: {id_} is billed to {of[0].tenant}")
    return {
        "ledger lines missing": missing,
        "ledger lines double": double,
        "ledger lines wrong": wrong,
    }


def shown(verdict: Verdict, limit: int = SHOWN) -> Sequence[str]:
    """The verdict as lines, with the first few of each kind."""
    text = [f"requests {verdict.requests}, answered {verdict.answered}, dlq {verdict.dead}"]
    text.append(", ".join(f"{name} {n}" for name, n in sorted(verdict.outcomes.items())))
    for kind, names in verdict.violations.items():
        text.append(f"{kind}: {len(names)}")
        text += [f"    {name}" for name in names[:limit]]
    if verdict.unmet:
        text.append(f"not answered but ended otherwise: {len(verdict.unmet)}")
        text += [f"    {name}" for name in verdict.unmet[:limit]]
    return text


def main() -> None:
    """Judges a directory; exit code 1 when something was found."""
    verdict = judge(read(Path(sys.argv[1])))
    sys.stdout.write("\n".join(shown(verdict, limit=50)) + "\n")
    sys.exit(0 if verdict.clean else 1)


if __name__ == "__main__":
    main()
