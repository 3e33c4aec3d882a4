"""A streamed answer put together from chunks that may be lost, repeated or drawn anew. Pure."""

from __future__ import annotations

import zlib

from penstock.v1 import response_pb2
from penstock_ingest.errors import Diverged

__all__ = ["Transcript"]


class Transcript:
    """The text of an answer as far as it may be sent.

    Chunks are best effort and in order per attempt. A run after a fault begins again at the first
    token under a higher attempt: what was sent is compared, only what is new is added. After a
    lost chunk the attempt adds nothing more; the terminal response makes up for it.

    Attributes:
        text: What may be sent; it only ever grows.
        tokens: How many tokens that is, as far as chunks told.
        attempt: The attempt that chunks are taken from; 0 before the first.
        broken: Whether a chunk of the attempt was lost or damaged.
    """

    def __init__(self) -> None:
        self.text = ""
        self.tokens = 0
        self.attempt = 0
        self.broken = False
        # Of the current attempt: characters and tokens so far, and the CRC-32 of its text.
        self._length = 0
        self._next_index = 0
        self._crc = 0

    def add(self, chunk: response_pb2.TokenChunk) -> bool:
        """Takes a chunk in; tells whether the text grew.

        Raises:
            Diverged: The chunk's text differs from what was sent already.
        """
        if chunk.attempt < self.attempt:
            return False
        if chunk.attempt > self.attempt:
            self._begin(chunk.attempt)
        if self.broken or chunk.index < self._next_index:
            return False
        crc = zlib.crc32(chunk.text.encode(), self._crc)
        if chunk.index > self._next_index or crc != chunk.text_crc32:
            self.broken = True
            return False
        known = self.text[self._length : self._length + len(chunk.text)]
        if not chunk.text.startswith(known):
            raise _diverged()
        self._length += len(chunk.text)
        self._next_index += chunk.tokens
        self._crc = crc
        if self._length <= len(self.text):
            return False
        self.text += chunk.text[len(known) :]
        self.tokens = max(self.tokens, self._next_index)
        return True

    def finish(self, text: str, tokens: int) -> None:
        """Takes the terminal response's text in, which makes up for lost chunks.

        Raises:
            Diverged: It differs from what was sent already.
        """
        if not text.startswith(self.text):
            raise _diverged()
        self.text = text
        self.tokens = max(self.tokens, tokens)

    def _begin(self, attempt: int) -> None:
        self.attempt = attempt
        self.broken = False
        self._length = self._next_index = self._crc = 0


def _diverged() -> Diverged:
    return Diverged(
        "the work was run again after a fault and drew other text than what was sent; "
        "fetch the committed response by its request id"
    )
