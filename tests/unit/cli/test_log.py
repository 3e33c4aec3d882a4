"""Commands that read the log: who fails first ends the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from penstock.cli import log
from penstock.cli.log import reading, reading_each
from penstock.cli.run import CliError
from penstock.cli.settings import CliSettings
from penstock.kafka.reader import Start
from penstock.records import Partition, Record

RECORD = Record(Partition("penstock.responses", 0), 0, b"k", b"{}", (), 0)
SETTINGS = CliSettings()


class Reader:
    """Delivers one record before or after it has caught up, and then nothing."""

    caught_up_first = True
    ended = 0

    def __init__(self, *_: object, **__: object) -> None:
        self.caught_up = asyncio.Event()

    async def run(self, on_record: Callable[[Record], None]) -> None:
        try:
            if self.caught_up_first:
                self.caught_up.set()
            await asyncio.sleep(0.01)
            on_record(RECORD)
            self.caught_up.set()
            await asyncio.Event().wait()
        finally:
            type(self).ended += 1


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> type[Reader]:
    class Fresh(Reader):
        pass

    monkeypatch.setattr(log, "LogReader", Fresh)
    return Fresh


def broken(record: Record) -> None:
    raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.timeout(10)
@pytest.mark.parametrize("caught_up_first", [True, False])
async def test_what_the_reader_raises_ends_the_wait(
    reader: type[Reader], caught_up_first: bool
) -> None:
    reader.caught_up_first = caught_up_first
    with pytest.raises(BrokenPipeError):
        async with reading(SETTINGS, "penstock.responses", Start.END, broken):
            await asyncio.Event().wait()
    # Nobody seems to be cancelled afterwards.
    await asyncio.sleep(0)
    assert reader.ended == 1


@pytest.mark.timeout(10)
async def test_one_of_several_readers_ends_them_all(reader: type[Reader]) -> None:
    with pytest.raises(BrokenPipeError):
        async with reading_each(SETTINGS, {"alerts": lambda _: None, "responses": broken}):
            await asyncio.Event().wait()
    assert reader.ended == 2


async def test_what_the_body_raises_is_raised_as_it_is(reader: type[Reader]) -> None:
    cause = ValueError()
    with pytest.raises(CliError, match="mine") as raised:
        async with reading(SETTINGS, "penstock.responses", Start.END, lambda _: None):
            raise CliError("mine") from cause
    assert raised.value.__cause__ is cause
    assert reader.ended == 1


async def test_the_reader_ends_with_the_body(reader: type[Reader]) -> None:
    async with reading(SETTINGS, "penstock.responses", Start.END, lambda _: None):
        assert reader.ended == 0
    assert reader.ended == 1


async def test_patience_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(log.LogReader, "run", never)
    with pytest.raises(CliError, match=r"penstock\.x could not be read within 0\.01 s"):
        async with reading(SETTINGS, "penstock.x", Start.END, print, patience_s=0.01):
            pass
