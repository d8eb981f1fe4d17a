"""`make up-dapr`: both services on real Dapr, each with a sidecar, until Ctrl-C or SIGTERM.

The composition root of that way to run; `everturn up` is the one of the embedded runtime.
"""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from pydantic_settings import DotEnvSettingsSource

from everturn.errors import SettingError
from everturn.settings import Settings, load_settings
from tools.dapr.build import BuildError, build
from tools.dapr.commands import MissingRedisError
from tools.dapr.layout import HOST, Layout, Store, usual_ports
from tools.dapr.postgresql import MissingPostgreSQLError
from tools.dapr.process import Process
from tools.dapr.system import DaprSystem, StoppedError, SystemFailedError

_FOLDER = Path(".everturn-dapr")
_COMPONENTS = Path(__file__).parent.parent.parent / "components"
_LOOK_EVERY_S = 0.5
# The layout has them.
_PORTS_OF_SIDECARS = frozenset({"DAPR_HTTP_PORT", "DAPR_GRPC_PORT"})


def main() -> int:
    parser = argparse.ArgumentParser(prog="make up-dapr", description="Both services on real Dapr, until Ctrl-C.")
    parser.add_argument("--store", type=Store, choices=[*Store], default=Store.REDIS, help="where state is kept")
    store = parser.parse_args().store
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    try:
        settings = load_settings()
        return _run(compose(settings, build(), stopping, store))
    except SettingError as error:
        return _refuse(error.message, 2)
    except (BuildError, MissingRedisError, MissingPostgreSQLError, SystemFailedError) as error:
        return _refuse(str(error), 1)


def compose(settings: Settings, binaries: Path, stopping: threading.Event, store: Store) -> DaprSystem:
    """The system that `settings`, and the `.env` file of the working folder, ask for."""
    folder = _FOLDER.resolve() if store is Store.REDIS else _FOLDER.resolve() / str(store)
    ports = usual_ports(settings.chat_port, settings.memory_port)
    layout = Layout(folder, ports, binaries, _COMPONENTS, store)
    return DaprSystem(layout, _told_by_file(), stop_s=settings.shutdown_s, told=_tell, stopping=stopping)


def _told_by_file() -> Mapping[str, str]:
    """What only the `.env` file sets: the processes start in another folder, and sidecars read no such file."""
    told = {name.upper(): value for name, value in DotEnvSettingsSource(Settings).env_vars.items()}
    known = {name.upper() for name, value in os.environ.items() if value} | _PORTS_OF_SIDECARS
    return {name: value for name, value in told.items() if value and name not in known}


def _run(system: DaprSystem) -> int:
    try:
        system.start()
        _say(f"Everturn runs on Dapr. Ctrl-C stops it. Logs: {system.layout.logs}")
        _say("Try:")
        _say(
            f"  curl -X POST http://{HOST}:{system.layout.ports.chat.app}/chat/ -H 'Content-Type: application/json' "
            """-d '{"user_id":"junaid","text":"Hi there"}'"""
        )
        while not system.stopping.wait(_LOOK_EVERY_S):
            system.check()
    except StoppedError:
        return 0
    finally:
        _say("stopping")
        system.stop()
    return 0


def _tell(process: Process) -> None:
    _say(f"  {process.command.name:<15} {process.command.listens:<26} process {process.pid}")


def _say(line: str) -> None:
    print(line, flush=True)


def _refuse(sentence: str, code: int) -> int:
    print(f"dapr: {sentence}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
