"""Retry policies: how long to wait after which attempt."""

from datetime import timedelta

from everturn.chat.workflow.step_runner import DEFAULT_POLICY, Policies, Policy
from everturn.chat.workflow.steps import policies_from
from everturn.contracts.fields import MAX_RETRY_AFTER_S
from everturn.settings import Settings

POLICY = Policy(attempts=6, first_delay_s=0.2, max_delay_s=1)


def seconds(delay: timedelta | None) -> float | None:
    return None if delay is None else delay.total_seconds()


def test_delays_double_up_to_the_cap() -> None:
    delays = [seconds(POLICY.delay_after(attempt, None)) for attempt in range(1, 6)]

    assert delays == [0.2, 0.4, 0.8, 1, 1]


def test_there_is_no_delay_after_the_last_attempt() -> None:
    assert POLICY.delay_after(6, None) is None


def test_retry_after_is_waited_for_beyond_the_cap() -> None:
    assert seconds(POLICY.delay_after(1, 42)) == 42
    assert seconds(POLICY.delay_after(1, MAX_RETRY_AFTER_S)) == MAX_RETRY_AFTER_S


def test_a_shorter_retry_after_does_not_hasten_the_next_attempt() -> None:
    assert seconds(POLICY.delay_after(3, 0.1)) == 0.8


def test_a_retry_after_of_more_than_ten_minutes_is_a_refusal() -> None:
    assert POLICY.delay_after(1, MAX_RETRY_AFTER_S + 1) is None


def test_without_a_number_of_attempts_the_time_spent_is_the_limit() -> None:
    patient = Policy(attempts=None, first_delay_s=1, max_delay_s=30, give_up_s=100)

    assert seconds(patient.delay_after(4_000, None, spent_s=70)) == 30
    assert patient.delay_after(1, None, spent_s=99.5) is None
    assert patient.delay_after(1, 60, spent_s=50) is None


def test_a_thousand_attempts_do_not_overflow() -> None:
    patient = Policy(attempts=5_000, first_delay_s=1, max_delay_s=30)

    assert seconds(patient.delay_after(4_000, None)) == 30


def test_policies_come_from_the_settings_and_other_steps_have_the_default() -> None:
    policies = policies_from(Settings(generate_attempts=9, generate_first_delay_s=2, generate_max_delay_s=3))

    assert policies.of("generate_response") == Policy(attempts=9, first_delay_s=2, max_delay_s=3, give_up_s=3_600)
    assert policies.of("log_turn") == DEFAULT_POLICY


def test_policies_survive_the_workflows_input() -> None:
    policies = policies_from(Settings())

    assert Policies.model_validate(policies.model_dump(mode="json")) == policies
