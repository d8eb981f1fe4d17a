"""Starting, pausing, ending, purging and rerunning workflows, over the SDK."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest

from tests.conformance.sdk.program import Program, Registered, code_of, until


def waiting(program: Program) -> Registered:
    """A workflow that returns what the event `go` brings."""

    @program.workflow
    def waits(ctx: Any, _: Any) -> Any:
        return (yield ctx.wait_for_external_event("go"))

    return waits


def brief(program: Program) -> Registered:
    """A workflow that returns its input at once."""

    @program.workflow
    def echo(_ctx: Any, value: Any) -> Any:
        return value

    return echo


def refused(call: Callable[[], Any]) -> "tuple[str, str]":
    """Status and text of the error that `call` ends with."""
    with pytest.raises(grpc.RpcError) as raised:
        call()
    return str(raised.value.code().name), str(raised.value.details())


def test_an_id_that_is_active_cannot_be_started_again(program: Program) -> None:
    waits = waiting(program)
    instance = program.start(waits, instance="one")

    _, text = refused(lambda: program.start(waits, instance="one"))

    assert f"an active workflow with ID '{instance}' already exists" in text
    program.workflows.raise_workflow_event(instance, "go", data="still the first")
    assert program.output(instance) == '"still the first"'


def test_an_id_that_has_ended_can_be_started_again(program: Program) -> None:
    echo = brief(program)
    instance = program.start(echo, "first", instance="one")
    program.ended(instance)

    program.start(echo, "second", instance="one")

    assert program.output(instance) == '"second"'


def test_an_id_is_made_up_where_none_is_given(program: Program) -> None:
    echo = brief(program)

    first, second = program.start(echo, 1), program.start(echo, 2)

    assert first != second
    assert (program.output(first), program.output(second)) == ("1", "2")


def test_a_workflow_can_be_started_later(program: Program) -> None:
    echo = brief(program)
    soon = datetime.now(UTC) + timedelta(seconds=1)

    instance = program.workflows.schedule_new_workflow(echo, input="then", start_at=soon)

    assert program.output(instance) == '"then"'
    started = program.workflows.get_workflow_history(instance)[0].timestamp
    assert started >= soon.replace(tzinfo=None)


def test_a_start_is_waited_for(program: Program) -> None:
    instance = program.start(waiting(program))

    state = program.workflows.wait_for_workflow_start(instance, timeout_in_seconds=30)

    assert state is not None
    assert state.runtime_status.name == "RUNNING"
    program.workflows.terminate_workflow(instance)


def test_the_state_of_nothing_is_nothing(program: Program) -> None:
    assert program.workflows.get_workflow_state(program.named("nobody")) is None


def test_a_custom_status_is_shown(program: Program) -> None:
    @program.workflow
    def tells(ctx: Any, _: Any) -> Any:
        ctx.set_custom_status("half way")
        yield ctx.wait_for_external_event("go")
        ctx.set_custom_status("at the end")
        return "done"

    instance = program.start(tells)
    before = program.state(instance).serialized_custom_status
    program.workflows.raise_workflow_event(instance, "go")
    after = program.ended(instance).serialized_custom_status

    assert (before, after) == ("half way", "at the end")


def test_a_paused_workflow_holds_its_events_until_it_is_resumed(program: Program) -> None:
    instance = program.start(waiting(program))
    program.workflows.pause_workflow(instance)
    program.workflows.raise_workflow_event(instance, "go", data=1)
    paused = program.status(instance)

    program.workflows.resume_workflow(instance)

    assert paused == "SUSPENDED"
    assert program.output(instance) == "1"


def test_an_activity_that_runs_at_a_pause_is_not_run_again(program: Program) -> None:
    @program.activity
    def step(_ctx: Any, number: int) -> int:
        program.calls.add(number)
        return number

    @program.workflow
    def steps(ctx: Any, _: Any) -> Any:
        yield ctx.call_activity(step, input=1)
        yield ctx.wait_for_external_event("go")
        yield ctx.call_activity(step, input=2)
        return "done"

    instance = program.start(steps)
    program.calls.wait_for(1)
    program.workflows.pause_workflow(instance)
    program.workflows.raise_workflow_event(instance, "go")
    program.workflows.resume_workflow(instance)

    assert program.output(instance) == '"done"'
    assert program.calls.all == [1, 2]


def test_a_terminated_workflow_has_the_output_that_it_is_given(program: Program) -> None:
    instance = program.start(waiting(program))

    program.workflows.terminate_workflow(instance, output={"why": "enough"})

    state = program.ended(instance)
    assert (state.runtime_status.name, state.serialized_output) == ("TERMINATED", '{"why": "enough"}')


def test_a_paused_workflow_can_be_terminated(program: Program) -> None:
    instance = program.start(waiting(program))
    program.workflows.pause_workflow(instance)

    program.workflows.terminate_workflow(instance)

    assert program.ended(instance).runtime_status.name == "TERMINATED"


def parent_of_a_waiting_child(program: Program) -> "tuple[str, str]":
    """The ids of a workflow and of the child that it waits for."""
    waits = waiting(program)

    @program.workflow
    def parent(ctx: Any, _: Any) -> Any:
        return (yield ctx.call_child_workflow(waits, instance_id=program.named("kid")))

    instance = program.start(parent)
    program.workflows.wait_for_workflow_start(program.named("kid"), timeout_in_seconds=30)
    return instance, program.named("kid")


def test_children_are_terminated_with_their_parent(program: Program) -> None:
    parent, child = parent_of_a_waiting_child(program)

    program.workflows.terminate_workflow(parent, recursive=True)

    assert program.ended(parent).runtime_status.name == "TERMINATED"
    assert program.ended(child).runtime_status.name == "TERMINATED"


def test_children_go_on_where_they_are_not_meant(program: Program) -> None:
    parent, child = parent_of_a_waiting_child(program)

    program.workflows.terminate_workflow(parent, recursive=False)

    assert program.ended(parent).runtime_status.name == "TERMINATED"
    program.workflows.raise_workflow_event(child, "go", data="alone")
    assert program.output(child) == '"alone"'


def test_what_is_not_there_cannot_be_steered(program: Program) -> None:
    nobody = program.named("nobody")

    told = {
        name: refused(call)
        for name, call in {
            "raise": lambda: program.workflows.raise_workflow_event(nobody, "go"),
            "pause": lambda: program.workflows.pause_workflow(nobody),
            "resume": lambda: program.workflows.resume_workflow(nobody),
            "terminate": lambda: program.workflows.terminate_workflow(nobody),
            "purge": lambda: program.workflows.purge_workflow(nobody),
        }.items()
    }

    assert {name: code for name, (code, _) in told.items()} == dict.fromkeys(told, "UNKNOWN")
    assert all("no such instance exists" in text for _, text in told.values())


def test_what_has_ended_takes_commands_without_effect(program: Program) -> None:
    instance = program.start(brief(program), "over")
    program.ended(instance)

    program.workflows.pause_workflow(instance)
    program.workflows.resume_workflow(instance)
    program.workflows.terminate_workflow(instance, output="too late")

    assert program.output(instance) == '"over"'


def test_a_purged_workflow_is_gone(program: Program) -> None:
    instance = program.start(brief(program), 1)
    program.ended(instance)

    program.workflows.purge_workflow(instance)

    assert program.workflows.get_workflow_state(instance) is None
    assert refused(lambda: program.workflows.get_workflow_history(instance))[0] == "NOT_FOUND"


def test_a_running_workflow_is_not_purged(program: Program) -> None:
    instance = program.start(waiting(program))

    code, text = refused(lambda: program.workflows.purge_workflow(instance))

    assert (code, "not yet completed" in text) == ("UNKNOWN", True)
    program.workflows.raise_workflow_event(instance, "go", data="still here")
    assert program.output(instance) == '"still here"'


def test_children_are_purged_with_their_parent_unless_told_otherwise(program: Program) -> None:
    @program.workflow
    def child(_ctx: Any, _: Any) -> int:
        return 1

    @program.workflow
    def parent(ctx: Any, kid: str) -> Any:
        return (yield ctx.call_child_workflow(child, instance_id=kid))

    for kid, recursive in (("a", False), ("b", True)):
        instance = program.start(parent, program.named(kid))
        program.ended(instance)
        program.workflows.purge_workflow(instance, recursive=recursive)

    assert program.workflows.get_workflow_state(program.named("a")) is not None
    assert program.workflows.get_workflow_state(program.named("b")) is None


def test_instances_are_listed_page_by_page(program: Program) -> None:
    echo = brief(program)
    ids = {program.start(echo, number, instance=f"i{number}") for number in range(3)}
    for instance in ids:
        program.ended(instance)

    listed = list(program.workflows.iter_workflow_instance_ids(page_size=2))

    assert ids <= set(listed)
    assert len(listed) == len(set(listed))


def three_steps(program: Program) -> Registered:
    @program.activity
    def step(_ctx: Any, value: Any) -> Any:
        program.calls.add(value)
        return value

    @program.workflow
    def three(ctx: Any, _: Any) -> Any:
        first = yield ctx.call_activity(step, input=0)
        second = yield ctx.call_activity(step, input=1)
        third = yield ctx.call_activity(step, input=2)
        return [first, second, third]

    return three


def scheduled(program: Program, instance: str, number: int) -> int:
    """Event id of the activity that an instance scheduled, by its place."""
    events = program.workflows.get_workflow_history(instance)
    return int([event.event_id for event in events if event.event_type.name == "TASK_SCHEDULED"][number])


def test_a_rerun_begins_at_an_event_and_keeps_what_came_before(program: Program) -> None:
    source = program.start(three_steps(program))
    program.ended(source)

    again = program.workflows.rerun_workflow_from_event(
        source, scheduled(program, source, 1), new_instance_id=program.named("again")
    )

    assert again == program.named("again")
    assert program.output(again) == "[0, 1, 2]"
    assert program.calls.all == [0, 1, 2, 1, 2]


def test_a_rerun_can_give_the_event_another_input(program: Program) -> None:
    source = program.start(three_steps(program))
    program.ended(source)

    again = program.workflows.rerun_workflow_from_event(source, scheduled(program, source, 1), input="other")

    assert program.output(again) == '[0, "other", 2]'
    assert program.output(source) == "[0, 1, 2]"


def test_what_cannot_be_rerun_is_refused(program: Program) -> None:
    three = three_steps(program)
    source, other = program.start(three), program.start(three)
    program.ended(source)
    program.ended(other)
    running = program.start(waiting(program))
    event = scheduled(program, source, 0)
    rerun = program.workflows.rerun_workflow_from_event

    codes = [
        code_of(lambda: rerun(running, 0)),
        code_of(lambda: rerun(program.named("nobody"), 0)),
        code_of(lambda: rerun(source, 999)),
        code_of(lambda: rerun(source, event, new_instance_id=source)),
        code_of(lambda: rerun(source, event, new_instance_id=other)),
    ]

    program.workflows.terminate_workflow(running)
    assert codes == ["INVALID_ARGUMENT", "NOT_FOUND", "NOT_FOUND", "INVALID_ARGUMENT", "ALREADY_EXISTS"]


def test_the_history_tells_how_a_workflow_was_steered(program: Program) -> None:
    instance = program.start(waiting(program))
    program.workflows.pause_workflow(instance)
    program.workflows.raise_workflow_event(instance, "go")
    until(lambda: "EVENT_RAISED" in program.history(instance))
    program.workflows.resume_workflow(instance)
    program.ended(instance)

    assert [event for event in program.history(instance) if event != "WORKFLOW_STARTED"] == [
        "EXECUTION_STARTED", "TIMER_CREATED", "EXECUTION_SUSPENDED", "EVENT_RAISED", "EXECUTION_RESUMED",
        "EXECUTION_COMPLETED",
    ]  # fmt: skip


def test_the_history_tells_that_a_workflow_was_terminated(program: Program) -> None:
    instance = program.start(waiting(program))
    program.workflows.terminate_workflow(instance)
    program.ended(instance)

    assert program.history(instance) == [
        "WORKFLOW_STARTED", "EXECUTION_STARTED", "TIMER_CREATED",
        "WORKFLOW_STARTED", "EXECUTION_TERMINATED", "EXECUTION_COMPLETED",
    ]  # fmt: skip
