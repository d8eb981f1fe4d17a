"""A program written with Dapr's Python SDK, beside a sidecar: its workflow worker and its clients."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc
import httpx2
from dapr.clients import DaprClient
from dapr.ext.workflow import DaprWorkflowClient, WorkflowRuntime, WorkflowState

from tests.conformance.sdk.app import PATIENCE_S
from tests.conformance.sdk.sidecars import Sidecar, Sidecars

T = TypeVar("T")
Registered = Callable[..., Any]


class Calls:
    """What the activities of a test were called with, in order."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._all: list[Any] = []

    def add(self, value: Any) -> None:
        with self._changed:
            self._all.append(value)
            self._changed.notify_all()

    @property
    def all(self) -> list[Any]:
        with self._changed:
            return list(self._all)

    def wait_for(self, count: int) -> list[Any]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._all) >= count, PATIENCE_S), f"only {self._all}"
            return list(self._all)


@dataclass(frozen=True, slots=True)
class Program:
    """`name` is of one test alone: workflows, instances, keys and messages begin with it, for tests share a sidecar."""

    name: str
    sidecars: Sidecars
    runtime: WorkflowRuntime
    workflows: DaprWorkflowClient
    dapr: DaprClient
    http: httpx2.Client
    calls: Calls = field(default_factory=Calls)

    @property
    def sidecar(self) -> Sidecar:
        return self.sidecars.open

    def named(self, what: str) -> str:
        return f"{self.name}-{what}"

    def workflow(self, function: Registered) -> Registered:
        """Register a workflow; a worker takes in what is registered while it runs."""
        self.runtime.register_workflow(function, name=self.named(function.__name__))
        return function

    def activity(self, function: Registered) -> Registered:
        self.runtime.register_activity(function, name=self.named(function.__name__))
        return function

    def start(self, workflow: Registered, argument: Any = None, *, instance: str | None = None) -> str:
        """Start a workflow; the id of its instance."""
        instance_id = self.named(instance) if instance is not None else None
        return str(self.workflows.schedule_new_workflow(workflow, input=argument, instance_id=instance_id))

    def state(self, instance_id: str) -> WorkflowState:
        state = settled(lambda: self.workflows.get_workflow_state(instance_id))
        assert state is not None
        return state

    def status(self, instance_id: str) -> str:
        return str(self.state(instance_id).runtime_status.name)

    def ended(self, instance_id: str) -> WorkflowState:
        """The state of an instance once it has ended."""
        state = self.workflows.wait_for_workflow_completion(instance_id, timeout_in_seconds=int(PATIENCE_S))
        assert state is not None
        return state

    def run(self, workflow: Registered, argument: Any = None) -> WorkflowState:
        return self.ended(self.start(workflow, argument))

    def output(self, instance_id: str) -> str:
        """What an instance returned, as JSON."""
        state = self.ended(instance_id)
        assert state.runtime_status.name == "COMPLETED", state
        return str(state.serialized_output)

    def history(self, instance_id: str) -> list[str]:
        events = settled(lambda: self.workflows.get_workflow_history(instance_id))
        return [event.event_type.name for event in events]


def until(look: Callable[[], bool]) -> None:
    """Look again and again until `look` says yes."""
    give_up_at = time.monotonic() + PATIENCE_S
    while not look():
        assert time.monotonic() < give_up_at, "it did not come"


def settled(read: Callable[[], T]) -> T:
    """What is read of an instance. On Redis a read during a write fails (docs/reference/differences.md)."""
    while True:
        try:
            return read()
        except grpc.RpcError as error:
            if "missing from state store" not in str(error.details()):
                raise


def code_of(call: Callable[[], Any]) -> str:
    """The gRPC status that `call` fails with, or OK."""
    try:
        call()
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"
