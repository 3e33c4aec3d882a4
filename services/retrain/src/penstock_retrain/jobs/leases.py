"""Who may do what one process at a time does, for a while. Every call blocks: use a thread.

A lease keeps two processes from the same work; it does not keep a process that slept from going on
with it. That is what epochs are for, and the fencing of Kafka's transactional ids.
"""

from __future__ import annotations

import dataclasses

import sqlalchemy as sql

from penstock.sql import Database
from penstock_retrain.tables import LEASES

__all__ = ["Lease", "Leases"]


@dataclasses.dataclass(frozen=True)
class Lease:
    """A lease that was taken.

    Attributes:
        name: What it is of.
        epoch: Rises with every taking.
        after: The epoch of whoever had it before; 0 where nobody had.
    """

    name: str
    epoch: int
    after: int


class Leases:
    """The leases of one database.

    Args:
        database: Where they are; the tables are there.
        owner: Names this process, and no other.
    """

    def __init__(self, database: Database, owner: str) -> None:
        self._database = database
        self._owner = owner

    def take(self, name: str, now_us: int, length_us: int) -> Lease | None:
        """Takes or prolongs a lease; None while somebody else has it."""
        table = LEASES
        with self._database.writing() as connection:
            query = sql.select(table).where(table.c.name == name).with_for_update()
            row = connection.execute(query).first()
            until_us = now_us + length_us
            if row is None:
                connection.execute(
                    table.insert().values(name=name, owner=self._owner, epoch=1, until_us=until_us)
                )
                return Lease(name, 1, 0)
            if row.owner != self._owner and row.until_us > now_us:
                return None
            connection.execute(
                table.update()
                .where(table.c.name == name)
                .values(owner=self._owner, epoch=row.epoch + 1, until_us=until_us)
            )
            return Lease(name, row.epoch + 1, row.epoch)

    def renew(self, lease: Lease, now_us: int, length_us: int) -> None:
        """Prolongs a lease under its epoch; does nothing where somebody else has it."""
        with self._database.writing() as connection:
            connection.execute(
                LEASES.update()
                .where(
                    LEASES.c.name == lease.name,
                    LEASES.c.owner == self._owner,
                    LEASES.c.epoch == lease.epoch,
                )
                .values(until_us=now_us + length_us)
            )

    def release(self, name: str) -> None:
        """Gives a lease back; does nothing where somebody else has it."""
        with self._database.writing() as connection:
            connection.execute(
                LEASES.update()
                .where(LEASES.c.name == name, LEASES.c.owner == self._owner)
                .values(until_us=0)
            )
