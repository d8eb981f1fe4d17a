"""What the tests on real Dapr need of the machine."""

import os
import shutil

import pytest
from tools.dapr.build import are_built


def require_dapr() -> None:
    """Skip where real Dapr or Redis is missing; in CI that is a failure."""
    missing = None
    if not are_built():
        missing = "real Dapr is not built: `make dapr` builds it and needs Go"
    elif shutil.which("redis-server") is None:
        missing = "redis-server is missing: `make dapr` installs it where apt does, or see docs/how-to/run-on-dapr.md"
    if missing is not None and os.environ.get("CI"):
        pytest.fail(missing)
    if missing is not None:
        pytest.skip(missing)
