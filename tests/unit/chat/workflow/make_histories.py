"""`python -m tests.unit.chat.workflow.make_histories DATA_FOLDER FILE`: keep the turns' histories of a data folder.

The folder is what a release left; of each kind of story (by the names of its events) one history is kept.
"""

import asyncio
import base64
import json
import sys
from pathlib import Path

from everturn.contracts.events import CHAT_APP_ID
from everturn.dapr.sdk import protocol as pb
from everturn.runtime.embedded import EmbeddedRuntime, RuntimeOptions


async def histories(folder: Path) -> dict[str, list[str]]:
    """By a name made of its activities: the events of a history, each in base64."""
    runtime = await EmbeddedRuntime.open(folder, options=RuntimeOptions())
    found: dict[str, list[str]] = {}
    try:
        hub, client = runtime.engine.task_hub(CHAT_APP_ID), runtime.engine.client(CHAT_APP_ID)
        async for instance_id in client.iter_workflow_instance_ids():
            history = await hub.get_instance_history(pb.GetInstanceHistoryRequest(instanceId=instance_id))
            names = [event.taskScheduled.name for event in history.events if event.HasField("taskScheduled")]
            ended = any(event.HasField("executionCompleted") for event in history.events)
            is_turn = history.events[1].executionStarted.name == "chat_workflow"
            if is_turn:
                events = [base64.b64encode(event.SerializeToString()).decode() for event in history.events]
                found.setdefault(f"{' '.join(names)}{'' if ended else ' …'}", events)
    finally:
        await runtime.stop(1.0)
    return found


if __name__ == "__main__":
    kept = asyncio.run(histories(Path(sys.argv[1])))
    Path(sys.argv[2]).write_text(json.dumps(kept, indent=1, ensure_ascii=False, sort_keys=True) + "\n", "utf-8")
