"""Texts of JSON Lines."""

from __future__ import annotations

import io

__all__ = ["split_lines"]


def split_lines(text: str) -> list[str]:
    """The lines without their ends; what follows the last end counts where it is not empty.

    `str.splitlines` splits at U+2028, U+0085 and others too, which JSON's strings hold as they are.
    """
    return [line.rstrip("\r\n") for line in io.StringIO(text)]
