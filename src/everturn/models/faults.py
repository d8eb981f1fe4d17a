"""Every way in which a model call fails, sorted by what the caller does about it (contracts.md, "Model faults").

No sentence here holds text of the prompt, the reply, the key or the endpoint's own words.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from everturn.errors import EverturnError, TerminalError, TransientError
from everturn.sidecar.client import retry_after_s

log = logging.getLogger(__name__)

Fault = TransientError | TerminalError

# contracts.md, "The turn": 408 timeout, 409 conflict, 425 too early, 429 too many requests; and every 5xx.
_TRANSIENT_STATUSES = frozenset({408, 409, 425, 429})
# contracts.md, "Model faults": Retry-After is waited for up to 10 minutes; longer is permanent.
_MAX_RETRY_AFTER_S = 600.0
_ADVICE = {
    401: ": check the key",
    403: ": check the key and what it may do",
    404: ": check the base URL and the name of the model",
}


def status_fault(status: int, headers: Mapping[str, str]) -> Fault:
    """The error for an answer of the endpoint whose status is not 2xx. `headers` with names in lower case."""
    if 300 <= status < 400:
        return TerminalError(f"the model endpoint redirected ({status}); redirects are not followed", kind="redirected")
    sentence = f"the model endpoint answered {status}"
    if status not in _TRANSIENT_STATUSES and status < 500:
        return TerminalError(sentence + _ADVICE.get(status, ""), kind=f"http_{status}")
    wait_s = _asked_wait_s(headers)
    if wait_s is not None and wait_s > _MAX_RETRY_AFTER_S:
        return TerminalError(f"{sentence} and asked to wait for more than 10 minutes", kind="retry_after_too_long")
    return TransientError(sentence, kind=f"http_{status}", retry_after_s=wait_s)


def bad_reply(what: str) -> TransientError:
    """The error for an answer with status 200 that is no completion; `what` is wrong with it, in our own words."""
    return TransientError(f"the model endpoint's answer is no completion: {what}", kind="bad_reply")


def content_filtered() -> TerminalError:
    """The error for a reply that the provider's content filter withheld."""
    return TerminalError("the provider's content filter withheld the reply", kind="content_filter")


def refused() -> TerminalError:
    """The error for a refusal that comes as such, not as words of a reply."""
    return TerminalError("the model refused to answer", kind="refused")


@contextmanager
def sorted_faults() -> Iterator[None]:
    """Turn whatever a run of the Agents SDK or a call of its model raises into a TransientError or TerminalError.

    The cause is hidden: it can hold the prompt or the reply. What is not known is transient: the SDK trips in many ways
    over answers that are no completions. A cancellation passes through.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the edge at which every failure is sorted; none is swallowed
        raise _sorted(error) from None


def _sorted(error: Exception) -> Fault:
    if isinstance(error, TransientError | TerminalError):
        return error
    if isinstance(error, EverturnError):
        return TransientError(error.message, kind=error.kind)
    return _agents_fault(error) or _wire_fault(error) or _unknown_fault(error)


def _agents_fault(error: Exception) -> Fault | None:
    from agents import exceptions  # noqa: PLC0415 - imported late, see prepare_sdk

    match error:
        case exceptions.MaxTurnsExceeded():
            return TerminalError("the model asked for more than 10 rounds of tools", kind="too_many_tool_rounds")
        case exceptions.ModelRefusalError():
            return refused()
        case exceptions.ModelTimeoutError():
            return _timed_out()
        case exceptions.ModelBehaviorError():
            return bad_reply("the Agents SDK cannot read it")
    return None


def _wire_fault(error: Exception) -> Fault | None:
    import httpx2  # noqa: PLC0415 - with openai, below
    import openai  # noqa: PLC0415 - takes a second, so only where it is needed

    match error:
        case openai.APITimeoutError() | httpx2.TimeoutException() | asyncio.TimeoutError():
            return _timed_out()
        case openai.APIConnectionError() | httpx2.TransportError() | OSError():
            if isinstance(error.__cause__ or error, httpx2.ReadError | httpx2.RemoteProtocolError):
                return TransientError("the model endpoint broke off the connection", kind="connection_cut")
            return TransientError("the model endpoint cannot be reached", kind="unreachable")
        case openai.APIStatusError():
            return status_fault(error.status_code, error.response.headers)
        case openai.APIResponseValidationError():
            return bad_reply("the OpenAI SDK cannot read it")
    return None


def _unknown_fault(error: Exception) -> Fault:
    log.warning("model_fault_unknown", extra={"error_type": type(error).__qualname__})
    return TransientError("the model call failed in an unexpected way", kind="unexpected")


def _timed_out() -> TransientError:
    return TransientError("the model endpoint did not answer in time", kind="timeout")


def _asked_wait_s(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait: the provider's own `retry-after-ms` (milliseconds) or Retry-After."""
    try:
        return max(0.0, float(headers["retry-after-ms"]) / 1000)
    except (KeyError, ValueError):
        return retry_after_s(headers.get("retry-after"))
