"""A database whose writes can be made to fail, or to end with a crash: the file itself is real."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import apsw

from everturn.errors import TransientError
from everturn.runtime.database.database import Database

T = TypeVar("T")
Job = Callable[[apsw.Cursor], T]


class FaultyDatabase(Database):
    """`writes_left`: the process dies at the write after so many, before it or, with `dies_after`, once it is on disk.

    The dead process hears of nothing any more: its write never returns. `full`: writes are refused meanwhile.
    """

    writes_left: int | None = None
    dies_after = False
    full = False
    dead = False
    refused = 0

    @classmethod
    async def create(cls, path: Path) -> "FaultyDatabase":
        database = await cls.open(path)
        assert isinstance(database, cls)
        return database

    async def write(self, job: Job[T], committed: Callable[[T], None] | None = None, *, durable: bool = True) -> T:
        if self.full:
            self.refused += 1
            raise TransientError("the database could not be written: disk full", kind="disk")
        if self.writes_left is None:
            return await super().write(job, committed, durable=durable)
        self.writes_left -= 1
        if self.writes_left >= 0 and not self.dead:
            return await super().write(job, committed, durable=durable)
        if self.dies_after and not self.dead:
            await super().write(job, committed, durable=durable)
        self.dead = True
        never: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        return await never
