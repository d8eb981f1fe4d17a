"""What the embedded engine takes from the inside of the Dapr SDK. A failure here says what an upgrade has broken."""

import inspect
import logging
import re
from pathlib import Path
from typing import Any

import dapr.ext.workflow._durabletask.worker as sdk_worker
from dapr.ext.workflow import DaprWorkflowContext, WorkflowRuntime
from dapr.ext.workflow._durabletask.internal.history_events_pb2 import HistoryEvent
from dapr.ext.workflow._durabletask.internal.orchestration_pb2 import OrchestrationStatus
from dapr.ext.workflow._durabletask.internal.orchestrator_actions_pb2 import WorkflowAction
from dapr.ext.workflow._durabletask.internal.orchestrator_service_pb2_grpc import TaskHubSidecarServiceStub

import everturn
from everturn.dapr.sdk.execution import Registered, client_over
from everturn.dapr.sdk.protocol import OPTIONAL_TIMER_FIRE_AT
from everturn.dapr.sdk.worker_thread import SuspendableExecutor, patch_suspend_resume
from everturn.runtime.database.database import Database
from everturn.runtime.workflow.core.decide import APPLIERS, WorkItem
from everturn.runtime.workflow.core.state import NEVER_S, InstanceState, NewEvents, Status
from everturn.runtime.workflow.engine import WorkflowEngine
from everturn.runtime.workflow.task_hub import Stub

SOURCE = Path(inspect.getfile(everturn)).parent


def runtime() -> WorkflowRuntime:
    made = WorkflowRuntime()

    def greet(_ctx: DaprWorkflowContext, _name: str) -> str:
        return "hello"

    def plain(_ctx: Any, _: Any) -> None:
        pass

    async def coroutine(_ctx: Any, _: Any) -> None:
        pass

    made.register_workflow(greet, name="greet")
    made.register_activity(plain, name="plain")
    made.register_activity(coroutine, name="coroutine")
    return made


def test_a_workflow_runtime_has_its_worker_and_registry_where_we_look() -> None:
    worker = getattr(runtime(), "_WorkflowRuntime__worker", None)

    assert worker is not None, "WorkflowRuntime keeps its worker under another name: see Registered"
    assert worker._registry.get_orchestrator("greet")[0] is not None
    assert worker._registry.get_activity("plain") is not None
    assert worker.concurrency_options.maximum_thread_pool_workers > 0


def test_only_a_patched_worker_has_another_executor() -> None:
    patched, other = runtime(), runtime()

    patch_suspend_resume(patched)

    executors = [
        getattr(made, "_WorkflowRuntime__worker")._execute_orchestrator.__globals__["_OrchestrationExecutor"]  # noqa: B009
        for made in (patched, other)
    ]
    assert executors == [SuspendableExecutor, sdk_worker._OrchestrationExecutor]
    source = inspect.getsource(sdk_worker.TaskHubGrpcWorker)
    assert "executor = _OrchestrationExecutor(" in inspect.getsource(sdk_worker.TaskHubGrpcWorker._execute_orchestrator)
    assert "self._execute_orchestrator" in source, "the worker calls another method now: see patch_suspend_resume"


def test_no_other_module_names_a_private_part_of_the_sdk() -> None:
    private = re.compile(r"_durabletask|_WorkflowRuntime__|_DaprWorkflow|_Orchestrat|_ActivityExecutor|_RuntimeOrch")

    naming = [str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py") if private.search(path.read_text("utf-8"))]

    assert {Path(name).parent for name in naming} == {Path("dapr/sdk")}


def test_the_clients_stub_can_be_replaced() -> None:
    stub = object()

    client = client_over(stub)

    inner = getattr(client, "_DaprWorkflowClient__obj", None)
    assert inner is not None, "the aio client keeps its inner client under another name: see client_over"
    assert inner._get_stub() is stub, "the aio client does not take its stub from _stub any more"


def test_coroutine_activities_are_told_apart() -> None:
    registered = Registered(runtime())

    assert registered.is_coroutine_activity("coroutine"), "the SDK wraps coroutine activities in something else now"
    assert not registered.is_coroutine_activity("plain")


def test_the_replay_executor_still_works_as_our_copy_of_its_loop_does() -> None:
    source = inspect.getsource(sdk_worker._OrchestrationExecutor.execute)

    for line in (
        "ctx = _RuntimeOrchestrationContext(instance_id)",
        "ctx._is_replaying = True",
        "self.process_event(ctx, old_event)",
        "ctx._is_replaying = False",
        "self.process_event(ctx, new_event)",
        "ctx.set_version_not_registered()",
        "ctx.set_failed(ex)",
        "actions = ctx.get_actions()",
        "encoded_custom_status=ctx._encoded_custom_status",
        "version_name=getattr(ctx, '_version_name', None)",
        "patches=ctx._encountered_patches",
    ):
        assert line in source, (
            f"execute() has changed ({line!r} is gone): compare dapr/sdk/execution.py Execution.take with it"
        )


def test_an_execution_answers_as_the_executor_does() -> None:
    execution = Registered(runtime()).execution("one")
    started = HistoryEvent(eventId=-1)
    started.executionStarted.name = "greet"
    started.executionStarted.input.value = '"ada"'

    replay = execution.take(
        (), WorkItem.begin(("app", "one"), InstanceState(), NewEvents([started]), 0.0, str).new_events
    )

    assert [action.completeWorkflow.result.value for action in replay.actions] == ['"hello"']


def test_the_protocol_has_the_kinds_of_actions_that_we_apply_and_no_others() -> None:
    kinds = {field.name for field in WorkflowAction.DESCRIPTOR.oneofs_by_name["workflowActionType"].fields}

    # A worker without the version is a stall: runtime/workflow/core/decide.py.
    assert kinds - {"workflowVersionNotAvailable"} == set(APPLIERS), "the protocol has other actions: core/decide.py"


def test_the_statuses_have_their_numbers() -> None:
    names = {status.name: status.value for status in Status}

    assert {f"ORCHESTRATION_STATUS_{name}": value for name, value in names.items()} == dict(OrchestrationStatus.items())


async def test_the_stub_has_every_call_of_a_client(tmp_path: Path) -> None:
    of_workers = {"Hello", "GetWorkItems", "CompleteActivityTask", "CompleteOrchestratorTask", "CompleteWorkflowTask"}
    channel = _RecordingChannel()
    TaskHubSidecarServiceStub(channel)

    database = await Database.open(tmp_path / "everturn.db")
    ours = set(vars(Stub(WorkflowEngine(database).hub("app"))))
    await database.close()

    assert channel.methods - of_workers == ours, "the service has other client calls: runtime/workflow/rpc.py"


def test_a_wait_forever_is_the_timer_that_we_take_it_for() -> None:
    assert (OPTIONAL_TIMER_FIRE_AT.seconds, OPTIONAL_TIMER_FIRE_AT.nanos) == (NEVER_S, 999_999_999)


def test_the_sdks_loggers_print_nothing_by_themselves() -> None:
    Registered(runtime())
    client_over(object())

    names = ("WorkflowRuntime", "DaprWorkflowClient", "DaprWorkflowContext", "durabletask-worker", "durabletask-client")
    for name in names:
        handlers = logging.getLogger(name).handlers
        assert all(isinstance(handler, logging.NullHandler) for handler in handlers), f"{name} prints by itself"


class _RecordingChannel:
    def __init__(self) -> None:
        self.methods: set[str] = set()

    def unary_unary(self, path: str, **_options: Any) -> None:
        self.methods.add(path.rsplit("/", 1)[1])

    unary_stream = unary_unary
