"""External events and continue-as-new, over the SDK."""

from datetime import timedelta
from typing import Any

from dapr.ext.workflow import when_all, when_any

from tests.conformance.sdk.program import Program, code_of


def test_an_event_wakes_who_waits_for_it(program: Program) -> None:
    @program.workflow
    def waits(ctx: Any, _: Any) -> Any:
        return (yield ctx.wait_for_external_event("go"))

    instance = program.start(waits)
    program.workflows.raise_workflow_event(instance, "go", data={"n": 1})

    assert program.output(instance) == '{"n": 1}'


def test_names_of_events_are_compared_without_case(program: Program) -> None:
    @program.workflow
    def waits(ctx: Any, _: Any) -> Any:
        return (yield ctx.wait_for_external_event("Approved"))

    instance = program.start(waits)
    program.workflows.raise_workflow_event(instance, "aPPROVED", data=1)

    assert program.output(instance) == "1"


def test_an_event_without_data(program: Program) -> None:
    @program.workflow
    def waits(ctx: Any, _: Any) -> Any:
        yield ctx.wait_for_external_event("go")
        return "gone"

    instance = program.start(waits)
    program.workflows.raise_workflow_event(instance, "go")

    assert program.output(instance) == '"gone"'


def test_an_event_that_comes_too_early_is_kept(program: Program) -> None:
    @program.workflow
    def orderly(ctx: Any, _: Any) -> Any:
        first = yield ctx.wait_for_external_event("first")
        second = yield ctx.wait_for_external_event("second")
        return [first, second]

    instance = program.start(orderly)
    program.workflows.raise_workflow_event(instance, "second", data="early")
    program.workflows.raise_workflow_event(instance, "first", data="late")

    assert program.output(instance) == '["late", "early"]'


def test_events_of_one_name_are_taken_in_their_order(program: Program) -> None:
    @program.workflow
    def collects(ctx: Any, _: Any) -> Any:
        both = [ctx.wait_for_external_event("item") for _ in range(2)]
        first, second = yield when_all(both)
        third = yield ctx.wait_for_external_event("item")
        return [first, second, third]

    instance = program.start(collects)
    for number in (1, 2, 3):
        program.workflows.raise_workflow_event(instance, "item", data=number)

    assert program.output(instance) == "[1, 2, 3]"


def test_a_wait_ends_with_its_time_limit(program: Program) -> None:
    @program.workflow
    def impatient(ctx: Any, _: Any) -> Any:
        try:
            yield ctx.wait_for_external_event("never", timeout=timedelta(milliseconds=100))
        except TimeoutError:
            return "given up"

    assert program.run(impatient).serialized_output == '"given up"'


def test_an_event_within_the_time_limit_counts(program: Program) -> None:
    @program.workflow
    def hopeful(ctx: Any, _: Any) -> Any:
        return (yield ctx.wait_for_external_event("go", timeout=timedelta(hours=1)))

    instance = program.start(hopeful)
    program.workflows.raise_workflow_event(instance, "go", data="in time")

    assert program.output(instance) == '"in time"'


def test_an_event_that_loses_a_race_is_there_for_the_next_wait(program: Program) -> None:
    @program.workflow
    def race(ctx: Any, _: Any) -> Any:
        timer = ctx.create_timer(timedelta(milliseconds=50))
        winner = yield when_any([timer, ctx.wait_for_external_event("other")])
        second = yield ctx.wait_for_external_event("go")
        return [winner is timer, second]

    instance = program.start(race)
    program.workflows.raise_workflow_event(instance, "go", data=2)

    assert program.output(instance) == "[true, 2]"


def test_an_event_for_nobody_is_an_error_and_one_for_an_ended_workflow_is_not(program: Program) -> None:
    @program.workflow
    def brief(_ctx: Any, _: Any) -> str:
        return "over"

    instance = program.start(brief)
    program.ended(instance)

    assert code_of(lambda: program.workflows.raise_workflow_event(program.named("nobody"), "go")) == "UNKNOWN"
    assert code_of(lambda: program.workflows.raise_workflow_event(instance, "go")) == "OK"


def test_a_workflow_can_go_on_as_new_and_keeps_its_id(program: Program) -> None:
    @program.activity
    def count(_ctx: Any, number: int) -> int:
        program.calls.add(number)
        return number + 1

    @program.workflow
    def rounds(ctx: Any, number: int) -> Any:
        reached = yield ctx.call_activity(count, input=number)
        if reached < 4:
            ctx.continue_as_new(reached)
            return None
        return reached

    instance = program.start(rounds, 0)

    assert program.output(instance) == "4"
    assert program.calls.all == [0, 1, 2, 3]
    assert program.state(instance).serialized_input == "3"
    assert program.history(instance).count("TASK_SCHEDULED") == 1


def test_events_that_were_not_taken_go_along_where_they_are_saved(program: Program) -> None:
    @program.workflow
    def rounds(ctx: Any, number: int) -> Any:
        if number == 0:
            yield ctx.wait_for_external_event("next")
            ctx.continue_as_new(1, save_events=True)
            return None
        return (yield ctx.wait_for_external_event("kept"))

    instance = program.start(rounds, 0)
    program.workflows.raise_workflow_event(instance, "kept", data="along")
    program.workflows.raise_workflow_event(instance, "next")

    assert program.output(instance) == '"along"'


def test_events_that_were_not_taken_are_lost_where_they_are_not_saved(program: Program) -> None:
    @program.activity
    def begun(_ctx: Any, number: int) -> None:
        program.calls.add(number)

    @program.workflow
    def rounds(ctx: Any, number: int) -> Any:
        if number == 0:
            yield ctx.wait_for_external_event("next")
            ctx.continue_as_new(1, save_events=False)
            return None
        yield ctx.call_activity(begun, input=number)
        return (yield ctx.wait_for_external_event("kept"))

    instance = program.start(rounds, 0)
    program.workflows.raise_workflow_event(instance, "kept", data="of before")
    program.workflows.raise_workflow_event(instance, "next")
    program.calls.wait_for(1)
    program.workflows.raise_workflow_event(instance, "kept", data="of now")

    assert program.output(instance) == '"of now"'


def test_a_timer_of_before_does_not_wake_what_went_on_as_new(program: Program) -> None:
    @program.workflow
    def rounds(ctx: Any, number: int) -> Any:
        timer = ctx.create_timer(timedelta(milliseconds=200 if number == 0 else 400))
        if number == 0:
            ctx.continue_as_new(1)
            return None
        before = ctx.current_utc_datetime
        yield timer
        return (ctx.current_utc_datetime - before) >= timedelta(milliseconds=400)

    assert program.run(rounds, 0).serialized_output == "true"


def test_the_history_of_what_went_on_as_new_begins_again(program: Program) -> None:
    @program.workflow
    def twice(ctx: Any, number: int) -> Any:
        yield ctx.create_timer(timedelta(milliseconds=10))
        if number == 1:
            ctx.continue_as_new(2)
            return None
        return number

    instance = program.start(twice, 1)
    program.ended(instance)

    assert program.history(instance) == [
        "WORKFLOW_STARTED", "EXECUTION_STARTED", "TIMER_CREATED",
        "WORKFLOW_STARTED", "TIMER_FIRED", "EXECUTION_COMPLETED",
    ]  # fmt: skip
