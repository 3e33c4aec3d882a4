"""What a job's candidate is asked: the part `gates` of a model's retraining policy. Pure.

gates:
  suites: [gates/golden.yaml, gates/robustness.yaml]
  alpha: 0.05
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from penstock.documents import DocumentError, fault_lines, read_mapping
from penstock_retrain.gates.errors import GateError

__all__ = ["GatesPolicy"]


class GatesPolicy(BaseModel):
    """The policy; every field has a default, so an empty one is valid.

    Attributes:
        suites: Files, from the service's directory of suites on; `default` is the one that comes
            with the service and asks the golden split of the job's dataset.
        alpha: The probability at most with which a candidate passes that violates a rule, and with
            which one fails that violates none.
        threads: Of the process that answers; 0 leaves it to torch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    suites: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=("default",), min_length=1
    )
    alpha: float = Field(default=0.05, gt=0, le=0.5)
    threads: int = Field(default=0, ge=0, le=1024)

    @classmethod
    def parse(cls, text: str) -> GatesPolicy:
        """The part `gates` of a YAML document; the defaults where it has none.

        Raises:
            GateError: The text is no YAML mapping, or says what it must not; names each field.
        """
        try:
            part = read_mapping(text, "no mapping: write `gates:` and its fields below it").get(
                "gates", {}
            )
            return cls.model_validate(part)
        except DocumentError as error:
            raise GateError(str(error)) from None
        except ValidationError as error:
            lines = fault_lines(error, lambda _: cls.model_fields, below="gates")
            raise GateError("\n".join(lines)) from None
