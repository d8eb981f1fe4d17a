"""The real machine and its client are those of the end-to-end tests; the system in one loop is that of the system's."""

from tests.e2e.conftest import client, machine
from tests.system.conftest import clock, endpoint, system

__all__ = ["client", "clock", "endpoint", "machine", "system"]
