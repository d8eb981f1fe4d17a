"""Stalls: a workflow whose code no longer fits its history is held, not failed, until fitting code is back; one whose
turn is too large to be sent, until a worker takes it.

Rules: github.com/dapr/dapr pkg/actors/targets/workflow/orchestrator/versioning.go. The runtime decides patch stalls; a
worker says by an action that it does not have the version.
"""

from collections import Counter
from collections.abc import Sequence

from everturn.runtime.engine.events import event_at
from everturn.runtime.engine.state import InstanceState
from everturn.runtime.sdk import (
    PATCH_MISMATCH,
    PAYLOAD_SIZE_EXCEEDED,
    VERSION_NOT_AVAILABLE,
    ExecutionStalledEvent,
    HistoryEvent,
    Replay,
    Timestamp,
)


def stall_of(state: InstanceState, replay: Replay, at: Timestamp) -> list[HistoryEvent] | None:
    """None where the turn counts; else the events to append: one, or none where the same stall is recorded already."""
    if replay.too_large is not None:
        reason, description = PAYLOAD_SIZE_EXCEEDED, replay.too_large
    elif any(action.HasField("workflowVersionNotAvailable") for action in replay.actions):
        reason, description = VERSION_NOT_AVAILABLE, f"Version not available: {state.version}"
    elif list(replay.patches[: len(state.patches)]) != state.patches:
        reason = PATCH_MISMATCH
        description = f"Patch mismatch: history has {state.patches}, the worker has {list(replay.patches)}"
    else:
        return None
    if state.stalled and state.last_stall == description:
        return []
    return [event_at(at, executionStalled=ExecutionStalledEvent(reason=reason, description=description))]


def new_patches(recorded: Sequence[str], met: Sequence[str]) -> list[str]:
    """The patches of `met` that are not recorded, counted with repeats, in order."""
    left = Counter(recorded)
    fresh = []
    for patch in met:
        if left[patch] > 0:
            left[patch] -= 1
        else:
            fresh.append(patch)
    return fresh
