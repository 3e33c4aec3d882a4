"""From candidates to the rows of a dataset, by a policy; each row left out is counted. Pure.

prepare: labels, personal data, near-duplicates
(a teacher is asked for what nobody labelled)
finish:  length, splits, balance, shares of the pools, the most rows
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from penstock.personal_data import has_personal_data, redact
from penstock_retrain.dataset.balance import class_of, most_per_class
from penstock_retrain.dataset.duplicates import duplicates_of
from penstock_retrain.dataset.examples import Candidate, Example, LeftOut, Pool, Split, Tally
from penstock_retrain.dataset.labels import Labelled, label_of
from penstock_retrain.dataset.policy import DatasetPolicy, PersonalData
from penstock_retrain.dataset.rows import CUT_OFF, Message, RequestRow
from penstock_retrain.dataset.splits import priority, split_of

__all__ = ["Window", "finish", "prepare"]


@dataclasses.dataclass(frozen=True)
class Window:
    """Which time a dataset is about, in milliseconds since 1970.

    Attributes:
        since_ms: Nothing older.
        recent_ms: From here on rows are recent; before, replay.
        until_ms: Nothing from here on.
        drifted: Segments that drifted, as `label=value`; `label=` of what lacks the label.
    """

    since_ms: int
    recent_ms: int
    until_ms: int
    drifted: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        policy: DatasetPolicy,
        until_ms: int,
        *,
        onset_ms: int | None = None,
        drifted: Iterable[str] = (),
    ) -> Window:
        """The window that ends at an instant; what was before a drift's onset is not recent."""
        recent_ms = until_ms - round(policy.recent_s * 1000)
        if onset_ms is not None:
            recent_ms = min(max(recent_ms, onset_ms), until_ms)
        horizon_ms = until_ms - round(policy.replay.horizon_s * 1000)
        since_ms = min(recent_ms, horizon_ms) if policy.replay.share > 0 else recent_ms
        # All traffic, the empty segment, singles nobody out.
        return cls(since_ms, recent_ms, until_ms, frozenset(filter(None, drifted)))

    def pool(self, time_ms: int, labels: Mapping[str, str]) -> Pool:
        """Why a row of that time would be taken."""
        if time_ms < self.recent_ms:
            return Pool.REPLAY
        for segment in self.drifted:
            name, _, value = segment.partition("=")
            if labels.get(name, "") == value:
                return Pool.DRIFTED
        return Pool.RECENT


def prepare(
    candidates: Iterable[Candidate], policy: DatasetPolicy, window: Window, tally: Tally
) -> list[Example]:
    """Labelled rows without personal data and near-duplicates, in a fixed order.

    Rows that a teacher is to label have an empty target.
    """
    clean: list[Example] = []
    questions: dict[str, str] = {}
    for candidate in candidates:
        example = _example(candidate, policy, window, tally)
        cleaned = None if example is None else _clean(example, policy, tally)
        if cleaned is not None:
            clean.append(cleaned)
            questions[cleaned.id] = candidate.question
    # Of two that are alike the labelled one stays, and of those the newer: what was right may have
    # changed.
    clean.sort(key=lambda e: (not e.target, -e.time_ms, e.id))
    return _teachable(_distinct(clean, questions, policy, tally), policy, tally)


def finish(
    examples: Sequence[Example], policy: DatasetPolicy, tally: Tally
) -> Mapping[Split, Sequence[Example]]:
    """The rows of each split, by id."""
    labelled = [e for e in examples if e.target]
    tally.add(LeftOut.UNTAUGHT, len(examples) - len(labelled))
    fitting = [e for e in labelled if e.chars <= policy.max_chars]
    tally.add(LeftOut.TOO_LONG, len(labelled) - len(fitting))
    ordered = sorted(fitting, key=lambda e: (priority(e.id, policy.seed), e.id))
    chosen = _composed(_balanced(ordered, policy, tally), policy, tally)
    splits: dict[Split, list[Example]] = {split: [] for split in Split}
    for example in sorted(chosen, key=lambda e: e.id):
        splits[split_of(example.group, policy.split)].append(example)
    return splits


def _example(
    candidate: Candidate, policy: DatasetPolicy, window: Window, tally: Tally
) -> Example | None:
    request, response = candidate.request, candidate.response
    cut_off = response.finish == CUT_OFF
    labelled = label_of(response.text, candidate.feedback, policy, cut_off=cut_off)
    if not isinstance(labelled, Labelled):
        tally.add(labelled)
        return None
    return Example(
        id=request.request_id,
        group=candidate.group,
        messages=_with_passages(request),
        prompt="" if request.passages else request.prompt,
        target=labelled.target,
        rejected=labelled.rejected,
        label_source=labelled.source.value,
        labels=request.labels,
        time_ms=response.time_ms,
        pool=window.pool(response.time_ms, response.labels or request.labels),
        sources=candidate.sources,
    )


def _with_passages(request: RequestRow) -> tuple[Message, ...]:
    """The conversation as the engine renders it: passages before the last turn of the user."""
    turns = list(request.messages)
    if request.passages:
        turns = turns or [Message("user", request.prompt)]
        last_user = max((i for i, turn in enumerate(turns) if turn.role == "user"), default=0)
        rendered = "\n\n".join(f"[{each.name}] {each.text}" for each in request.passages)
        turns.insert(last_user, Message("system", rendered))
    return tuple(turns)


def _clean(example: Example, policy: DatasetPolicy, tally: Tally) -> Example | None:
    texts = (example.prompt, example.target, example.rejected or "")
    said = itertools.chain(texts, (m.content for m in example.messages), example.labels.values())
    if not any(has_personal_data(text) for text in said):
        return example
    if policy.personal_data is PersonalData.DROP:
        tally.add(LeftOut.PERSONAL_DATA)
        return None
    return dataclasses.replace(
        example,
        messages=tuple(Message(m.role, redact(m.content)) for m in example.messages),
        prompt=redact(example.prompt),
        target=redact(example.target),
        rejected=None if example.rejected is None else redact(example.rejected),
        labels={name: redact(value) for name, value in example.labels.items()},
    )


def _distinct(
    examples: list[Example], questions: Mapping[str, str], policy: DatasetPolicy, tally: Tally
) -> list[Example]:
    if policy.near_duplicates is None:
        return examples
    same = duplicates_of([questions[e.id] for e in examples], policy.near_duplicates)
    kept = [e for e, other in zip(examples, same, strict=True) if other is None]
    tally.add(LeftOut.NEAR_DUPLICATE, len(examples) - len(kept))
    return kept


def _teachable(examples: list[Example], policy: DatasetPolicy, tally: Tally) -> list[Example]:
    """Only as many to be taught as the teacher may be asked for."""
    asked = [e for e in examples if not e.target]
    if policy.teacher is None or len(asked) <= policy.teacher.max_rows:
        return examples
    asked.sort(key=lambda e: (priority(e.id, policy.seed), e.id))
    passed_over = {e.id for e in asked[policy.teacher.max_rows :]}
    tally.add(LeftOut.UNTAUGHT, len(passed_over))
    return [e for e in examples if e.id not in passed_over]


def _balanced(ordered: list[Example], policy: DatasetPolicy, tally: Tally) -> list[Example]:
    if policy.balance is None:
        return ordered
    balance = policy.balance
    classes = {
        e.id: class_of(e, balance.by)
        for e in ordered
        if split_of(e.group, policy.split) is Split.TRAIN
    }
    most = most_per_class(Counter(classes.values()), balance.max_share)
    taken: Counter[str] = Counter()
    kept = []
    for example in ordered:
        name = classes.get(example.id)
        if name is not None:
            taken[name] += 1
            if taken[name] > most:
                tally.add(LeftOut.BALANCE)
                continue
        kept.append(example)
    return kept


def _composed(ordered: Sequence[Example], policy: DatasetPolicy, tally: Tally) -> list[Example]:
    """As many of each pool as its share allows, those of the first priority."""
    pools = {pool: [e for e in ordered if e.pool is pool] for pool in Pool}
    drifted, recent, replay = (len(pools[p]) for p in (Pool.DRIFTED, Pool.RECENT, Pool.REPLAY))
    share = policy.replay.share
    # Neither of the most rows, nor of what there is, do older rows have more than their share.
    of_all = math.floor(share * policy.max_rows)
    of_found = math.floor(share / (1 - share) * (drifted + recent))
    replay_most = min(replay, of_all, of_found)
    left = policy.max_rows - replay_most
    drifted_most = min(drifted, max(math.ceil(policy.drifted.share * left), left - recent))
    most = {
        Pool.REPLAY: replay_most,
        Pool.DRIFTED: drifted_most,
        Pool.RECENT: min(recent, left - drifted_most),
    }
    chosen = []
    for pool, count in most.items():
        chosen += pools[pool][:count]
        reason = LeftOut.REPLAY_SHARE if pool is Pool.REPLAY else LeftOut.MAX_ROWS
        tally.add(reason, len(pools[pool]) - count)
    return chosen
