"""The one SQLite file: transactions in groups, one flush a group, and a reader that sees what is committed.

Jobs run in the loop's own thread, one after the other, in one open transaction; a thread of its own does nothing but
COMMIT, which waits for the disk, while jobs that come make the next group. So no statement waits for the interpreter's
lock, and the loop does not wait for the disk. The exception is a job that is alone, on a disk that has just been quick:
to hand that over and to be woken takes longer than the commit. Each job has a savepoint: a failing one undoes only
itself. `write` returns after the commit: what is acknowledged is on disk (`synchronous=FULL`,
https://www.sqlite.org/pragma.html#pragma_synchronous).
"""

import asyncio
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import apsw

from everturn.errors import StartError, TransientError

T = TypeVar("T")
Job = Callable[[apsw.Cursor], T]

# More than this in one commit only makes the first of them wait longer.
_MAX_JOBS_PER_COMMIT = 256
# A commit that takes no longer is made in the loop where one job waits for it alone; measured again at each commit.
_QUICK_COMMIT_S = 0.001
# Faults of the disk or the file: SQLite may have given the whole transaction up (https://www.sqlite.org/rescode.html).
_DISK_ERRORS = (
    apsw.FullError,
    apsw.IOError,
    apsw.CorruptError,
    apsw.NotADBError,
    apsw.ReadOnlyError,
    apsw.CantOpenError,
    apsw.BusyError,
)


@dataclass(slots=True)
class _Pending(Generic[T]):
    job: Job[T]
    done: "asyncio.Future[T]"
    committed: Callable[[T], None] | None = None
    result: T | None = None
    error: BaseException | None = None


class Database:
    """Open with `open`, in the loop that will use it; end with `close`."""

    def __init__(self, writer: apsw.Connection, reader: apsw.Connection, quick_commit_s: float) -> None:
        self._writer = writer
        self._cursor = writer.cursor()
        self._reader: apsw.Connection | None = reader
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Pending[Any]] = deque()
        self._committing = False
        self._flush_is_due = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._commits: queue.SimpleQueue[list[_Pending[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._commit_loop, name="everturn-writer", daemon=True)
        self._thread.start()
        self._closed = False
        self._quick_commit_s = quick_commit_s
        # Of the last commit; how quick the disk is shows first in the thread.
        self._commit_s = math.inf
        self.commits = 0

    @classmethod
    async def open(cls, path: Path, *, quick_commit_s: float = _QUICK_COMMIT_S) -> Self:
        """Open or create the file, bring its schema up to date. Raises StartError where that is impossible.

        `quick_commit_s`: a disk whose last commit took less is quick, and a lone job's commit is made in the loop.
        """
        try:
            writer = _connect(path)
            for schema in _schemas():
                writer.execute(schema)
            return cls(writer, _connect(path), quick_commit_s)
        except (apsw.Error, OSError) as error:
            raise StartError(f"cannot open the database {str(path)!r}: {error}") from error

    async def write(self, job: Job[T], committed: Callable[[T], None] | None = None) -> T:
        """Run `job` in the loop's thread inside a transaction; its result, once committed.

        A job is a few statements: the loop waits for it. `committed` is told the result first, in the order of the
        commits, also where the caller has gone meanwhile. An exception of the job undoes it alone and is raised here.
        Raises TransientError (kind `disk`) where the disk refuses, for example when it is full: then nothing of the
        job was kept.
        """
        if self._closed:
            raise TransientError("the database is closed", kind="stopping")
        pending: _Pending[T] = _Pending(job, self._loop.create_future(), committed)
        self._waiting.append(pending)
        self._idle.clear()
        if not self._committing and not self._flush_is_due:
            # In the loop's next round, so that the jobs of this round share a commit.
            self._flush_is_due = True
            self._loop.call_soon(self._flush)
        return await pending.done

    def read(self, sql: str, bindings: Sequence[Any] | dict[str, Any] = ()) -> list[tuple[Any, ...]]:
        """Rows of a query, as of the last commit. Runs in the calling thread: for small, indexed reads.

        Raises TransientError (kind `disk`) where the file cannot be read.
        """
        if self._reader is None:
            raise TransientError("the database is closed", kind="stopping")
        try:
            return self._reader.execute(sql, bindings).fetchall()
        except apsw.Error as error:
            raise TransientError(f"the database could not be read: {error}", kind="disk") from error

    async def close(self) -> None:
        """Finish the jobs that were given, then close the file."""
        if self._closed:
            return
        self._closed = True
        await self._idle.wait()
        self._commits.put(None)
        await asyncio.to_thread(self._thread.join)
        self._writer.close()
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _flush(self) -> None:
        """Run the jobs that wait, and hand their transaction over to be committed."""
        self._flush_is_due = False
        group = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MAX_JOBS_PER_COMMIT))]
        if not group:
            self._idle.set()
            return
        try:
            self._cursor.execute("BEGIN IMMEDIATE")
            for pending in group:
                self._run(pending)
        except _DISK_ERRORS as error:
            self._undo(group, error)
            self._settle(group)
            return
        self._committing = True
        if len(group) == 1 and self._commit_s < self._quick_commit_s:
            self._commit(group)
            self._settle(group)
        else:
            self._commits.put(group)

    def _run(self, pending: _Pending[Any]) -> None:
        self._cursor.execute("SAVEPOINT job")
        try:
            pending.result = pending.job(self._cursor)
        except _DISK_ERRORS:
            raise
        except Exception as error:  # noqa: BLE001 - handed to the caller, who waits for it
            pending.error = error
            self._cursor.execute("ROLLBACK TO job")
        self._cursor.execute("RELEASE job")

    def _commit_loop(self) -> None:
        while (group := self._commits.get()) is not None:
            self._commit(group)
            self._loop.call_soon_threadsafe(self._settle, group)

    def _commit(self, group: list[_Pending[Any]]) -> None:
        begun = time.perf_counter()
        try:
            self._writer.execute("COMMIT")
            self.commits += 1
        except apsw.Error as error:
            self._undo(group, error)
        self._commit_s = time.perf_counter() - begun

    def _undo(self, group: list[_Pending[Any]], error: apsw.Error) -> None:
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")
        fault = TransientError(f"the database could not be written: {error}", kind="disk")
        for pending in group:
            pending.error = fault

    def _settle(self, group: list[_Pending[Any]]) -> None:
        """Begin the next group, so that the disk is never idle, then tell who waited for this one."""
        self._committing = False
        if not self._flush_is_due:
            self._flush()
        for pending in group:
            if pending.committed is not None and pending.error is None:
                pending.committed(pending.result)
            if pending.done.done():
                continue
            if pending.error is not None:
                pending.done.set_exception(pending.error)
            else:
                pending.done.set_result(pending.result)


def _connect(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(5_000)
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "FULL")
    connection.pragma("foreign_keys", False)
    # KiB, for each of the two connections; the values that are read most are kept by `state_cache`.
    connection.pragma("cache_size", -512)
    return connection


def _schemas() -> list[str]:
    """Every `schema*.sql` beside this module, in the order of their names."""
    found = [file for file in files("everturn.runtime.store").iterdir() if file.name.startswith("schema")]
    return [file.read_text("utf-8") for file in sorted(found, key=lambda file: file.name) if file.name.endswith(".sql")]
