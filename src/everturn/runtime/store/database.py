"""The one SQLite file: a single writer thread with group commit, and a reader for the loop's own thread.

Jobs that wait together are committed together, each in a savepoint of its own, so that a failing job undoes only
itself. `write` returns after the commit: what is acknowledged is on disk (`synchronous=FULL`,
https://www.sqlite.org/pragma.html#pragma_synchronous).
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Generic, TypeVar

import apsw

from everturn.errors import StartError, TransientError

T = TypeVar("T")
Job = Callable[[apsw.Cursor], T]

# More than this in one commit only makes the first of them wait longer.
_MAX_JOBS_PER_COMMIT = 256


@dataclass(slots=True)
class _Pending(Generic[T]):
    job: Job[T]
    done: "asyncio.Future[T]"
    result: T | None = None
    error: BaseException | None = None


class Database:
    """Open with `open`, in the loop that will use it; end with `close`."""

    def __init__(self, path: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._path = path
        self._loop = loop
        self._jobs: queue.SimpleQueue[_Pending[Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_loop, name="everturn-writer", daemon=True)
        self._reader: apsw.Connection | None = None
        self._closed = False
        self.commits = 0

    @classmethod
    async def open(cls, path: Path) -> "Database":
        """Open or create the file, bring its schema up to date. Raises StartError where that is impossible."""
        database = cls(path, asyncio.get_running_loop())
        try:
            with _connect(path) as writer:
                for schema in _schemas():
                    writer.execute(schema)
            writer.close()
            database._reader = _connect(path)
        except (apsw.Error, OSError) as error:
            raise StartError(f"cannot open the database {str(path)!r}: {error}") from error
        database._thread.start()
        return database

    async def write(self, job: Job[T]) -> T:
        """Run `job` in the writer thread inside a transaction; its result, once committed.

        An exception of the job undoes it alone and is raised here. Raises TransientError (kind `disk`) where the
        commit itself fails, for example on a full disk: then nothing of the job was kept.
        """
        if self._closed:
            raise TransientError("the database is closed", kind="stopping")
        pending: _Pending[T] = _Pending(job, self._loop.create_future())
        self._jobs.put(pending)
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
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _write_loop(self) -> None:
        connection = _connect(self._path)
        stopping = False
        while not stopping:
            batch, stopping = self._next_batch()
            if batch:
                self._commit(connection, batch)
        connection.close()

    def _next_batch(self) -> tuple[list[_Pending[Any]], bool]:
        batch: list[_Pending[Any]] = []
        item = self._jobs.get()
        while item is not None:
            batch.append(item)
            if len(batch) == _MAX_JOBS_PER_COMMIT:
                return batch, False
            try:
                item = self._jobs.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True

    def _commit(self, connection: apsw.Connection, batch: list[_Pending[Any]]) -> None:
        try:
            with connection:
                for pending in batch:
                    self._run(connection, pending)
            self.commits += 1
        except apsw.Error as error:
            fault = TransientError(f"the database could not be written: {error}", kind="disk")
            for pending in batch:
                pending.error = fault
        self._loop.call_soon_threadsafe(_settle, batch)

    @staticmethod
    def _run(connection: apsw.Connection, pending: _Pending[Any]) -> None:
        try:
            with connection:
                pending.result = pending.job(connection.cursor())
        except (apsw.FullError, apsw.IOError, apsw.CorruptError, apsw.NotADBError, apsw.ReadOnlyError):
            raise
        except Exception as error:  # noqa: BLE001 - handed to the caller, who waits for it
            pending.error = error


def _settle(batch: list[_Pending[Any]]) -> None:
    for pending in batch:
        if pending.done.done():
            continue
        if pending.error is not None:
            pending.done.set_exception(pending.error)
        else:
            pending.done.set_result(pending.result)


def _schemas() -> list[str]:
    """The text of each `schema*.sql` beside this module, in the order of their names."""
    found = [item for item in files("everturn.runtime.store").iterdir() if item.name.startswith("schema")]
    return [item.read_text("utf-8") for item in sorted(found, key=lambda item: item.name)]


def _connect(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(5_000)
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "FULL")
    connection.pragma("foreign_keys", False)
    return connection
