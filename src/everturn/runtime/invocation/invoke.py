"""Service invocation: the apps that the runtime can reach, and one's request carried to another, with what Resiliency
files say of calls between them.

https://docs.dapr.io/reference/api/service_invocation_api/ . As daprd 1.18 does it: retries around a circuit breaker
around a time limit, and every answer below 200 or above 399 is a failure (pkg/resiliency/policy.go). The path is
decoded once, cleaned, and made into a URL again: a character that must arrive percent-encoded is sent encoded twice
(pkg/api/http/directmessaging.go, pkg/messaging/method/normalize.go).
"""

import asyncio
import logging
import posixpath
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote_from_bytes, unquote_to_bytes

from everturn.dapr.wire import Request, Response, Transport
from everturn.errors import TerminalError, TransientError
from everturn.runtime.clock import Clock, sleep
from everturn.runtime.errors import DaprError
from everturn.runtime.invocation.circuit_breaker import CircuitBreaker
from everturn.runtime.resources.components import Components
from everturn.runtime.resources.resiliency import NO_POLICY, TargetPolicy

log = logging.getLogger(__name__)

Send = Callable[[], Awaitable[Response]]

# Of one connection only (RFC 9110 section 7.6.1), or between the caller and its sidecar.
_NOT_PASSED_ON = frozenset(
    {
        "connection",
        "content-length",
        "dapr-api-token",
        "dapr-app-id",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_FORBIDDEN = re.compile(rb"[#?\x00-\x1f\x7f]")
_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
# What may be in a path as it is (RFC 3986 section 3.3), and the escapes that are left.
_AS_IT_IS = "/%-._~!$&'()*+,;=:@"
# Of one app; daprd's circuitBreakerCacheSize is per target.
_MAX_BREAKERS = 1_000


@dataclass(slots=True)
class AppChannel:
    """The way to one app.

    `app_token` goes with every request, so that the app can tell its sidecar from others (APP_API_TOKEN,
    https://docs.dapr.io/operations/security/app-api-token/).
    """

    app_id: str
    transport: Transport
    app_token: str | None = None

    async def send(self, request: Request) -> Response:
        """The app's answer. Raises TransientError if none came, TerminalError if such a request can never be sent."""
        if self.app_token is not None:
            request = Request(
                request.method, request.target, {**request.headers, "dapr-api-token": self.app_token}, request.body
            )
        return await self.transport.send(request)


@dataclass(slots=True)
class AppChannels:
    """By app id. `elsewhere` finds apps of other runtimes, if there are any."""

    by_id: dict[str, AppChannel] = field(default_factory=dict)
    elsewhere: Callable[[str], AppChannel | None] | None = None

    def add(self, channel: AppChannel) -> None:
        self.by_id[channel.app_id] = channel

    def find(self, app_id: str) -> AppChannel | None:
        channel = self.by_id.get(app_id)
        return self.elsewhere(app_id) if channel is None and self.elsewhere is not None else channel


class Invoker:
    """Carries requests between apps, to those that `channels` reach."""

    def __init__(self, channels: AppChannels, policies: "InvocationPolicies") -> None:
        self._channels = channels
        self._policies = policies

    async def invoke(self, caller: str, app_id: str, request: Request) -> Response:
        """Send `request` (its target is the method's path and query) to `app_id`; its answer, whatever the status.

        Raises DaprError (500 ERR_DIRECT_INVOKE) if there is no such app, its path cannot be handed on, or it gave no
        answer.
        """
        channel = self._channels.find(app_id)
        if channel is None:
            raise _not_invoked(app_id, "failed to resolve address: no host found with the given ID")
        path, mark, query = request.target.partition("?")
        try:
            target = f"{onward_path(path)}{mark}{query}"
        except ValueError as error:
            raise _not_invoked(app_id, str(error)) from error
        headers = {**_passed_on(request.headers), "dapr-caller-app-id": caller, "dapr-callee-app-id": app_id}
        onward = Request(request.method, target, headers, request.body)
        try:
            response = await self._policies.call(caller, app_id, path, lambda: channel.send(onward))
        except (TransientError, TerminalError) as error:
            raise _not_invoked(app_id, error.message) from error
        return Response(response.status, _passed_on(response.headers), response.body)


class InvocationPolicies:
    """The policies of all callers. Each method of an app has a circuit breaker for each caller."""

    def __init__(self, components: Components, clock: Clock) -> None:
        self._components = components
        self._clock = clock
        self._breakers: OrderedDict[tuple[str, str, str], CircuitBreaker] = OrderedDict()

    async def call(self, caller: str, app_id: str, method: str, send: Send) -> Response:
        """The app's answer, whatever it is.

        Raises TransientError if none came, or none was asked for, and TerminalError if none can ever come.
        """
        policy = self._components.invocation_policy(caller, app_id)
        if policy is NO_POLICY:
            return await send()
        breaker = self._breaker(policy, (caller, app_id, method))
        attempts = 0
        while True:
            attempts += 1
            answer = await _try_once(policy, breaker, send)
            delay_s = _delay_s(policy, answer, attempts)
            if delay_s is None:
                break
            log.warning("call_retried", extra={"app_id": app_id, "attempt": attempts, "delay_s": round(delay_s, 3)})
            await sleep(self._clock, delay_s)
        if isinstance(answer, Response):
            return answer
        raise answer

    def _breaker(self, policy: TargetPolicy, key: tuple[str, str, str]) -> CircuitBreaker | None:
        if policy.breaker is None:
            return None
        breaker = self._breakers.pop(key, None) or CircuitBreaker(policy.breaker, self._clock.elapsed)
        self._breakers[key] = breaker
        if len(self._breakers) > _MAX_BREAKERS:
            self._breakers.popitem(last=False)
        return breaker


async def _try_once(policy: TargetPolicy, breaker: CircuitBreaker | None, send: Send) -> Response | TransientError:
    if breaker is None:
        return await _ask(policy, send)
    try:
        generation = breaker.begin()
    except TransientError as refused:
        return refused
    success = False
    try:
        answer = await _ask(policy, send)
        success = not _failed(answer)
    finally:  # a caller that left counts as a failure, as on Dapr
        breaker.end(generation, success=success)
    return answer


async def _ask(policy: TargetPolicy, send: Send) -> Response | TransientError:
    try:
        async with asyncio.timeout(policy.timeout_s):
            return await send()
    except TransientError as error:
        return error
    except TimeoutError:
        return TransientError("context deadline exceeded", kind="timeout")


def _failed(answer: Response | TransientError) -> bool:
    return isinstance(answer, TransientError) or not 200 <= answer.status < 400


def _delay_s(policy: TargetPolicy, answer: Response | TransientError, attempts: int) -> float | None:
    """Seconds to the next try, None if this answer is the last."""
    if policy.retry is None or not _failed(answer):
        return None
    if isinstance(answer, TransientError):
        if answer.kind == "refused":
            return None
    elif not policy.retry.is_for(answer.status):
        return None
    return policy.retry.delay_s(attempts)


def onward_path(path: str) -> str:
    """The path that the app gets for `path` as it was sent. Raises ValueError, which says why there is none."""
    method = unquote_to_bytes(path)
    if _FORBIDDEN.search(method):
        raise ValueError("method contains a forbidden character")
    # Rooted, so that dot segments end at the root; without the slash at the end.
    cleaned = posixpath.normpath(b"/" + method.lstrip(b"/"))
    if _BROKEN_ESCAPE.search(cleaned):
        raise ValueError("invalid URL escape")
    return quote_from_bytes(cleaned, safe=_AS_IT_IS)


def _passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in _NOT_PASSED_ON}


def _not_invoked(app_id: str, reason: str) -> DaprError:
    return DaprError(500, "ERR_DIRECT_INVOKE", f"failed to invoke, id: {app_id}, err: {reason}")
