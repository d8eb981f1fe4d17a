"""Every way in which a call of a model fails, classified by what the caller does about it.

contracts.md, "Model faults". No sentence here holds text of the prompt, the reply or the key; of the endpoint's own
words only what `refusals` lets through.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from everturn.contracts.fields import MAX_RETRY_AFTER_S, retry_after_s
from everturn.errors import EverturnError, TerminalError, TransientError, is_transient_status

log = logging.getLogger(__name__)

Fault = TransientError | TerminalError

# contracts.md, "Model faults": a reply has at most 1 MiB.
MAX_REPLY_BYTES = 1024 * 1024

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
    if not is_transient_status(status):
        return TerminalError(sentence + _ADVICE.get(status, ""), kind=f"http_{status}")
    wait_s = _asked_wait_s(headers)
    if wait_s is not None and wait_s > MAX_RETRY_AFTER_S:
        return TerminalError(f"{sentence} and asked to wait for more than 10 minutes", kind="retry_after_too_long")
    return TransientError(sentence, kind=f"http_{status}", retry_after_s=wait_s)


def refused_request(status: int, words: str) -> TerminalError:
    """The error for a request that the endpoint takes for wrong; `words`: its own ones, as `refusals.words_of` has
    them."""
    why = f": {words}" if words else " and does not say why"
    return TerminalError(f"the model refused the request ({status}){why}", kind=f"http_{status}")


def bad_reply(what: str) -> TransientError:
    """The error for an answer with status 200 that is no completion; `what` is wrong with it, in our own words."""
    return TransientError(f"the model endpoint's answer is no completion: {what}", kind="bad_reply")


def too_large() -> TerminalError:
    """The error for a reply over the limit."""
    return TerminalError("the model's reply is larger than 1 MiB", kind="reply_too_large")


def content_filtered() -> TerminalError:
    """The error for a reply that the provider's content filter withheld."""
    return TerminalError("the provider's content filter withheld the reply", kind="content_filter")


def refused() -> TerminalError:
    """The error for a refusal that comes as such, not as words of a reply."""
    return TerminalError("the model refused to answer", kind="refused")


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise what the block raises as `classify` has it. A cancellation passes through."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the edge at which every failure is classified; none is swallowed
        raise classify(error) from None


def classify(error: Exception) -> Fault:
    """What a run of the Agents SDK or a call of its model raised, as the error to raise instead, `from None`: the cause
    can hold the prompt or the reply.

    What is not known is transient: the SDK trips in many ways over answers that are no completions.
    """
    if isinstance(error, TransientError | TerminalError):
        return error
    if isinstance(error, EverturnError):
        return TransientError(error.message, kind=error.kind)
    return _agents_fault(error) or _wire_fault(error) or _unknown_fault(error)


def _agents_fault(error: Exception) -> Fault | None:
    from agents import exceptions  # noqa: PLC0415 - imported late, see prepare_sdk

    match error:
        case exceptions.MaxTurnsExceeded():
            return TerminalError("an agent took more turns than it may", kind="too_many_model_calls")
        case (
            exceptions.InputGuardrailTripwireTriggered()
            | exceptions.OutputGuardrailTripwireTriggered()
            | exceptions.ToolInputGuardrailTripwireTriggered()
            | exceptions.ToolOutputGuardrailTripwireTriggered()
        ):
            return TerminalError("a guardrail of the assistant stopped the turn", kind="guardrail")
        case exceptions.ModelRefusalError():
            return refused()
        case exceptions.ModelTimeoutError():
            return _timed_out()
        case exceptions.ModelBehaviorError():
            return bad_reply("the Agents SDK cannot read it")
    return None


def _wire_fault(error: Exception) -> Fault | None:
    import httpx2  # noqa: PLC0415 - with openai, below
    import openai  # noqa: PLC0415 - takes a second, so only if it is needed

    match error:
        case openai.APITimeoutError() | httpx2.TimeoutException() | asyncio.TimeoutError():
            return _timed_out()
        case openai.APIConnectionError() | httpx2.TransportError() | OSError():
            if isinstance(error.__cause__ or error, httpx2.ProxyError):
                return TransientError("the proxy does not reach the model endpoint: check HTTPS_PROXY", kind="proxy")
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
