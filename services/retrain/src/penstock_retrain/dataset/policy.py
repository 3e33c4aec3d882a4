"""What a dataset is made of: the part `dataset` of a model's retraining policy. Pure.

dataset:
  recent_s: 86400
  labels: [correction, label]
  label_field: category
  replay: {share: 0.3, horizon_s: 2592000}
  drifted: {share: 0.5}
  near_duplicates: {threshold: 0.85}
  personal_data: redact
  balance: {by: target.category, max_share: 0.4}
  split: {validation: 0.1, golden: 0.1}
  min_rows: 50
  max_rows: 5000
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from penstock.documents import DocumentError, fault_lines, read_mapping
from penstock_retrain.dataset.errors import PolicyError

__all__ = [
    "Balance",
    "DatasetPolicy",
    "Drifted",
    "LabelSource",
    "NearDuplicates",
    "PersonalData",
    "Replay",
    "SplitShares",
    "Teacher",
]

Share = Annotated[float, Field(ge=0, lt=1)]
Seconds = Annotated[float, Field(gt=0, le=315_576_000)]


class LabelSource(StrEnum):
    """Where the right answer comes from."""

    CORRECTION = "correction"  # the text that somebody says it should have been
    LABEL = "label"  # the class, or the fields, that somebody says are right
    SCORE = "score"  # the answer itself, where somebody thought it good
    TEACHER = "teacher"  # what a larger model answers


class PersonalData(StrEnum):
    """What is done with a row in which personal data are found."""

    DROP = "drop"
    REDACT = "redact"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Replay(_Part):
    """Older rows, so that what was known is not forgotten.

    Attributes:
        share: Of all rows, as far as there are so many.
        horizon_s: How far back they may lie.
    """

    share: Share = 0.3
    horizon_s: Seconds = 30 * 86_400


class Drifted(_Part):
    """Recent rows of the segments that drifted.

    Attributes:
        share: Of the recent rows at least, as far as there are so many.
    """

    share: Share = 0.5


class NearDuplicates(_Part):
    """Which questions count as the same.

    Attributes:
        threshold: The Jaccard similarity of their shingles from which on they do; 1 only where
            all shingles are the same.
        shingle: Words in a shingle.
    """

    threshold: float = Field(default=0.85, gt=0.3, le=1)
    shingle: int = Field(default=3, ge=1, le=10)


class Balance(_Part):
    """Keeps frequent classes from drowning the others.

    Attributes:
        by: `target`: the right answer; `target.FIELD`: a field of it, where it is a JSON object;
            `label.NAME`: one of the request's labels.
        max_share: A class's share of the training rows at most.
    """

    by: str = Field(default="target", pattern=r"^(target|target\.[^.]+|label\..+)$")
    max_share: float = Field(default=0.5, gt=0, le=1)


class SplitShares(_Part):
    """How rows are divided, by their ordering key: the same key always falls on the same side.

    Attributes:
        validation: Share of the keys that training is watched on.
        golden: Share of the keys that no training of any job ever sees; gates measure on them.
    """

    validation: Share = 0.1
    golden: Share = 0.1

    @model_validator(mode="after")
    def _leaves_some(self) -> Self:
        if self.validation + self.golden > 0.9:
            raise ValueError("validation and golden leave less than a tenth to train on")
        return self


class Teacher(_Part):
    """A larger model that answers what nobody labelled.

    Attributes:
        url: An OpenAI-compatible door, penstock's own included: `http://host:8080/v1`.
        model: Its name there.
        api_key_env: The environment variable that holds the key; empty for none.
        max_tokens: The longest answer.
        concurrency: Requests at a time.
        max_rows: Rows that it is asked for at most: they cost money.
        timeout_s: For one answer.
    """

    url: str = Field(pattern=r"^https?://")
    model: str = Field(min_length=1)
    api_key_env: str = ""
    max_tokens: int = Field(512, ge=1)
    concurrency: int = Field(4, ge=1, le=64)
    max_rows: int = Field(1000, ge=1)
    timeout_s: Seconds = 60


class DatasetPolicy(_Part):
    """The policy; every field has a default, so an empty one is valid.

    Attributes:
        recent_s: How far back the recent window reaches.
        labels: Where right answers may come from, the most trusted first.
        label_field: The field of a JSON answer that a plain label is for; empty: the label is the
            whole answer, or the answer is a JSON object that has it already.
        accept_score: A score from which on the answer counts as right, for the source `score`.
        teacher: Asked for what nobody labelled, where `labels` has `teacher`.
        drifted: Recent rows of drifted segments.
        replay: Older rows.
        near_duplicates: None keeps all.
        personal_data: What is done with rows that have some.
        balance: None keeps all.
        split: How rows are divided.
        max_chars: Of a row's question and answer together.
        min_rows: Rows to train on at least: with fewer there is no dataset.
        wait_s: How long a job waits for so many: soon after a drift there are few.
        max_rows: Rows of all splits at most.
        seed: Which rows are taken where there are more.
    """

    recent_s: Seconds = 86_400
    labels: tuple[LabelSource, ...] = (LabelSource.CORRECTION, LabelSource.LABEL)
    label_field: str = ""
    accept_score: float = Field(0.9, gt=0.5, le=1)
    teacher: Teacher | None = None
    drifted: Drifted = Drifted()
    replay: Replay = Replay()
    near_duplicates: NearDuplicates | None = NearDuplicates()
    personal_data: PersonalData = PersonalData.REDACT
    balance: Balance | None = None
    split: SplitShares = SplitShares()
    max_chars: int = Field(32_000, ge=1)
    min_rows: int = Field(50, ge=1)
    wait_s: float = Field(900, ge=0, le=86_400)
    max_rows: int = Field(5000, ge=1, le=1_000_000)
    seed: int = 0

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not self.labels or len(set(self.labels)) != len(self.labels):
            raise ValueError("labels names at least one source, each once")
        if (LabelSource.TEACHER in self.labels) != (self.teacher is not None):
            raise ValueError("a teacher is set where labels has `teacher`, and only there")
        if self.min_rows > self.max_rows:
            raise ValueError("min_rows is above max_rows")
        return self

    @classmethod
    def of(cls, written: Mapping[str, Any]) -> DatasetPolicy:
        """A policy as YAML or JSON has it.

        Raises:
            PolicyError: It says what it must not; names each field.
        """
        try:
            return cls.model_validate(written)
        except ValidationError as error:
            lines = fault_lines(error, lambda _: cls.model_fields, below="dataset")
            raise PolicyError("; ".join(lines)) from None

    @classmethod
    def parse(cls, text: str) -> DatasetPolicy:
        """The part `dataset` of a YAML document; the defaults where it has none.

        Raises:
            PolicyError: The text is no YAML mapping, or says what it must not.
        """
        try:
            written = read_mapping(text, "no mapping: write `dataset:` and its fields below it")
        except DocumentError as error:
            raise PolicyError(str(error)) from None
        lost = sorted(cls.model_fields.keys() & written.keys())
        if lost:
            raise PolicyError(f"{lost[0]}: put it under dataset:")
        part = written.get("dataset", {})
        if not isinstance(part, dict):
            raise PolicyError("dataset: it is no mapping")
        return cls.of(part)

    def parameters(self) -> dict[str, Any]:
        """All of it as JSON, defaults included: part of what a dataset is made of."""
        return self.model_dump(mode="json")
