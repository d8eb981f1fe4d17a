"""The disk of a simulated machine: the runtime's own file, with a crash at a chosen write.

Every commit is made in the loop, so that a run can be repeated exactly. It takes the disk a little time, which the
fault plan gives: other things happen meanwhile, and what comes to be written goes into the next commit together, as it
does in the real database.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Self, TypeVar

import apsw

from everturn.errors import TransientError
from everturn.runtime.store.database import Database

T = TypeVar("T")
Job = Callable[[apsw.Cursor], T]

# Seconds that a commit takes at most, in simulated time.
_SLOWEST_COMMIT_S = 0.02


class Moment(StrEnum):
    """When the machine dies: before the commit, after it and before anybody hears of it, or a little later."""

    BEFORE = "before"
    UNACKNOWLEDGED = "unacknowledged"
    AFTER = "after"


@dataclass(frozen=True, slots=True)
class Crash:
    """At commit number `write` (from 1) of a life; `rounds` of the loop after it, where `moment` is AFTER."""

    write: int
    moment: Moment
    rounds: int = 0


@dataclass(slots=True)
class Write:
    """A job that waits for its commit, and who waits for it."""

    job: Job[Any]
    future: "asyncio.Future[Any]"
    committed: Callable[[Any], None] | None


class Disk(Database):
    """A database whose machine dies by plan. A dead one hears of nothing: its writes never return.

    `writes` counts commits, `grouped` is how many jobs the one had on which the machine died. `noticed` is called
    before each commit with its number: there the clock may jump.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, connection: apsw.Connection, crash: Crash | None, random: Random
    ) -> None:
        # Not Database.__init__: that one starts a thread.
        self.connection = connection
        self.crash = crash
        self.random = random
        self.loop = loop
        self.writes = 0
        self.grouped = 0
        self.dead = False
        self.dead_by_plan = False
        self.died: Callable[[], None] = lambda: None
        self.noticed: Callable[[int], None] = lambda _: None
        self._queue: deque[Write] = deque()
        self._busy = False

    @classmethod
    def on(cls, loop: asyncio.AbstractEventLoop, path: Path, crash: Crash | None, random: Random) -> Self:
        connection = apsw.Connection(str(path))
        connection.pragma("journal_mode", "memory")
        connection.pragma("synchronous", "OFF")
        return cls(loop, connection, crash, random)

    async def write(self, job: Job[T], committed: Callable[[T], None] | None = None) -> T:
        future: asyncio.Future[T] = self.loop.create_future()
        if not self.dead:
            self._queue.append(Write(job, future, committed))
            self._next()
        return await future

    def read(self, sql: str, bindings: Sequence[Any] | dict[str, Any] = ()) -> list[tuple[Any, ...]]:
        if self.dead:
            raise TransientError("the machine is dead", kind="dead")
        return self.connection.execute(sql, bindings).fetchall()

    async def close(self) -> None:
        """Nothing: a machine that dies closes nothing, and the file is closed by `drop`."""

    def drop(self) -> None:
        """The process is gone, and its hold on the file with it."""
        self.dead = True
        self.connection.close()

    def has_reply(self, reply: str) -> bool:
        """Whether a turn's record on this disk holds `reply`: what only who pulls the plug can look up."""
        sql = "SELECT 1 FROM state WHERE key LIKE 'chat-service||turn:%' AND instr(value, ?)"
        return bool(self.connection.execute(sql, (reply.encode(),)).fetchall())

    def die(self) -> None:
        if not self.dead:
            self.dead = self.dead_by_plan = True
            self.died()

    def _next(self) -> None:
        if not self._busy and self._queue and not self.dead:
            self._busy = True
            self.loop.call_later(self.random.random() * _SLOWEST_COMMIT_S, self._write_group)

    def _write_group(self) -> None:
        self._busy = False
        if self.dead:
            return
        group = list(self._queue)
        self._queue.clear()
        self.writes += 1
        self.noticed(self.writes)
        crash = self.crash if self.crash is not None and self.crash.write == self.writes else None
        if crash is not None:
            self.grouped = len(group)
        if crash is not None and crash.moment is Moment.BEFORE:
            self.die()
            return
        self.commit(group)
        if crash is not None and crash.moment is Moment.UNACKNOWLEDGED:
            self.die()
            return
        if crash is not None:
            self._die_in(crash.rounds)
        self._next()

    def _die_in(self, rounds: int) -> None:
        if rounds <= 0:
            self.loop.call_soon(self.die)
        else:
            self.loop.call_soon(self._die_in, rounds - 1)

    def commit(self, group: Sequence[Write]) -> None:
        """Run the jobs in one transaction, and tell who waits in the loop's next round. A failing job undoes itself."""
        with self.connection:
            told = [self.run(write) for write in group]
        for tell in told:
            self.loop.call_soon(tell)

    def run(self, write: Write) -> partial[None]:
        """Run a job in the open transaction; what is to be told once that is committed."""
        try:
            with self.connection:  # within a transaction, a savepoint
                result = write.job(self.connection.cursor())
        except Exception as error:  # noqa: BLE001 - handed to who waits for the write
            return partial(fail, write.future, error)
        return partial(self.acknowledge, write, result)

    def acknowledge(self, write: Write, result: Any) -> None:
        if self.dead:
            return
        if write.committed is not None:
            write.committed(result)
        if not write.future.done():
            write.future.set_result(result)


def fail(future: "asyncio.Future[Any]", error: Exception) -> None:
    """Tell who waits for a write that its job failed."""
    if not future.done():
        future.set_exception(error)
