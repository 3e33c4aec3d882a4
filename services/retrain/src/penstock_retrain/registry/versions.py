"""What the registry knows of a version. Pure."""

from __future__ import annotations

import dataclasses
from enum import StrEnum

__all__ = ["CHALLENGER", "CHAMPION", "AliasChange", "Made", "Version", "VersionStatus", "name_of"]

CHAMPION = "champion"
CHALLENGER = "challenger"


class VersionStatus(StrEnum):
    """What became of a version."""

    TRAINED = "trained"
    REGISTERED = "registered"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    REJECTED = "rejected"
    ABANDONED = "abandoned"


@dataclasses.dataclass(frozen=True)
class Made:
    """What a training made.

    Attributes:
        kind: `adapter` or `full`.
        base_model: The engine's model that it belongs to, or was made from.
    """

    kind: str
    base_model: str


@dataclasses.dataclass(frozen=True)
class Version:
    """A version of a model: the weights that one job made.

    Attributes:
        model: The name that requests use.
        version: From 1 on, never used again.
        name: Of the adapter, of its directory and of the variant that answers with it.
        job_id: The job that made it.
        status: What became of it.
        kind: `adapter` or `full`.
        base_model: The engine's model that it belongs to, or was made from.
        digest: SHA-256 of all its files with their names; empty before it was registered.
        card: The model card, Markdown; empty before it was registered.
        created_us: When it was made, microseconds since 1970.
        retired_us: Since when nothing may be routed to it; 0 while something may.
        retired_reason: Why.
        revision: Rises with every change.
    """

    model: str
    version: int
    name: str
    job_id: str
    status: VersionStatus
    kind: str
    base_model: str
    digest: str = ""
    card: str = ""
    created_us: int = 0
    retired_us: int = 0
    retired_reason: str = ""
    revision: int = 1


@dataclasses.dataclass(frozen=True)
class AliasChange:
    """A change of an alias; 0 stands for no version.

    Attributes:
        model: The name that requests use.
        alias: `champion` or `challenger`.
        revision: Rises with every change of this alias, from 1 on.
        from_version: Before.
        to_version: After.
        at_us: When, microseconds since 1970.
        job_id: The job that moved it.
        by: Who, where a person did.
        reason: Why.
    """

    model: str
    alias: str
    revision: int
    from_version: int
    to_version: int
    at_us: int
    job_id: str = ""
    by: str = ""
    reason: str = ""


def name_of(model: str, version: int) -> str:
    """A version's name: letters, digits, `.`, `_` and `-`, as directories and engines take it."""
    # Other models' names must not become this one's: what is replaced is told by the number alone
    # nowhere, so that the registry's unique names refuse the rare clash.
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in model)
    return f"{safe.lstrip('._-') or 'model'}-v{version}"
