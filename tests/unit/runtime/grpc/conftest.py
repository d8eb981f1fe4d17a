import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from everturn.dapr.sdk.loggers import tame_sdk_loggers
from tests.unit.runtime.grpc.task_hub_rig import TaskHubRig


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[TaskHubRig]:
    tame_sdk_loggers()
    rig = TaskHubRig(tmp_path)
    await rig.open()
    try:
        yield rig
    finally:
        await rig.close()


@pytest.fixture(autouse=True)
def _brief_turns() -> Iterator[None]:
    """Tests that await a condition keep the loop busy: other threads must not wait 5 ms to be heard."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0002)
    yield
    sys.setswitchinterval(before)
