"""What may go wrong with datasets, each with what to do next."""

from __future__ import annotations

__all__ = ["AnotherLog", "DatasetError", "NotEnough", "PolicyError", "TeacherError"]


class DatasetError(Exception):
    """A dataset cannot be made, or is not what it says; the message names the remedy."""


class AnotherLog(DatasetError):
    """What was collected is of another log than the one that is read: somebody has to decide."""


class NotEnough(DatasetError):
    """Fewer rows than the policy asks for; trying again at once would not help."""


class PolicyError(DatasetError):
    """A policy says what it must not; the message names the field."""


class TeacherError(DatasetError):
    """The teacher gave no answer, after retries."""
