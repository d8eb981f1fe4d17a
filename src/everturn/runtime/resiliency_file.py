"""What is used of a Resiliency resource, and a word on what is not.

https://docs.dapr.io/operations/resiliency/ : retries of deliveries; timeouts, retries and circuit breakers of calls.
"""

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from everturn.runtime.resiliency import BreakerPolicy, Condition, RetryPolicy, TargetPolicy, duration_s
from everturn.runtime.resources import Resource

log = logging.getLogger(__name__)

T = TypeVar("T")

_COUNTS = "requests|totalSuccesses|totalFailures|consecutiveSuccesses|consecutiveFailures"
_CONDITION = re.compile(rf"\s*({_COUNTS})\s*(>=|<=|==|!=|>|<)\s*(\d+)\s*")
_STATUSES = re.compile(r"([1-5]\d\d)(?:-([1-5]\d\d))?")
_USED = ("inbound.retry",)


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
        name: _named(resource, retries, policy, "retry policy")
        for name in resource.mapping("spec.targets.components")
        if (policy := resource.get("spec.targets.components", name, "inbound", "retry")) is not None
    }
    apps = {name: _target(resource, name, retries) for name in resource.mapping("spec.targets.apps")}
    ignored = list(_ignored(resource))
    if ignored:
        log.warning("resiliency_ignored", extra={"file": resource.file.name, "what": ", ".join(ignored)})
    return ResiliencyRules(deliveries, apps, resource.scopes())


def _ignored(resource: Resource) -> Iterator[str]:
    for name in resource.mapping("spec.targets.components"):
        for direction in ("inbound", "outbound"):
            for policy in resource.mapping("spec.targets.components", name, direction):
                if f"{direction}.{policy}" not in _USED:
                    yield f"targets.components.{name}.{direction}.{policy}"
    for name in resource.mapping("spec.targets.actors"):
        yield f"targets.actors.{name}"
    for kind in ("timeouts", "retries", "circuitBreakers"):
        for name in resource.mapping(f"spec.policies.{kind}"):
            # Dapr gives these names a meaning of their own: for all targets, or for calls within itself.
            if name.startswith(("Default", "DaprBuiltIn")):
                yield f"policies.{kind}.{name} as a default"


def _target(resource: Resource, app_id: str, retries: Mapping[str, RetryPolicy]) -> TargetPolicy:
    given = resource.mapping("spec.targets.apps", app_id)
    timeouts = resource.mapping("spec.policies.timeouts")
    breakers = resource.mapping("spec.policies.circuitBreakers")
    timeout, retry, breaker = (given.get(kind) for kind in ("timeout", "retry", "circuitBreaker"))
    if breaker is not None:
        _named(resource, breakers, breaker, "circuit breaker")
    return TargetPolicy(
        None if timeout is None else _duration(resource, _named(resource, timeouts, timeout, "timeout"), timeout),
        None if retry is None else _named(resource, retries, retry, "retry policy"),
        None if breaker is None else _breaker_policy(resource, breaker),
    )


def _named(resource: Resource, policies: Mapping[str, T], name: Any, what: str) -> T:
    if name not in policies:
        resource.refuse(f"there is no {what} {name!r}")
    return policies[name]


def _duration(resource: Resource, text: Any, where: str) -> float:
    return _checked(resource, where, lambda: duration_s(str(text)))


def _checked(resource: Resource, where: str, make: Callable[[], T]) -> T:
    try:
        return make()
    except (TypeError, ValueError) as error:
        resource.refuse(f"{where}: {error}")


def _retry_policy(resource: Resource, name: str) -> RetryPolicy:
    path = f"spec.policies.retries.{name}"
    given = resource.mapping("spec.policies.retries", name)
    kind = given.get("policy", "constant")
    if kind not in ("constant", "exponential"):
        resource.refuse(f"{path}.policy must be constant or exponential")
    statuses = resource.get("spec.policies.retries", name, "matching", "httpStatusCodes")
    return _checked(
        resource,
        path,
        lambda: RetryPolicy(
            kind=kind,
            duration_s=duration_s(str(given.get("duration", "5s"))),
            initial_interval_s=duration_s(str(given.get("initialInterval", "500ms"))),
            max_interval_s=duration_s(str(given.get("maxInterval", "60s"))),
            max_retries=int(given.get("maxRetries", -1)),
            statuses=_status_ranges(str(statuses)) if statuses else None,
        ),
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


def _breaker_policy(resource: Resource, name: str) -> BreakerPolicy:
    path = f"spec.policies.circuitBreakers.{name}"
    given = resource.mapping("spec.policies.circuitBreakers", name)
    usual = BreakerPolicy()
    return _checked(
        resource,
        path,
        lambda: BreakerPolicy(
            trip=_conditions(str(given["trip"])) if "trip" in given else usual.trip,
            interval_s=duration_s(str(given["interval"])) if "interval" in given else usual.interval_s,
            timeout_s=duration_s(str(given["timeout"])) if "timeout" in given else usual.timeout_s,
            max_requests=int(given.get("maxRequests", 0)) or usual.max_requests,
        ),
    )


def _conditions(text: str) -> tuple[Condition, ...]:
    """Of the expressions that Dapr takes: comparisons of a count with a number, joined by `&&`. Raises ValueError."""
    found = [_CONDITION.fullmatch(part) for part in text.split("&&")]
    conditions = [Condition(match[1], match[2], int(match[3])) for match in found if match is not None]
    if len(conditions) != len(found):
        raise ValueError(f"trip {text!r} is not understood: only counts compared with numbers, joined by &&, are")
    return tuple(conditions)
