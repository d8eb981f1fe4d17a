"""Faults: what the workflow hears of a failed attempt."""

from everturn.chat.workflow.step_runner import decode_fault, encode_fault
from everturn.errors import ConflictError, TerminalError, TransientError


def test_a_transient_error_arrives_with_its_retry_after() -> None:
    raised = encode_fault(TransientError("the endpoint answered 429", kind="http_429", retry_after_s=7))

    fault = decode_fault(type(raised).__name__, str(raised))

    assert (fault.kind, fault.transient, fault.retry_after_s) == ("http_429", True, 7)
    assert fault.message == "the endpoint answered 429"


def test_a_terminal_error_arrives_as_one() -> None:
    raised = encode_fault(TerminalError("no such model", kind="http_404"))

    assert not decode_fault("StepAttemptFailed", str(raised)).transient


def test_any_other_error_of_ours_is_tried_again() -> None:
    raised = encode_fault(ConflictError("changed by someone else"))

    assert decode_fault("StepAttemptFailed", str(raised)).transient


def test_the_text_of_an_unknown_error_is_not_passed_on() -> None:
    fault = decode_fault("ValueError", "what the user wrote")

    assert fault.transient
    assert fault.kind == "unexpected"
    assert "what the user wrote" not in fault.message
