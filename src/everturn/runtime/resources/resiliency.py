"""Dapr's Resiliency resource: policies for deliveries and calls, and how they are read from a file.

https://docs.dapr.io/operations/resiliency/ . Used are retries of deliveries, and timeouts, retries and circuit breakers
of calls; the rest is named in the log.
"""

import logging
import random
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from everturn.runtime.resources.files import Resource

log = logging.getLogger(__name__)

T = TypeVar("T")

# Go's duration units, in seconds (https://pkg.go.dev/time#ParseDuration).
_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")


def duration_s(text: str) -> float:
    """Seconds of a Go duration (`1m30s`, `500ms`). Raises ValueError."""
    if not text or _DURATION_PART.sub("", text):
        raise ValueError(f"{text!r} is no duration like 15s or 1m30s")
    return sum(float(number) * _UNITS_S[unit] for number, unit in _DURATION_PART.findall(text))


# Of an exponential policy; so are the defaults (github.com/cenkalti/backoff v4, which Dapr uses).
_MULTIPLIER, _RANDOMIZATION = 1.5, 0.5


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how soon a failed delivery or call is tried again.

    `max_retries` -1 means for ever. `statuses`: ranges of HTTP statuses that are worth another try, None if every
    failure is.
    """

    kind: Literal["constant", "exponential"] = "constant"
    duration_s: float = 5.0
    initial_interval_s: float = 0.5
    max_interval_s: float = 60.0
    max_retries: int = -1
    statuses: tuple[tuple[int, int], ...] | None = None

    @property
    def longest_delay_s(self) -> float:
        """No delay of this policy is longer."""
        if self.kind == "constant":
            return self.duration_s
        return self.max_interval_s * (1 + _RANDOMIZATION)

    def is_for(self, status: int) -> bool:
        """Whether an answer with `status`, a failure, is worth another try."""
        return self.statuses is None or any(first <= status <= last for first, last in self.statuses)

    def delay_s(self, attempts: int, uniform: Callable[[], float] = random.random) -> float | None:
        """Seconds to wait after the attempt number `attempts` (from 1), None if no further one is allowed.

        `uniform` gives a random number from 0 to 1.
        """
        if 0 <= self.max_retries < attempts:
            return None
        if self.kind == "constant":
            return self.duration_s
        # The exponent is bounded: the interval is at its cap long before, and a float has an end.
        interval = self.initial_interval_s * _MULTIPLIER ** min(attempts - 1, 100)
        interval = min(interval, self.max_interval_s)
        return interval * (1 + _RANDOMIZATION * (2 * uniform() - 1))


# What holds without any Resiliency file, and what components/resiliency.yaml says for real Dapr.
DEFAULT_DELIVERY_RETRY = RetryPolicy(kind="exponential", max_interval_s=15.0, max_retries=-1)
NO_RETRY = RetryPolicy(max_retries=0)


@dataclass(frozen=True, slots=True)
class Condition:
    """`count op limit`, of the counts of a circuit breaker."""

    count: str
    op: str
    limit: int


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When a circuit breaker opens: all conditions of `trip` hold after a failure. Times in seconds.

    `interval_s`: after so long the counts of a closed one start again, 0 for never. `timeout_s`: so long it stays
    open. `max_requests`: so many may try it out then, and close it by succeeding.
    """

    trip: tuple[Condition, ...] = (Condition("consecutiveFailures", ">", 5),)
    interval_s: float = 0.0
    timeout_s: float = 60.0
    max_requests: int = 1


@dataclass(frozen=True, slots=True)
class TargetPolicy:
    """What holds for calls of one target; None means no time limit (seconds), no further try, no breaker."""

    timeout_s: float | None = None
    retry: RetryPolicy | None = None
    breaker: BreakerPolicy | None = None


NO_POLICY = TargetPolicy()

_COUNTS = "requests|totalSuccesses|totalFailures|consecutiveSuccesses|consecutiveFailures"
_CONDITION = re.compile(rf"\s*({_COUNTS})\s*(>=|<=|==|!=|>|<)\s*(\d+)\s*")
_STATUSES = re.compile(r"([1-5]\d\d)(?:-([1-5]\d\d))?")
# All words below `spec` that have an effect here; `*` is a name.
_UNDERSTOOD = tuple(
    tuple(path.split("."))
    for path in (
        "policies.timeouts.*",
        *(
            f"policies.retries.*.{name}"
            for name in ("policy", "duration", "initialInterval", "maxInterval", "maxRetries")
        ),
        "policies.retries.*.matching.httpStatusCodes",
        *(f"policies.circuitBreakers.*.{name}" for name in ("maxRequests", "interval", "timeout", "trip")),
        *(f"targets.apps.*.{name}" for name in ("timeout", "retry", "circuitBreaker")),
        "targets.components.*.inbound.retry",
    )
)


@dataclass(frozen=True, slots=True)
class ResiliencyRules:
    """`deliveries`: by pub/sub, how a message is retried. `apps`: by app, what holds for calls of it.

    `scopes`: the apps whose rules these are; none for every app.
    """

    deliveries: Mapping[str, RetryPolicy] = field(default_factory=dict)
    apps: Mapping[str, TargetPolicy] = field(default_factory=dict)
    scopes: frozenset[str] = frozenset()

    def are_for(self, app_id: str) -> bool:
        return not self.scopes or app_id in self.scopes


def read_rules(resource: Resource) -> ResiliencyRules:
    """Raises StartError for what cannot be; what is of no effect here is named in the log."""
    retries = {name: _retry_policy(resource, name) for name in resource.mapping("spec.policies.retries")}
    deliveries = {
        name: _named(resource, retries, policy, "retry policy", f"spec.targets.components.{name}.inbound.retry")
        for name in resource.mapping("spec.targets.components")
        if (policy := resource.get("spec.targets.components", name, "inbound", "retry")) is not None
    }
    apps = {name: _target(resource, name, retries) for name in resource.mapping("spec.targets.apps")}
    ignored = list(_ignored(resource))
    if ignored:
        log.warning("resiliency_ignored", extra={"file": resource.file.name, "what": ", ".join(ignored)})
    return ResiliencyRules(deliveries, apps, resource.scopes())


def _ignored(resource: Resource) -> Iterator[str]:
    yield from _without_effect(resource.mapping("spec"), ())
    for kind in ("timeouts", "retries", "circuitBreakers"):
        for name in resource.mapping(f"spec.policies.{kind}"):
            # Dapr gives these names a meaning of their own: for all targets, or for calls within itself.
            if name.startswith(("Default", "DaprBuiltIn")):
                yield f"policies.{kind}.{name} as a default"


def _without_effect(given: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    for name, value in given.items():
        here = (*path, name)
        fits = [
            words
            for words in _UNDERSTOOD
            if len(words) >= len(here) and all(word in ("*", part) for word, part in zip(words, here, strict=False))
        ]
        if not fits:
            yield ".".join(here)
        elif isinstance(value, Mapping) and any(len(words) > len(here) for words in fits):
            yield from _without_effect(value, here)


def _target(resource: Resource, app_id: str, retries: Mapping[str, RetryPolicy]) -> TargetPolicy:
    given, path = resource.mapping("spec.targets.apps", app_id), f"spec.targets.apps.{app_id}"
    timeout, retry, breaker = (given.get(kind) for kind in ("timeout", "retry", "circuitBreaker"))
    return TargetPolicy(
        None if timeout is None else _timeout_s(resource, timeout, f"{path}.timeout"),
        None if retry is None else _named(resource, retries, retry, "retry policy", f"{path}.retry"),
        None if breaker is None else _breaker_policy(resource, breaker, f"{path}.circuitBreaker"),
    )


def _named(resource: Resource, policies: Mapping[str, T], name: Any, what: str, path: str) -> T:
    """The one of `policies` that `name`, which stands at `path`, is the name of."""
    if not isinstance(name, str):
        resource.refuse(f"{path} must be the name of a {what}")
    if name not in policies:
        resource.refuse(f"there is no {what} {name!r}")
    return policies[name]


@contextmanager
def _refusing(resource: Resource, path: str) -> Iterator[None]:
    """What cannot be at `path` is refused with the file."""
    try:
        yield
    except (TypeError, ValueError, OverflowError) as error:
        resource.refuse(f"{path}: {error}")


def _timeout_s(resource: Resource, name: Any, path: str) -> float:
    duration = _named(resource, resource.mapping("spec.policies.timeouts"), name, "timeout", path)
    with _refusing(resource, f"spec.policies.timeouts.{name}"):
        return duration_s(str(duration))


def _retry_policy(resource: Resource, name: str) -> RetryPolicy:
    path = f"spec.policies.retries.{name}"
    given = resource.mapping("spec.policies.retries", name)
    kind = given.get("policy", "constant")
    if kind not in ("constant", "exponential"):
        resource.refuse(f"{path}.policy must be constant or exponential")
    statuses = resource.get("spec.policies.retries", name, "matching", "httpStatusCodes")
    with _refusing(resource, path):
        return RetryPolicy(
            kind=kind,
            duration_s=duration_s(str(given.get("duration", "5s"))),
            initial_interval_s=duration_s(str(given.get("initialInterval", "500ms"))),
            max_interval_s=duration_s(str(given.get("maxInterval", "60s"))),
            max_retries=int(given.get("maxRetries", -1)),
            statuses=_status_ranges(str(statuses)) if statuses else None,
        )


def _status_ranges(text: str) -> tuple[tuple[int, int], ...]:
    """`429,500-599`. Raises ValueError."""
    ranges = []
    for part in filter(None, text.split(",")):
        found = _STATUSES.fullmatch(part.strip())
        if found is None:
            raise ValueError(f"{part!r} is no HTTP status or range of them")
        ranges.append((int(found[1]), int(found[2] or found[1])))
    return tuple(ranges)


def _breaker_policy(resource: Resource, name: Any, path: str) -> BreakerPolicy:
    _named(resource, resource.mapping("spec.policies.circuitBreakers"), name, "circuit breaker", path)
    given = resource.mapping("spec.policies.circuitBreakers", name)
    usual = BreakerPolicy()
    with _refusing(resource, f"spec.policies.circuitBreakers.{name}"):
        return BreakerPolicy(
            trip=_conditions(str(given["trip"])) if "trip" in given else usual.trip,
            interval_s=duration_s(str(given["interval"])) if "interval" in given else usual.interval_s,
            timeout_s=duration_s(str(given["timeout"])) if "timeout" in given else usual.timeout_s,
            max_requests=int(given.get("maxRequests", 0)) or usual.max_requests,
        )


def _conditions(text: str) -> tuple[Condition, ...]:
    """Of the expressions that Dapr takes: comparisons of a count with a number, joined by `&&`. Raises ValueError."""
    found = [_CONDITION.fullmatch(part) for part in text.split("&&")]
    conditions = [Condition(match[1], match[2], int(match[3])) for match in found if match is not None]
    if len(conditions) != len(found):
        raise ValueError(f"trip {text!r} is not understood: only counts compared with numbers, joined by &&, are")
    return tuple(conditions)
