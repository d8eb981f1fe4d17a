import asyncio
import math
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import apsw
import pytest

from everturn.errors import StartError, TransientError
from everturn.runtime.database.database import Database, DiskThread


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await Database.open(tmp_path / "everturn.db")
    await opened.write(lambda cursor: cursor.execute("CREATE TABLE words (word TEXT UNIQUE)") and None)
    yield opened
    await opened.close()


def add(word: str, *, then: Exception | None = None) -> "_Add":
    return _Add(word, then)


class _Add:
    def __init__(self, word: str, then: Exception | None) -> None:
        self.word = word
        self.then = then

    def __call__(self, cursor: apsw.Cursor) -> str:
        cursor.execute("INSERT INTO words VALUES (?)", (self.word,))
        if self.then is not None:
            raise self.then
        return self.word


def words(database: Database) -> list[str]:
    return [str(word) for (word,) in database.read("SELECT word FROM words ORDER BY word")]


async def test_a_written_job_is_on_disk_and_gives_its_result(database: Database, tmp_path: Path) -> None:
    result = await database.write(add("one"))

    other = apsw.Connection(str(tmp_path / "everturn.db"))
    assert result == "one"
    assert other.execute("SELECT word FROM words").fetchall() == [("one",)]
    other.close()


async def test_jobs_that_come_together_share_a_commit(database: Database) -> None:
    before = database.commits

    await asyncio.gather(*(database.write(add(str(number))) for number in range(100)))

    assert database.commits == before + 1


async def test_a_lone_job_is_committed_in_the_loop_after_a_row_of_quick_commits(tmp_path: Path) -> None:
    database = await _with_a_table(tmp_path, quick_commit_s=math.inf)

    in_loop = [await _is_committed_in_the_loop(database, str(number)) for number in range(9)]

    assert in_loop == [False] * 7 + [True] * 2
    await database.close()


async def test_another_process_that_holds_the_lock_does_not_hold_the_loop(tmp_path: Path) -> None:
    database = await _with_a_table(tmp_path, quick_commit_s=math.inf)
    other = apsw.Connection(str(tmp_path / "everturn.db"))
    other.execute("BEGIN IMMEDIATE")

    writing = asyncio.ensure_future(database.write(add("waits")))
    await _rounds(3)
    held = not writing.done()
    other.execute("COMMIT")
    other.close()

    assert held
    assert await writing == "waits"
    assert words(database) == ["waits"]
    await database.close()


async def test_the_log_is_copied_into_the_file_before_it_grows(tmp_path: Path) -> None:
    database = await _with_a_table(tmp_path, quick_commit_s=math.inf)

    for number in range(60):
        await database.write(add(f"{number} {'x' * 300_000}"))

    assert (tmp_path / "everturn.db-wal").stat().st_size < 6_000_000
    await database.close()


async def test_what_was_deleted_does_not_come_back_to_a_cache(tmp_path: Path) -> None:
    database = await _with_a_table(tmp_path, quick_commit_s=math.inf)
    for number in range(8):
        await database.write(add(str(number)))
    cache: set[str] = set()

    older = asyncio.gather(database.write(add("key"), cache.add), database.write(add("other"), cache.add))
    await _rounds(2)
    deleting = database.write(lambda cursor: cursor.execute("DELETE FROM words") and None, lambda _: cache.clear())
    await asyncio.gather(older, deleting)

    assert words(database) == []
    assert cache == set()
    await database.close()


async def test_results_are_reported_in_the_order_of_the_commits(tmp_path: Path) -> None:
    database = await _with_a_table(tmp_path, quick_commit_s=math.inf)
    for number in range(8):
        await database.write(add(str(number)))
    reported: list[str] = []

    older = asyncio.gather(*(database.write(add(word), reported.append) for word in ("older", "too")))
    await _rounds(2)
    await asyncio.gather(older, database.write(add("younger"), reported.append))

    assert reported == ["older", "too", "younger"]
    await database.close()


async def test_macos_is_asked_to_flush_the_drives_cache(database: Database) -> None:
    flags = await database.write(
        lambda cursor: [cursor.execute(f"PRAGMA {name}").get for name in ("fullfsync", "checkpoint_fullfsync")]
    )

    assert flags == [1, 1]


async def test_a_slow_disk_is_waited_for_by_the_thread_alone(tmp_path: Path) -> None:
    database = await _with_a_table(tmp_path, quick_commit_s=0.0)

    in_loop = [await _is_committed_in_the_loop(database, str(number)) for number in range(10)]

    assert not any(in_loop)
    await database.close()


async def test_jobs_that_wait_together_are_committed_by_the_thread(tmp_path: Path) -> None:
    database = await _with_a_table(tmp_path, quick_commit_s=math.inf)

    writing = asyncio.gather(database.write(add("one")), database.write(add("two")))
    await _rounds(3)

    assert not writing.done()
    await writing
    await database.close()


async def _with_a_table(folder: Path, quick_commit_s: float, disk: DiskThread | None = None) -> Database:
    """A database that has made one commit."""
    database = await Database.open(folder / "everturn.db", quick_commit_s=quick_commit_s, disk=disk)
    await database.write(lambda cursor: cursor.execute("CREATE TABLE words (word TEXT UNIQUE)") and None)
    return database


async def _is_committed_in_the_loop(database: Database, word: str) -> bool:
    """Whether it is done without anything that comes from the thread."""
    writing = asyncio.ensure_future(database.write(add(word)))
    await _rounds(3)
    done = writing.done()
    await writing
    return done


async def _rounds(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_failing_job_undoes_itself_and_not_its_neighbours(database: Database) -> None:
    outcomes = await asyncio.gather(
        database.write(add("a")),
        database.write(add("b", then=LookupError("no"))),
        database.write(add("a")),
        database.write(add("c")),
        return_exceptions=True,
    )

    assert words(database) == ["a", "c"]
    assert [type(outcome) for outcome in outcomes] == [str, LookupError, apsw.ConstraintError, str]


async def test_what_is_not_committed_is_not_read(database: Database) -> None:
    writing = asyncio.ensure_future(database.write(add("late")))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    seen = words(database)

    await writing

    assert seen == [] or writing.done()
    assert words(database) == ["late"]


async def test_a_full_disk_refuses_the_jobs_and_the_next_ones_go_on(database: Database) -> None:
    pages = database.read("PRAGMA page_count")[0][0]
    await database.write(lambda cursor: cursor.execute(f"PRAGMA max_page_count = {pages}") and None)

    outcomes = await asyncio.gather(
        database.write(add("x" * 1_000_000)), database.write(add("neighbour")), return_exceptions=True
    )
    await database.write(lambda cursor: cursor.execute("PRAGMA max_page_count = 1000000") and None)
    await database.write(add("after"))

    assert [type(outcome) for outcome in outcomes] == [TransientError, TransientError]
    assert words(database) == ["after"]


async def test_closing_finishes_what_was_given(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "everturn.db")
    await database.write(lambda cursor: cursor.execute("CREATE TABLE words (word TEXT UNIQUE)") and None)
    writing = [asyncio.ensure_future(database.write(add(str(number)))) for number in range(600)]
    await asyncio.sleep(0)

    await database.close()
    await asyncio.gather(*writing)

    other = apsw.Connection(str(tmp_path / "everturn.db"))
    assert other.execute("SELECT count(*) FROM words").fetchall() == [(600,)]
    other.close()


async def test_a_closed_database_says_so(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "everturn.db")
    await database.close()

    with pytest.raises(TransientError, match="closed"):
        await database.write(add("late"))
    with pytest.raises(TransientError, match="closed"):
        database.read("SELECT 1")


async def test_a_file_that_is_no_database_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "everturn.db"
    path.write_bytes(b"this is not a database, it is a longer piece of text" * 100)

    with pytest.raises(StartError, match="cannot open the database"):
        await Database.open(path)


class TestWritesThatNeedNotBeDurable:
    """They return when they have run, and reach the disk before all that runs after them."""

    async def test_one_returns_before_its_commit_and_shares_that_of_the_next(self, database: Database) -> None:
        before = database.commits

        await database.write(add("early"), durable=False)
        returned_at = database.commits
        await database.write(add("late"))

        assert (returned_at, database.commits) == (before, before + 1)
        assert words(database) == ["early", "late"]

    async def test_one_is_committed_though_nothing_follows(self, database: Database) -> None:
        committed = asyncio.Event()

        await database.write(add("alone"), lambda _: committed.set(), durable=False)
        await committed.wait()

        assert words(database) == ["alone"]

    async def test_settled_returns_when_they_are_on_disk(self, database: Database) -> None:
        await database.write(add("early"), durable=False)

        await database.settled()

        assert words(database) == ["early"]

    async def test_closing_takes_them_to_the_disk(self, tmp_path: Path) -> None:
        database = await _with_a_table(tmp_path, quick_commit_s=0.0)
        await database.write(add("early"), durable=False)

        await database.close()

        other = apsw.Connection(str(tmp_path / "everturn.db"))
        assert other.execute("SELECT word FROM words").fetchall() == [("early",)]
        other.close()

    async def test_a_failing_one_undoes_itself_and_says_so(self, database: Database) -> None:
        await database.write(add("a"), durable=False)

        with pytest.raises(LookupError):
            await database.write(add("b", then=LookupError("no")), durable=False)
        await database.settled()

        assert words(database) == ["a"]

    async def test_what_the_disk_refuses_for_a_while_still_comes_before_all_that_follows(self, tmp_path: Path) -> None:
        disk, reported = RefusingDisk(), list[str]()
        database = await _with_a_table(tmp_path, math.inf, disk)
        await database.write(add("early"), reported.append, durable=False)
        disk.refuses = 2

        refused = [await _outcome(database.write(add(word), reported.append)) for word in ("x", "y")]
        in_between = words(database)
        await database.write(add("late"), reported.append)

        assert [type(error) for error in refused] == [TransientError, TransientError]
        assert in_between == []
        assert reported == words(database) == ["early", "late"]
        await database.close()

    async def test_a_full_disk_refuses_what_follows_and_not_what_has_returned(self, database: Database) -> None:
        pages = database.read("PRAGMA page_count")[0][0]
        await database.write(lambda cursor: cursor.execute(f"PRAGMA max_page_count = {pages}") and None)
        await database.write(add("early"), durable=False)

        error = await _outcome(database.write(add("x" * 1_000_000)))
        await database.settled()

        assert type(error) is TransientError
        assert words(database) == ["early"]

    async def test_while_the_disk_refuses_none_returns_early(self, tmp_path: Path) -> None:
        disk = RefusingDisk()
        database = await _with_a_table(tmp_path, math.inf, disk)
        await database.write(add("early"), durable=False)
        disk.refuses = 2
        await _outcome(database.settled())

        error = await _outcome(database.write(add("second"), durable=False))
        await database.settled()

        assert type(error) is TransientError
        assert words(database) == ["early"]
        await database.close()

    async def test_what_the_disk_refused_goes_there_though_nothing_follows(self, tmp_path: Path) -> None:
        disk, committed = RefusingDisk(), asyncio.Event()
        database = await _with_a_table(tmp_path, math.inf, disk)
        disk.refuses = 1
        await database.write(add("early"), lambda _: committed.set(), durable=False)

        await committed.wait()

        assert disk.refuses == 0
        assert words(database) == ["early"]
        await database.close()

    async def test_a_disk_that_refuses_to_the_end_does_not_hold_the_close(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        disk = RefusingDisk()
        database = await _with_a_table(tmp_path, math.inf, disk)
        await database.write(add("early"), durable=False)
        disk.refuses = 1

        await database.close()

        assert "writes_lost_at_the_end" in caplog.messages

    async def test_the_one_that_follows_sees_it(self, database: Database) -> None:
        await database.write(add("key"), durable=False)

        error = await _outcome(database.write(add("key")))

        assert type(error) is apsw.ConstraintError
        assert words(database) == ["key"]


class RefusingDisk(DiskThread):
    """Refuses the next commits, so many as `refuses`: it is full for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.refuses = 0

    def commit(self, connection: apsw.Connection) -> float:
        if self.refuses:
            self.refuses -= 1
            raise apsw.FullError("full")
        return super().commit(connection)


async def _outcome(work: Awaitable[Any]) -> object:
    return (await asyncio.gather(work, return_exceptions=True))[0]
