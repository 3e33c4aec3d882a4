"""Where files are kept: a directory, or an object store by its URL, through fsspec."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Protocol

import fsspec
from fsspec.implementations.local import LocalFileSystem

__all__ = ["FileStore", "Store"]

_TEMPORARY = ".tmp-"


class Store(Protocol):
    """Keeps whole files under a root; paths have slashes. Each call blocks."""

    def write(self, path: str, data: bytes) -> None:
        """Writes a file whole or not at all; it is durable on return. Replaces one of that name.

        Raises:
            OSError: It could not; trying again may help.
        """
        ...

    def read(self, path: str) -> bytes:
        """A file's bytes.

        Raises:
            FileNotFoundError: There is none.
        """
        ...

    def list(self, folder: str) -> list[str]:
        """The paths of all files below a folder, in order; none where there is no folder."""
        ...

    def remove(self, path: str) -> None:
        """Removes a file; one that is not there does nothing."""
        ...


class FileStore:
    """A directory or an object store.

    A directory's files are written beside their place and renamed, so that a name never stands
    for half a file; an object store shows an object when it is whole.

    Args:
        url: A path, or a URL that fsspec knows: `s3://bucket/collected`. Object stores need their
            fsspec package (s3fs, gcsfs, adlfs) and take their keys from the environment.

    Raises:
        ValueError: No such scheme is known.
        ImportError: The scheme's package is not installed; the message names it.
    """

    def __init__(self, url: str) -> None:
        self._fs, root = fsspec.core.url_to_fs(url)
        self._root = str(root).rstrip("/")
        self._local = isinstance(self._fs, LocalFileSystem)

    def write(self, path: str, data: bytes) -> None:
        """See `Store`."""
        target = self._at(path)
        if not self._local:
            self._fs.pipe_file(target, data)
            return
        self.place(self.stage(target, data), target)

    def stage(self, target: str, data: bytes) -> str:
        """Writes a local file beside its place; returns where. For `write`."""
        folder = Path(target).parent
        _make(folder)
        temporary = folder / f"{_TEMPORARY}{Path(target).name}"
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return str(temporary)

    def place(self, temporary: str, target: str) -> None:
        """Gives a staged file its name, for good. For `write`."""
        Path(temporary).replace(target)
        # The name itself is durable only with its directory.
        _sync(Path(target).parent)

    def read(self, path: str) -> bytes:
        """See `Store`."""
        data: bytes = self._fs.cat_file(self._at(path))
        return data

    def list(self, folder: str) -> list[str]:
        """See `Store`."""
        # An object store's client remembers what it listed; others write meanwhile.
        self._fs.invalidate_cache()
        try:
            found = self._fs.find(self._at(folder))
        except FileNotFoundError:
            return []
        start = len(self._root) + 1
        return sorted(
            path[start:] for path in found if not path.rpartition("/")[2].startswith(_TEMPORARY)
        )

    def remove(self, path: str) -> None:
        """See `Store`."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._at(path))

    def sweep(self, folder: str, prefix: str) -> int:
        """Removes what killed writers left half-done in a folder's days; returns how many.

        Args:
            folder: Below the root; its subfolders are looked at.
            prefix: What the files' own names begin with.
        """
        if not self._local:
            return 0
        left = list(Path(self._at(folder)).glob(f"*/{_TEMPORARY}{prefix}*"))
        for path in left:
            path.unlink(missing_ok=True)
        return len(left)

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root


def _make(folder: Path) -> None:
    if not folder.exists():
        _make(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)


def _sync(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
