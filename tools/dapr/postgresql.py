"""A PostgreSQL of the system's own, on loopback and in its folder: `make up-dapr ARGS="--store postgresql"`."""

import os
import shutil
import subprocess
from pathlib import Path

from tools.dapr.layout import HOST, Layout
from tools.dapr.process import Command

_USER = "everturn"
_ASK_S = 5.0
# Each write is on disk before it is acknowledged (`synchronous_commit` and `fsync` are on by default).
_SETTINGS = {"listen_addresses": HOST, "unix_socket_directories": "", "max_connections": "200"}
# PostgreSQL refuses to run as root. In a user namespace root is somebody else, and keeps the rights to its own files;
# in a process namespace no worker outlives a killed server (man 1 unshare).
_AS_SOMEBODY = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
_IN_ITS_OWN = ("--pid", "--fork", "--kill-child")


class MissingPostgreSQLError(Exception):
    """There is no PostgreSQL to start, or it cannot run here."""


def command(layout: Layout) -> Command:
    """The server. Raises MissingPostgreSQLError."""
    settings = {**_SETTINGS, "port": str(layout.ports.postgresql)}
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    arguments = [*_not_root(*_IN_ITS_OWN), str(_binary("postgres")), "-D", str(_data(layout)), *options]
    return Command("postgresql", arguments, _environment(), f"{HOST}:{layout.ports.postgresql}")


def prepare(layout: Layout, password: str) -> None:
    """Make the database's folder, unless it is there. Raises MissingPostgreSQLError."""
    if (_data(layout) / "PG_VERSION").exists():
        return
    secret = layout.folder / "postgresql.password"
    secret.touch(mode=0o600)
    secret.write_text(password, "utf-8")
    arguments = [*_not_root(), str(_binary("initdb")), "--pgdata", str(_data(layout)), "--username", _USER]
    arguments += ["--auth", "scram-sha-256", "--pwfile", str(secret), "--encoding", "UTF8", "--locale", "C"]
    done = subprocess.run(arguments, env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        shutil.rmtree(_data(layout), ignore_errors=True)
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise MissingPostgreSQLError(f"PostgreSQL could not make {_data(layout)}: {' '.join(last)}")


def connection_string(layout: Layout, password: str) -> str:
    """For the state store (https://docs.dapr.io/reference/components-reference/supported-state-stores/setup-postgresql-v2/)."""
    return (
        f"host={HOST} port={layout.ports.postgresql} user={_USER} password={password} dbname=postgres sslmode=disable"
    )


def answers(layout: Layout) -> bool:
    """Whether the server takes connections."""
    asked = [str(_binary("pg_isready")), "--host", HOST, "--port", str(layout.ports.postgresql)]
    return subprocess.run(asked, capture_output=True, timeout=_ASK_S, check=False).returncode == 0


def has_postgresql() -> bool:
    """Whether there is a PostgreSQL to start."""
    try:
        return _binary("postgres").is_file()
    except MissingPostgreSQLError:
        return False


def _data(layout: Layout) -> Path:
    return layout.folder / "postgresql"


def _environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C"}


def _binary(name: str) -> Path:
    """`name` of the newest PostgreSQL; Debian keeps each version's programs in a folder of its own."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[-3]))
    found = versions[-1] if versions else shutil.which(name)
    if found is None:
        raise MissingPostgreSQLError(
            "PostgreSQL is missing: install it (on Debian or Ubuntu: apt install postgresql), then run make again"
        )
    return Path(found)


def _not_root(*more: str) -> list[str]:
    if os.geteuid() != 0:
        return []
    if shutil.which(_AS_SOMEBODY[0]) is None:
        raise MissingPostgreSQLError("PostgreSQL does not run as root: run make as another user")
    return [*_AS_SOMEBODY, *more, "--"]
