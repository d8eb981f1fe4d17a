from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.runtime_workflows.rig import Rig


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """Not open yet: a test registers what it needs, then opens it."""
    rig = Rig(tmp_path)
    yield rig
    if hasattr(rig, "engine"):
        await rig.close()
