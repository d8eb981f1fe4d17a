"""How often and how patiently each step is tried. A turn carries its policies in its workflow's input: were they read
from the settings while it runs, a restart with other settings would contradict the history.
"""

from datetime import timedelta

from dapr.ext.workflow import RetryPolicy
from pydantic import BaseModel, ConfigDict

from everturn.settings import Settings

BACKOFF_FACTOR = 2.0
# Longer requests to be left alone (Retry-After) are taken for a refusal.
MAX_RETRY_AFTER_S = 600.0


class Policy(BaseModel):
    """Attempts in all, and seconds between them: `first_delay_s`, doubled each time, at most `max_delay_s`."""

    model_config = ConfigDict(frozen=True)

    attempts: int
    first_delay_s: float
    max_delay_s: float

    def delay_after(self, attempt: int, retry_after_s: float | None) -> timedelta | None:
        """How long to wait after failed attempt number `attempt` (from 1); None where that was the last.

        Retry-After is honoured beyond `max_delay_s`, and counts as a refusal beyond MAX_RETRY_AFTER_S.
        """
        if attempt >= self.attempts or (retry_after_s or 0) > MAX_RETRY_AFTER_S:
            return None
        backoff_s = min(self.max_delay_s, self.first_delay_s * BACKOFF_FACTOR ** min(attempt - 1, 64))
        return timedelta(seconds=max(backoff_s, retry_after_s or 0))


# For steps without settings of their own.
DEFAULT_POLICY = Policy(attempts=5, first_delay_s=0.2, max_delay_s=30)

# For what must happen before a turn is over and needs the state store or the sidecar alone: 8 hours of tries. (The SDK
# computes the delay as a power of the factor and overflows after 1,024 attempts.)
PERSISTENT = RetryPolicy(
    first_retry_interval=timedelta(seconds=0.2),
    max_number_of_attempts=1_000,
    backoff_coefficient=BACKOFF_FACTOR,
    max_retry_interval=timedelta(seconds=30),
)


class Policies(BaseModel):
    """The policies of the named steps."""

    model_config = ConfigDict(frozen=True)

    steps: dict[str, Policy]

    def of(self, step: str) -> Policy:
        return self.steps.get(step, DEFAULT_POLICY)


def policies_from(settings: Settings) -> Policies:
    def policy(attempts: int, first_delay_s: float, max_delay_s: float) -> Policy:
        return Policy(attempts=attempts, first_delay_s=first_delay_s, max_delay_s=max_delay_s)

    return Policies(
        steps={
            "fetch_context": policy(settings.fetch_attempts, settings.fetch_first_delay_s, settings.fetch_max_delay_s),
            "generate_response": policy(
                settings.generate_attempts, settings.generate_first_delay_s, settings.generate_max_delay_s
            ),
            "save_conversation": policy(settings.save_attempts, settings.save_first_delay_s, settings.save_max_delay_s),
        }
    )
