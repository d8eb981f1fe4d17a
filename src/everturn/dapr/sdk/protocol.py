"""The messages of Dapr's workflow protocol, as the SDK has them: what histories, work items and clients are made of.

All names of the four modules that are generated from the protocol, and the wrappers of protobuf that go with them.
"""
# ruff: noqa: F403, F405, PLC0414 - it is there to export names

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from dapr.ext.workflow._durabletask.internal.helpers import OPTIONAL_TIMER_FIRE_AT as OPTIONAL_TIMER_FIRE_AT
from dapr.ext.workflow._durabletask.internal.helpers import new_complete_workflow_action as new_complete_workflow_action
from dapr.ext.workflow._durabletask.internal.helpers import new_failure_details as new_failure_details
from dapr.ext.workflow._durabletask.internal.history_events_pb2 import *
from dapr.ext.workflow._durabletask.internal.orchestration_pb2 import *
from dapr.ext.workflow._durabletask.internal.orchestrator_actions_pb2 import *
from dapr.ext.workflow._durabletask.internal.orchestrator_service_pb2 import *
from google.protobuf.timestamp_pb2 import Timestamp as Timestamp
from google.protobuf.wrappers_pb2 import BoolValue as BoolValue
from google.protobuf.wrappers_pb2 import StringValue as StringValue

# What a worker is sent; our own `WorkflowRequest` is what it says.
WorkflowWork = WorkflowRequest


@dataclass(frozen=True, slots=True)
class Replay:
    """What a workflow did with its new events: the worker's answer to a work item, as `WorkflowResponse` carries it.

    `patches` names every patch that the replay met, in order and with repeats. `too_large`, if not None, says why
    the work item could not be sent to a worker at all.
    """

    actions: Sequence[WorkflowAction]
    custom_status: str | None = None
    version: str | None = None
    patches: Sequence[str] = ()
    too_large: str | None = None


def status_value(status: int) -> "OrchestrationStatus.ValueType":
    """A status as protobuf messages take it."""
    return cast("OrchestrationStatus.ValueType", int(status))


def scope_value(scope: int) -> "HistoryPropagationScope.ValueType":
    """A scope as protobuf messages take it."""
    return cast("HistoryPropagationScope.ValueType", int(scope))
