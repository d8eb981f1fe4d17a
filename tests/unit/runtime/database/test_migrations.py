from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from everturn.errors import StartError
from everturn.runtime.database.database import Database
from everturn.runtime.database.migrations import migrate, migrations

ONE = "CREATE TABLE one (x); INSERT INTO one VALUES (1);"
TWO = "ALTER TABLE one ADD COLUMN y; UPDATE one SET y = x + 1;"


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[apsw.Connection]:
    opened = apsw.Connection(str(tmp_path / "everturn.db"))
    yield opened
    opened.close()


def test_each_script_runs_once_and_in_order(connection: apsw.Connection) -> None:
    migrate(connection, [ONE])
    migrate(connection, [ONE, TWO])
    migrate(connection, [ONE, TWO])

    assert connection.execute("SELECT x, y FROM one").fetchall() == [(1, 2)]
    assert connection.pragma("user_version") == 2


def test_a_script_that_fails_leaves_the_version_before_it(connection: apsw.Connection) -> None:
    with pytest.raises(apsw.SQLError):
        migrate(connection, [ONE, "UPDATE one SET x = 5; UPDATE nowhere SET x = 5;"])

    assert connection.execute("SELECT x FROM one").fetchall() == [(1,)]
    assert connection.pragma("user_version") == 1


async def test_a_file_of_a_release_without_versions_keeps_what_is_in_it(
    connection: apsw.Connection, tmp_path: Path
) -> None:
    connection.execute(migrations()[0])
    connection.execute("INSERT INTO state (store, key, value, etag) VALUES ('store', 'key', '1', '1')")

    database = await Database.open(tmp_path / "everturn.db")

    assert database.read("SELECT key FROM state") == [("key",)]
    assert database.read("PRAGMA user_version") == [(len(migrations()),)]
    await database.close()


async def test_a_file_of_a_later_release_is_refused_in_one_sentence(
    connection: apsw.Connection, tmp_path: Path
) -> None:
    connection.pragma("user_version", 1_000)

    with pytest.raises(StartError, match=r"^the database has version 1000, this release of Everturn reads up to"):
        await Database.open(tmp_path / "everturn.db")
