"""What the runtimes that share a data folder know of one another: a file in each app's folder."""

import contextlib
import json
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from everturn.runtime.resources.components import TopicName

log = logging.getLogger(__name__)

_FILE = "runtime.json"


@dataclass(frozen=True, slots=True)
class Peer:
    """Another app's runtime. `socket` is the path on which it listens, None once it has said goodbye."""

    app_id: str
    socket: str | None
    topics: frozenset[TopicName]


class PeerFolder:
    """The folder that holds the apps' folders, seen by the runtime of `app_id`."""

    def __init__(self, apps: Path, app_id: str) -> None:
        self._apps = apps
        self.app_id = app_id
        self._seen: dict[str, tuple[int, Peer | None]] = {}

    @property
    def own_folder(self) -> Path:
        return self._folder_of(self.app_id)

    def announce(self, socket: Path | None, topics: Iterable[TopicName]) -> None:
        """Write down where this runtime listens, and to what its app subscribes. Raises OSError."""
        said = {
            "app_id": self.app_id,
            "socket": str(socket) if socket is not None else None,
            "topics": sorted(list(topic) for topic in topics),
        }
        file = self.own_folder / _FILE
        fresh = file.with_suffix(".new")
        with fresh.open("w", encoding="utf-8") as stream:
            json.dump(said, stream)
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(file)

    def find(self, app_id: str) -> Peer | None:
        """The runtime of `app_id`, also one that is down; None if there never was one."""
        return self._read(self._folder_of(app_id))

    def others(self) -> dict[str, Peer]:
        """By app id. Files that have not changed since the last look are not read again."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self._apps) as entries:
            found = [self._read(Path(entry.path)) for entry in entries]
            return {peer.app_id: peer for peer in found if peer is not None and peer.app_id != self.app_id}
        return {}

    def _folder_of(self, app_id: str) -> Path:
        return self._apps / quote(app_id, safe="")

    def _read(self, folder: Path) -> Peer | None:
        file = folder / _FILE
        try:
            changed = file.stat().st_mtime_ns
            known = self._seen.get(folder.name)
            if known is None or known[0] != changed:
                known = self._seen[folder.name] = (changed, _peer(json.loads(file.read_text("utf-8"))))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            log.warning("peer_unreadable", extra={"folder": folder.name, "reason": type(error).__name__})
            return None
        return known[1]


def _peer(said: Any) -> Peer:
    """Raises ValueError if it is not what `announce` writes."""
    match said:
        case {"app_id": str(app_id), "socket": str() | None as socket, "topics": list(topics)}:
            return Peer(app_id, socket, frozenset((str(pubsub), str(topic)) for pubsub, topic in topics))
        case _:
            raise ValueError("not a peer's file")
