"""The one SQLite file: transactions in groups, one flush a group, and a reader that sees what is committed.

Jobs run in the loop's own thread, one after the other, in one open transaction. All that may wait has a thread of its
own: COMMIT and checkpoints wait for the disk, BEGIN waits for another process that holds the file's lock. Jobs that
come meanwhile make the next group. The exception is the commit of a job that is alone, on a disk that has been quick
for a while: to hand that over and to be woken takes longer than the commit. Each job has a savepoint: a failing one
undoes only itself. `write` returns after the commit: what is acknowledged is on disk (`synchronous=FULL`,
https://www.sqlite.org/pragma.html#pragma_synchronous).

A write that is not `durable` returns when its job has run. Its transaction stays open for the writes that follow, so
that they share a commit. It is on disk before every write that runs after it: if a commit fails, the jobs that have
returned run again at the head of the next transaction, in their order, on the same data, with the same result. So code
that reaches out of the process only has to wait for a later write of its own, or for `settled`.
"""

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

import apsw

from everturn.errors import StartError, TransientError
from everturn.runtime.database.migrations import migrate, migrations

log = logging.getLogger(__name__)

T = TypeVar("T")
Job = Callable[[apsw.Cursor], T]

DATABASE_FILE = "everturn.db"
# More than this in one commit only makes the first of them wait longer.
_MAX_JOBS_PER_COMMIT = 256
# A commit that takes less is quick. After so many quick ones in a row a lone job's commit is made in the loop.
_QUICK_COMMIT_S = 0.001
_QUICK_COMMITS = 8
# Seconds that a transaction stays open for further writes, and the pause before jobs that have returned run again.
_OPEN_S = 0.01
_AGAIN_S = 0.25
# Pages in the write-ahead log at which it is copied into the file: SQLite's own default.
_CHECKPOINT_PAGES = 1_000
# How long the thread waits for another process that holds the lock, and the loop for one that is opening the file.
_BUSY_MS = 5_000
_BUSY_READ_MS = 20
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
    """A job until it is on disk. `returned`: its caller has gone on, since it was not to be `durable`."""

    job: Job[T]
    done: "asyncio.Future[T]"
    committed: Callable[[T], None] | None = None
    durable: bool = True
    returned: bool = False
    result: T | None = None
    error: BaseException | None = None


class Disk(Protocol):
    """What a database waits for. In production `DiskThread`; the simulator's is a machine that dies by plan."""

    def connect(self, path: Path) -> apsw.Connection:
        """A new connection. Raises apsw.Error."""
        ...

    def commit(self, connection: apsw.Connection) -> float:
        """Commit the open transaction; how many seconds that took. Called where the work of `submit` runs, or in the
        loop. Raises apsw.Error.
        """
        ...

    def submit(self, work: Callable[[], None]) -> None:
        """Have `work` done soon, after all that was given before. It reports by `call_soon_threadsafe`."""
        ...

    async def close(self) -> None:
        """Return when all that was given is done; nothing is given after this."""
        ...


class DiskThread:
    """The `Disk` of production: a thread of its own, from the first work on."""

    def __init__(self) -> None:
        self._given: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def connect(self, path: Path) -> apsw.Connection:
        return connect(path)

    def commit(self, connection: apsw.Connection) -> float:
        begun = time.perf_counter()
        connection.execute("COMMIT")
        return time.perf_counter() - begun

    def submit(self, work: Callable[[], None]) -> None:
        self._given.put(work)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="everturn-writer", daemon=True)
            self._thread.start()

    async def close(self) -> None:
        if self._thread is not None:
            self._given.put(None)
            await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while (work := self._given.get()) is not None:
            work()


class Database:
    """Open with `open`, in the loop that will use it; end with `close`. `commits` counts them."""

    def __init__(self, path: Path, quick_commit_s: float, disk: Disk) -> None:
        """Raises apsw.Error if the file cannot be opened, StartError if it is newer than this release."""
        self._disk = disk
        self._writer = disk.connect(path)
        migrate(self._writer, migrations())
        self._writer.set_busy_timeout(0)
        self._writer.set_wal_hook(self._note_log_size)  # in the place of SQLite's own, which checkpoints in a commit
        self._cursor = self._writer.cursor()
        self._reader: apsw.Connection | None = disk.connect(path)
        self._reader.set_busy_timeout(_BUSY_READ_MS)
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Pending[Any]] = deque()
        self._in_transaction: list[_Pending[Any]] = []  # in the order in which they ran
        self._pushing: asyncio.TimerHandle | None = None
        self._refused = False
        self._committing = False
        self._flush_is_due = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self._quick_commit_s = quick_commit_s
        self._quick_commits = 0
        self._log_pages = 0
        self.commits = 0

    @classmethod
    async def open(cls, path: Path, *, quick_commit_s: float = _QUICK_COMMIT_S, disk: Disk | None = None) -> Self:
        """Open or create the file, bring its schema up to date. Raises StartError if that is impossible.

        `quick_commit_s`: a commit that takes less is quick; a lone job's commit is made in the loop after some of them.
        `disk`: what commits and waits, a thread if there is none.
        """
        try:
            return cls(path, quick_commit_s, disk or DiskThread())
        except (apsw.Error, OSError) as error:
            raise StartError(f"cannot open the database {str(path)!r}: {error}") from error

    async def write(self, job: Job[T], committed: Callable[[T], None] | None = None, *, durable: bool = True) -> T:
        """Run `job` in the loop's thread inside a transaction; its result, once committed.

        A job is a few statements: the loop waits for it. `committed` gets the result first, in the order of the
        commits, also if the caller has gone meanwhile. An exception of the job undoes it alone and is raised here.
        Raises TransientError (kind `disk`) if the disk refuses, for example when it is full: then nothing of the job
        was kept. Not `durable`: returns once the job has run; what it does follows from the data alone.
        """
        if self._closed:
            raise TransientError("the database is closed", kind="stopping")
        # While the disk refuses writes, none returns early: one that is refused leaves nothing behind.
        return await self._add(_Pending(job, self._loop.create_future(), committed, durable or self._refused))

    async def settled(self) -> None:
        """Return when all writes that have returned are on disk. Raises TransientError if the disk refuses them."""
        if self._has_returned():
            await self._add(_Pending(_nothing, self._loop.create_future()))

    def read(self, sql: str, bindings: Sequence[Any] | dict[str, Any] = ()) -> list[tuple[Any, ...]]:
        """Rows of a query, as of the last commit. Runs in the calling thread: for small, indexed reads.

        Raises TransientError (kind `disk`) if the file cannot be read.
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
        self._push()
        await self._idle.wait()
        await self._disk.close()
        self._writer.close()
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _add(self, pending: _Pending[T]) -> "asyncio.Future[T]":
        self._waiting.append(pending)
        self._idle.clear()
        if not self._committing and not self._flush_is_due:
            # In the loop's next round, so that the jobs of this round share a commit.
            self._flush_is_due = True
            self._loop.call_soon(self._flush)
        return pending.done

    def _has_returned(self) -> bool:
        """Whether a job that has returned is not on disk yet."""
        waits_again = bool(self._waiting) and self._waiting[0].returned
        return waits_again or any(pending.returned for pending in self._in_transaction)

    def _push(self) -> None:
        """Have committed what has returned, though nothing follows it."""
        self._pushing = None
        if self._has_returned():
            done: asyncio.Future[None] = self._loop.create_future()
            done.add_done_callback(asyncio.Future.exception)  # what it is about is tried again
            self._add(_Pending(_nothing, done))

    def _push_in(self, seconds: float) -> None:
        if self._pushing is None:
            self._pushing = self._loop.call_later(seconds, self._push)

    def _flush(self) -> None:
        """Run the jobs that wait in the open transaction, or begin one; the thread waits for another process's lock."""
        self._flush_is_due = False
        if not self._waiting or self._waiting[-1].returned:
            if not self._has_returned():
                self._idle.set()
            return
        self._committing = True
        group = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MAX_JOBS_PER_COMMIT))]
        try:
            if not self._writer.in_transaction:
                if all(pending.job is _nothing for pending in group):  # what they waited for is on disk already
                    self._in_transaction = group
                    self._settle()
                    return
                self._cursor.execute("BEGIN IMMEDIATE")
        except apsw.BusyError:
            self._disk.submit(partial(self._wait_for_lock, group))
        except apsw.Error as error:
            self._in_transaction += group
            self._undo(error)
            self._settle()
        else:
            self._run_all(group)

    def _run_all(self, group: "list[_Pending[Any]]") -> None:
        """Run the jobs in the open transaction, and have it committed if one of them waits for that."""
        self._in_transaction += group
        try:
            for pending in group:
                self._run(pending)
        except _DISK_ERRORS as error:
            self._undo(error)
            self._settle()
            return
        for pending in group:
            if not pending.durable:
                self._return(pending)
        waiting = sum(pending.durable for pending in self._in_transaction)
        if not waiting:
            self._push_in(_OPEN_S)
            self._next()
        elif waiting == 1 and self._quick_commits >= _QUICK_COMMITS and self._log_pages < _CHECKPOINT_PAGES:
            self._commit()
            self._settle()
        else:
            self._disk.submit(self._commit_in_thread)

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

    def _return(self, pending: _Pending[Any]) -> None:
        """Let the caller go on; a job that failed is done with."""
        if pending.error is not None:
            self._in_transaction.remove(pending)
            if pending.returned:  # only if another program has written to the file in between
                log.error("write_lost", extra={"error": type(pending.error).__name__})
        pending.returned = pending.error is None
        _report(pending)

    def _wait_for_lock(self, group: "list[_Pending[Any]]") -> None:
        self._writer.set_busy_timeout(_BUSY_MS)
        try:
            self._writer.execute("BEGIN IMMEDIATE")
        except apsw.Error as error:
            self._in_transaction += group
            self._undo(error)
            self._loop.call_soon_threadsafe(self._settle)
        else:
            self._loop.call_soon_threadsafe(self._run_all, group)
        finally:
            self._writer.set_busy_timeout(0)

    def _commit_in_thread(self) -> None:
        self._commit()
        if self._log_pages >= _CHECKPOINT_PAGES:
            self._checkpoint()
        self._loop.call_soon_threadsafe(self._settle)

    def _commit(self) -> None:
        try:
            is_quick = self._disk.commit(self._writer) < self._quick_commit_s
            self.commits += 1
            self._refused = False
        except apsw.Error as error:
            is_quick = False
            self._undo(error)
        self._quick_commits = self._quick_commits + 1 if is_quick else 0

    def _note_log_size(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self._log_pages = pages
        return apsw.SQLITE_OK

    def _checkpoint(self) -> None:
        """Copy what is committed into the file, before the next transaction: only then can the log begin again."""
        self._log_pages = 0
        try:
            self._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error as error:
            log.warning("checkpoint_failed", extra={"reason": str(error)})

    def _undo(self, error: apsw.Error) -> None:
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")
        self._refused = True
        fault = TransientError(f"the database could not be written: {error}", kind="disk")
        for pending in self._in_transaction:
            pending.error = fault

    def _settle(self) -> None:
        """Report the transaction to those who wait for it; only then may the next one begin."""
        ended, self._in_transaction = self._in_transaction, []
        if self._pushing is not None:
            self._pushing.cancel()
            self._pushing = None
        for pending in ended:
            if pending.committed is not None and pending.error is None:
                pending.committed(pending.result)
            _report(pending)
        again = [pending for pending in ended if pending.returned and pending.error is not None]
        if again and self._closed:
            log.error("writes_lost_at_the_end", extra={"count": len(again)})
        elif again:
            for pending in reversed(again):
                pending.error = None
                self._waiting.appendleft(pending)
            self._push_in(_AGAIN_S)
        self._next()

    def _next(self) -> None:
        self._committing = False
        if not self._flush_is_due:
            self._flush()


def _report(pending: _Pending[Any]) -> None:
    """Let the caller go on, if it still waits."""
    if pending.done.done():
        return
    if pending.error is not None:
        pending.done.set_exception(pending.error)
    else:
        pending.done.set_result(pending.result)


def _nothing(_: apsw.Cursor) -> None:
    """A job that only waits for those before it."""


def connect(path: Path) -> apsw.Connection:
    """A connection to the file with what this database needs of SQLite. Raises apsw.Error."""
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(_BUSY_MS)
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "FULL")
    # For macOS, whose fsync leaves data in the drive's cache (https://www.sqlite.org/pragma.html#pragma_fullfsync).
    connection.pragma("fullfsync", True)
    connection.pragma("checkpoint_fullfsync", True)
    connection.pragma("foreign_keys", False)
    # KiB, for each connection; the values that are read most are kept by the state store's cache.
    connection.pragma("cache_size", -512)
    return connection
