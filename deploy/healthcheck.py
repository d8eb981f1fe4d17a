"""The image's health check: `healthcheck.py [PATH]` asks each service of this container for PATH (default /healthz).

A container runs one service or both, so a port that nobody listens on says nothing. Exit code 0: at least one answered,
and each that answered said 200. Nothing but Python's library: it runs every few seconds.
"""

import http.client
import os
import sys
from collections.abc import Iterable

_TIMEOUT_S = 2.0  # of each service; both together take less than the Dockerfile gives the check


def status(port: int, path: str) -> int | None:
    """What the service on `port` answers; None if nobody listens, 0 if what listens gives no answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except ConnectionRefusedError:
        return None
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def is_healthy(statuses: Iterable[int | None]) -> bool:
    answers = [each for each in statuses if each is not None]
    return bool(answers) and all(each == 200 for each in answers)


def main(arguments: list[str]) -> int:
    path = arguments[0] if arguments else "/healthz"
    ports = (os.environ.get("EVERTURN_CHAT_PORT") or "8010", os.environ.get("EVERTURN_MEMORY_PORT") or "8001")
    return 0 if is_healthy(status(int(port), path) for port in ports) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
