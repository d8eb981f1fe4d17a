"""How a failed attempt is told to the workflow: as the message of the activity's exception, in JSON.

Dapr carries of an exception only its type's name and its text (TaskFailureDetails); the workflow needs the kind, a safe
sentence, whether to retry, and Retry-After.
"""

from dapr.ext.workflow import TaskFailedError
from pydantic import BaseModel, ConfigDict, ValidationError

from everturn.contracts.chat import Failure
from everturn.errors import EverturnError, TerminalError, TransientError

CANCELLED = "cancelled"


class StepFault(BaseModel):
    """Why an attempt of a step failed."""

    model_config = ConfigDict(frozen=True)

    kind: str
    message: str
    transient: bool
    retry_after_s: float | None = None

    def as_failure(self) -> Failure:
        return Failure(kind=self.kind, message=self.message)


class StepAttemptFailed(Exception):
    """Raised by an activity at its edge; the text is a StepFault in JSON."""


def encode_fault(error: EverturnError) -> StepAttemptFailed:
    """The exception that tells the workflow of `error`."""
    retry_after_s = error.retry_after_s if isinstance(error, TransientError) else None
    fault = StepFault(
        kind=error.kind,
        message=error.message,
        transient=not isinstance(error, TerminalError),
        retry_after_s=retry_after_s,
    )
    return StepAttemptFailed(fault.model_dump_json(exclude_none=True))


def decode_fault(error_type: str, text: str) -> StepFault:
    """The fault behind an activity's failure.

    Anything but ours (an activity that is not registered on a worker of another version, a bug) may pass, so it is
    transient; its text could hold anything, so only its type is told.
    """
    try:
        return StepFault.model_validate_json(text)
    except ValidationError:
        return StepFault(kind="unexpected", message=f"the step ended unexpectedly ({error_type})", transient=True)


def fault_of(error: Exception) -> StepFault:
    """The fault behind the exception of a failed task."""
    if isinstance(error, TaskFailedError):
        return decode_fault(error.details.error_type, error.details.message)
    return decode_fault(type(error).__name__, "")
