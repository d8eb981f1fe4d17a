import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest

from everturn.errors import StartError, TransientError
from everturn.runtime.store.database import Database


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


async def test_a_lone_job_is_committed_in_the_loop_where_the_disk_is_quick(tmp_path: Path) -> None:
    database = await _with_one_commit(tmp_path, quick_commit_s=math.inf)

    writing = asyncio.ensure_future(database.write(add("alone")))
    await _rounds(3)

    assert writing.done()
    await database.close()


async def test_a_slow_disk_is_waited_for_by_the_thread_alone(tmp_path: Path) -> None:
    database = await _with_one_commit(tmp_path, quick_commit_s=0.0)

    writing = asyncio.ensure_future(database.write(add("alone")))
    await _rounds(3)

    assert not writing.done()
    await writing
    await database.close()


async def test_jobs_that_wait_together_are_committed_by_the_thread(tmp_path: Path) -> None:
    database = await _with_one_commit(tmp_path, quick_commit_s=math.inf)

    writing = asyncio.gather(database.write(add("one")), database.write(add("two")))
    await _rounds(3)

    assert not writing.done()
    await writing
    await database.close()


async def _with_one_commit(folder: Path, quick_commit_s: float) -> Database:
    """A database that knows how quick its disk is."""
    database = await Database.open(folder / "everturn.db", quick_commit_s=quick_commit_s)
    await database.write(lambda cursor: cursor.execute("CREATE TABLE words (word TEXT UNIQUE)") and None)
    return database


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
