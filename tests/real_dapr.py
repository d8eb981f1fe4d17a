"""What the tests on real Dapr need of the machine."""

import os
import shutil

import pytest
from tools.dapr.build import are_built
from tools.dapr.layout import Store
from tools.dapr.postgresql import has_postgresql


def require_dapr(runtime: str = "dapr") -> Store:
    """The store of a runtime of real Dapr. Skips if something is missing; in CI that is a failure."""
    store = Store.POSTGRESQL if runtime == Store.POSTGRESQL else Store.REDIS
    missing = None
    if not are_built():
        missing = "real Dapr is not built: `make dapr` builds it and needs Go"
    elif shutil.which("redis-server") is None:
        missing = "redis-server is missing: `make dapr` installs it where apt does, or see docs/how-to/run-on-dapr.md"
    elif store is Store.POSTGRESQL and not has_postgresql():
        missing = "PostgreSQL is missing: `make dapr` installs it if apt does, or see docs/how-to/run-on-dapr.md"
    if missing is not None and os.environ.get("CI"):
        pytest.fail(missing)
    if missing is not None:
        pytest.skip(missing)
    return store
