"""The messages of Dapr's workflow protocol, as the SDK has them: what histories, work items and clients are made of.

All names of the four modules that are generated from the protocol, and the wrappers of protobuf that go with them.
"""
# ruff: noqa: F403, F405, PLC0414 - it is there to export names

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
