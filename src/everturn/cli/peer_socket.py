"""The Unix socket on which a runtime hears the others that share its data folder."""

import contextlib
import socket
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from everturn.cli.listeners import WebServer
from everturn.runtime.neighbours import Neighbours

_BACKLOG = 2048
_PREFIX, _NAME = "everturn-", "runtime.sock"


@contextlib.asynccontextmanager
async def among_neighbours(neighbours: Neighbours, limit_s: float) -> AsyncIterator[None]:
    """Hear the others, and be known to them. `limit_s`: seconds that requests under way get in the end.

    The socket lies in a folder of its own that only this user may enter, and not in the data folder: the path of a
    socket has little more than a hundred characters (unix(7)).
    """
    _remove(neighbours.left_socket())
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder:
        path = Path(folder, _NAME)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        server = WebServer(neighbours.asgi, listener)
        server.start()
        await neighbours.start(path)
        try:
            yield
        finally:
            await neighbours.stop()
            await server.stop(limit_s)


def _remove(left: Path | None) -> None:
    """Clear away what a killed runtime left, and nothing that does not look like it."""
    if left is None or left.name != _NAME or not left.parent.name.startswith(_PREFIX):
        return
    with contextlib.suppress(OSError):
        left.unlink()
        left.parent.rmdir()
