"""Workflows and their activities, over the SDK."""

from datetime import timedelta
from typing import Any

from dapr.ext.workflow import RetryPolicy, TaskFailedError, when_all, when_any

from tests.conformance.sdk.program import Program

TWICE = RetryPolicy(first_retry_interval=timedelta(milliseconds=50), max_number_of_attempts=2)


def test_a_workflow_returns_what_its_activities_return(program: Program) -> None:
    @program.activity
    def add(_ctx: Any, numbers: list[int]) -> int:
        return sum(numbers)

    @program.workflow
    def chain(ctx: Any, start: int) -> Any:
        first = yield ctx.call_activity(add, input=[start, 1])
        second = yield ctx.call_activity(add, input=[first, 10])
        return {"first": first, "second": second, "text": "ünï"}

    state = program.run(chain, 5)

    assert state.runtime_status.name == "COMPLETED"
    assert state.serialized_input == "5"
    assert state.serialized_output == '{"first": 6, "second": 16, "text": "\\u00fcn\\u00ef"}'


def test_an_activity_may_be_a_coroutine(program: Program) -> None:
    @program.activity
    async def double(_ctx: Any, number: int) -> int:
        return number * 2

    @program.workflow
    def doubled(ctx: Any, number: int) -> Any:
        return (yield ctx.call_activity(double, input=number))

    assert program.run(doubled, 21).serialized_output == "42"


def test_an_activity_without_input_or_output(program: Program) -> None:
    @program.activity
    def silent(_ctx: Any) -> None:
        program.calls.add("called")

    @program.workflow
    def quiet(ctx: Any) -> Any:
        return (yield ctx.call_activity(silent))

    state = program.run(quiet)

    assert (state.runtime_status.name, state.serialized_output) == ("COMPLETED", None)
    assert program.calls.all == ["called"]


def test_an_activity_is_tried_again_by_its_policy(program: Program) -> None:
    @program.activity
    def flaky(_ctx: Any, _: Any) -> str:
        program.calls.add("tried")
        if len(program.calls.all) < 2:
            raise ValueError("not yet")
        return "done"

    @program.workflow
    def patient(ctx: Any, _: Any) -> Any:
        return (yield ctx.call_activity(flaky, input=0, retry_policy=TWICE))

    assert program.run(patient).serialized_output == '"done"'
    assert program.calls.all == ["tried", "tried"]


def test_the_end_of_a_policy_fails_the_workflow(program: Program) -> None:
    @program.activity
    def broken(_ctx: Any, _: Any) -> None:
        program.calls.add("tried")
        raise ValueError("never works")

    @program.workflow
    def hopeless(ctx: Any, _: Any) -> Any:
        return (yield ctx.call_activity(broken, input=0, retry_policy=TWICE))

    state = program.run(hopeless)

    assert state.runtime_status.name == "FAILED"
    assert program.calls.all == ["tried", "tried"]
    assert state.failure_details is not None
    assert "never works" in state.failure_details.message


def test_a_failure_without_a_policy_is_seen_at_once_and_may_be_caught(program: Program) -> None:
    @program.activity
    def broken(_ctx: Any, _: Any) -> None:
        program.calls.add("tried")
        raise ValueError("no luck")

    @program.workflow
    def careful(ctx: Any, _: Any) -> Any:
        try:
            yield ctx.call_activity(broken, input=0)
        except TaskFailedError as error:
            return [error.details.error_type, "no luck" in error.details.message]

    assert program.run(careful).serialized_output == '["ValueError", true]'
    assert program.calls.all == ["tried"]


def test_an_activity_that_nobody_has_registered_fails_the_workflow(program: Program) -> None:
    @program.workflow
    def lost(ctx: Any, _: Any) -> Any:
        yield ctx.call_activity("nobody-has-it", input=0)

    state = program.run(lost)

    assert state.runtime_status.name == "FAILED"
    assert state.failure_details is not None
    assert "nobody-has-it" in state.failure_details.message


def test_a_workflow_that_nobody_has_registered_fails(program: Program) -> None:
    instance = program.workflows.schedule_new_workflow(program.named("unknown"))

    state = program.ended(instance)

    assert state.runtime_status.name == "FAILED"
    assert state.failure_details is not None
    assert program.named("unknown") in state.failure_details.message


def test_an_error_in_the_workflow_itself_fails_it(program: Program) -> None:
    @program.workflow
    def wrong(_ctx: Any, _: Any) -> Any:
        raise KeyError("missing")

    state = program.run(wrong)

    assert state.runtime_status.name == "FAILED"
    assert state.failure_details is not None
    assert (state.failure_details.error_type, state.serialized_output) == ("KeyError", None)


def test_many_activities_run_side_by_side_and_their_results_keep_their_order(program: Program) -> None:
    @program.activity
    def square(_ctx: Any, number: int) -> int:
        return number * number

    @program.workflow
    def fan(ctx: Any, count: int) -> Any:
        return (yield when_all([ctx.call_activity(square, input=number) for number in range(count)]))

    assert program.run(fan, 20).serialized_output == str([number * number for number in range(20)])


def test_the_first_failure_comes_out_when_all_have_ended(program: Program) -> None:
    @program.activity
    def step(_ctx: Any, fails: bool) -> str:
        program.calls.add(fails)
        if fails:
            raise ValueError("one of them")
        return "fine"

    @program.workflow
    def fan(ctx: Any, _: Any) -> Any:
        try:
            yield when_all([ctx.call_activity(step, input=fails) for fails in (False, True, False)])
        except TaskFailedError:
            return "caught"

    assert program.run(fan).serialized_output == '"caught"'
    assert sorted(program.calls.all) == [False, False, True]


def test_the_first_of_several_wins(program: Program) -> None:
    @program.activity
    def quick(_ctx: Any, _: Any) -> str:
        return "quick"

    @program.workflow
    def race(ctx: Any, _: Any) -> Any:
        fast = ctx.call_activity(quick, input=0)
        winner = yield when_any([ctx.create_timer(timedelta(hours=1)), fast])
        return [winner is fast, fast.get_result()]

    assert program.run(race).serialized_output == '[true, "quick"]'


def test_a_timer_fires_and_time_has_passed_by_then(program: Program) -> None:
    @program.workflow
    def nap(ctx: Any, _: Any) -> Any:
        before = ctx.current_utc_datetime
        yield ctx.create_timer(timedelta(milliseconds=300))
        return (ctx.current_utc_datetime - before) >= timedelta(milliseconds=300)

    assert program.run(nap).serialized_output == "true"


def test_a_timer_in_the_past_fires_at_once(program: Program) -> None:
    @program.workflow
    def late(ctx: Any, _: Any) -> Any:
        yield ctx.create_timer(ctx.current_utc_datetime - timedelta(hours=1))
        return "fired"

    assert program.run(late).serialized_output == '"fired"'


def test_the_history_tells_what_happened(program: Program) -> None:
    @program.activity
    def step(_ctx: Any, _: Any) -> int:
        return 1

    @program.workflow
    def told(ctx: Any, _: Any) -> Any:
        yield ctx.call_activity(step, input=0)
        yield ctx.create_timer(timedelta(milliseconds=10))
        return "end"

    instance = program.start(told)
    program.ended(instance)

    assert program.history(instance) == [
        "WORKFLOW_STARTED", "EXECUTION_STARTED", "TASK_SCHEDULED",
        "WORKFLOW_STARTED", "TASK_COMPLETED", "TIMER_CREATED",
        "WORKFLOW_STARTED", "TIMER_FIRED", "EXECUTION_COMPLETED",
    ]  # fmt: skip
