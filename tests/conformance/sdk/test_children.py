"""Child workflows, over the SDK."""

from datetime import timedelta
from typing import Any

from dapr.ext.workflow import RetryPolicy, TaskFailedError, when_all

from tests.conformance.sdk.program import Program


def test_a_child_gives_its_result_to_its_parent(program: Program) -> None:
    @program.workflow
    def child(_ctx: Any, number: int) -> int:
        return number + 1

    @program.workflow
    def parent(ctx: Any, number: int) -> Any:
        return (yield ctx.call_child_workflow(child, input=number))

    assert program.run(parent, 1).serialized_output == "2"


def test_a_child_has_the_id_that_it_is_given(program: Program) -> None:
    @program.workflow
    def child(ctx: Any, _: Any) -> str:
        return str(ctx.instance_id)

    @program.workflow
    def parent(ctx: Any, _: Any) -> Any:
        return (yield ctx.call_child_workflow(child, instance_id=program.named("kid")))

    assert program.run(parent).serialized_output == f'"{program.named("kid")}"'
    # Dapr tells the parent of the end before it stores the child's state: a look in between still sees it run.
    assert program.output(program.named("kid")) == f'"{program.named("kid")}"'


def test_a_child_without_an_id_is_named_after_its_parent(program: Program) -> None:
    @program.workflow
    def child(ctx: Any, _: Any) -> str:
        return str(ctx.instance_id)

    @program.workflow
    def parent(ctx: Any, _: Any) -> Any:
        return (yield when_all([ctx.call_child_workflow(child), ctx.call_child_workflow(child)]))

    instance = program.start(parent, instance="p")

    assert program.output(instance) == f'["{instance}:0001", "{instance}:0002"]'


def test_a_failed_child_fails_its_parent(program: Program) -> None:
    @program.workflow
    def child(_ctx: Any, _: Any) -> Any:
        raise ValueError("of the child")

    @program.workflow
    def parent(ctx: Any, _: Any) -> Any:
        return (yield ctx.call_child_workflow(child))

    state = program.run(parent)

    assert state.runtime_status.name == "FAILED"
    assert state.failure_details is not None
    assert "of the child" in state.failure_details.message


def test_the_failure_of_a_child_may_be_caught(program: Program) -> None:
    @program.workflow
    def child(_ctx: Any, _: Any) -> Any:
        raise ValueError("of the child")

    @program.workflow
    def parent(ctx: Any, _: Any) -> Any:
        try:
            yield ctx.call_child_workflow(child)
        except TaskFailedError as error:
            return error.details.error_type

    assert program.run(parent).serialized_output == '"ValueError"'


def test_a_child_is_tried_again_by_its_policy(program: Program) -> None:
    @program.activity
    def try_it(_ctx: Any, _: Any) -> int:
        program.calls.add("tried")
        return len(program.calls.all)

    @program.workflow
    def child(ctx: Any, _: Any) -> Any:
        if (yield ctx.call_activity(try_it, input=0)) < 3:
            raise ValueError("not yet")
        return "at last"

    @program.workflow
    def parent(ctx: Any, _: Any) -> Any:
        policy = RetryPolicy(first_retry_interval=timedelta(milliseconds=50), max_number_of_attempts=3)
        return (yield ctx.call_child_workflow(child, input=0, retry_policy=policy))

    assert program.run(parent).serialized_output == '"at last"'


def test_a_child_that_nobody_has_registered_fails_its_parent(program: Program) -> None:
    @program.workflow
    def parent(ctx: Any, _: Any) -> Any:
        return (yield ctx.call_child_workflow(program.named("unknown")))

    assert program.run(parent).runtime_status.name == "FAILED"


def test_a_child_has_children_and_each_waits_for_its_own(program: Program) -> None:
    @program.workflow
    def tree(ctx: Any, depth: int) -> Any:
        if depth == 0:
            return 1
        return sum((yield when_all([ctx.call_child_workflow(tree, input=depth - 1) for _ in range(2)])))

    assert program.run(tree, 2).serialized_output == "4"


def test_the_history_tells_of_a_child(program: Program) -> None:
    @program.workflow
    def child(_ctx: Any, _: Any) -> str:
        return "done"

    @program.workflow
    def parent(ctx: Any, _: Any) -> Any:
        return (yield ctx.call_child_workflow(child))

    instance = program.start(parent)
    program.ended(instance)

    assert program.history(instance) == [
        "WORKFLOW_STARTED", "EXECUTION_STARTED", "CHILD_WORKFLOW_INSTANCE_CREATED",
        "WORKFLOW_STARTED", "CHILD_WORKFLOW_INSTANCE_COMPLETED", "EXECUTION_COMPLETED",
    ]  # fmt: skip
