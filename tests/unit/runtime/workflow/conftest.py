import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.unit.runtime.workflow.rig import Rig


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """Not open yet: a test registers what it needs, then opens it."""
    rig = Rig(tmp_path)
    yield rig
    if hasattr(rig, "engine"):
        await rig.close()


@pytest.fixture(autouse=True)
def _brief_turns() -> Iterator[None]:
    """Tests that await a condition keep the loop busy: the committing thread must not wait 5 ms to be heard."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0002)
    yield
    sys.setswitchinterval(before)
