"""The disk of a simulated machine, under the runtime's own database: what waits for it runs in the loop, and a crash
comes at a chosen commit.

It takes the disk a little time, which the fault plan gives: other things happen meanwhile, and what comes to be written
goes into the next commit together.
"""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import apsw

from everturn.runtime.database.database import Database, Job, connect
from tests.chaos.power import MachineDied, Power

T = TypeVar("T")

# Seconds that a commit takes at most, in simulated time.
_SLOWEST_COMMIT_S = 0.02
# The share of commits that the database takes for slow ones: after a row of quick ones a lone commit is made in the
# loop, and the next slow one ends that.
_SLOW = 0.05


class SimulatedDisk:
    """A `Disk` whose machine dies by plan: then no commit returns, and nothing that was submitted is done.

    `full`: the share of commits that it refuses; `counts` gets how many.
    """

    def __init__(self, power: Power, full: float, counts: dict[str, int]) -> None:
        self.power = power
        self.full = full
        self.counts = counts
        self.jobs = 0
        self.undo = False  # for a planted bug
        self._loop = asyncio.get_running_loop()
        self._connections: list[apsw.Connection] = []
        self._last = 0.0

    def connect(self, path: Path) -> apsw.Connection:
        connection = connect(path)
        # A simulated crash is one of the process: what SQLite has written stays.
        connection.pragma("synchronous", "OFF")
        self._connections.append(connection)
        return connection

    def commit(self, connection: apsw.Connection) -> float:
        jobs, self.jobs = self.jobs, 0
        if not self.power.dead and self.power.random.random() < self.full:
            self.counts["disk full"] = self.counts.get("disk full", 0) + 1
            raise apsw.FullError("database or disk is full")
        self.power.write(lambda: self.make_commit(connection), jobs)
        return 1.0 if self.power.random.random() < _SLOW else 0.0

    def make_commit(self, connection: apsw.Connection) -> None:
        connection.execute("COMMIT")

    def submit(self, work: Callable[[], None]) -> None:
        self._last = max(self._last, self._loop.time() + self.power.random.random() * _SLOWEST_COMMIT_S)
        self._loop.call_at(self._last, self._do, work)

    def _do(self, work: Callable[[], None]) -> None:
        if not self.power.dead:
            with contextlib.suppress(MachineDied):
                work()

    async def close(self) -> None: ...

    def drop(self) -> None:
        """The process is gone, and its hold on the file with it."""
        for connection in self._connections:
            connection.close()


class SimulatedDatabase(Database):
    """The real one; it counts its jobs, and a dead machine begins none."""

    disk: SimulatedDisk

    async def write(self, job: Job[T], committed: Callable[[T], None] | None = None, *, durable: bool = True) -> T:
        def counted(cursor: apsw.Cursor) -> T:
            if self.disk.power.dead:
                raise MachineDied
            self.disk.jobs += 1
            return job(cursor)

        def heard(result: T) -> None:
            if committed is not None and not self.disk.power.dead:
                committed(result)

        return await super().write(counted, heard, durable=durable)


def rows(path: Path, sql: str, *bindings: Any) -> list[tuple[Any, ...]]:
    """What the file of a machine that does not run says: what only who pulls the plug can look up."""
    connection = connect(path)
    try:
        return connection.execute(sql, bindings).fetchall()
    finally:
        connection.close()
