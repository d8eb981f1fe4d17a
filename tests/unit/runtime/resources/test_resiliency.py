"""Resiliency files: what is read of them."""

import logging
from pathlib import Path

import pytest

from everturn.errors import StartError
from everturn.runtime.resources.components import Components, read_components
from everturn.runtime.resources.resiliency import BreakerPolicy, Condition, RetryPolicy, TargetPolicy

WHOLE = """
kind: Resiliency
metadata: {name: r}
scopes: [caller]
spec:
  policies:
    timeouts: {short: 250ms}
    retries:
      few: {policy: constant, duration: 2s, maxRetries: 3, matching: {httpStatusCodes: "429,500-599"}}
    circuitBreakers:
      careful: {maxRequests: 2, interval: 8s, timeout: 45s, trip: requests >= 3 && consecutiveFailures > 1}
      plain: {}
  targets:
    apps:
      callee: {timeout: short, retry: few, circuitBreaker: careful}
      other: {circuitBreaker: plain}
"""


def written(folder: Path, text: str) -> Components:
    (folder / "file.yaml").write_text(text, "utf-8")
    return read_components(folder)


def test_what_a_file_says_of_calls_is_read(tmp_path: Path) -> None:
    components = written(tmp_path, WHOLE)

    assert components.invocation_policy("caller", "callee") == TargetPolicy(
        0.25,
        RetryPolicy(duration_s=2.0, max_retries=3, statuses=((429, 429), (500, 599))),
        BreakerPolicy(
            (Condition("requests", ">=", 3), Condition("consecutiveFailures", ">", 1)),
            interval_s=8.0,
            timeout_s=45.0,
            max_requests=2,
        ),
    )
    assert components.invocation_policy("caller", "other") == TargetPolicy(breaker=BreakerPolicy())


def test_it_is_for_the_apps_of_its_scopes_and_the_targets_that_it_names(tmp_path: Path) -> None:
    components = written(tmp_path, WHOLE)

    assert components.invocation_policy("stranger", "callee") == TargetPolicy()
    assert components.invocation_policy("caller", "stranger") == TargetPolicy()


def test_a_policy_of_deliveries_is_for_the_apps_of_its_scopes(tmp_path: Path) -> None:
    components = written(
        tmp_path,
        "kind: Resiliency\nscopes: [a]\nspec:\n  policies: {retries: {few: {maxRetries: 3}}}\n"
        "  targets: {components: {pubsub: {inbound: {retry: few}}}}",
    )

    assert components.delivery_retry("pubsub", "a").max_retries == 3
    assert components.delivery_retry("pubsub", "b").max_retries == 0


def test_what_is_of_no_effect_is_named_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        written(
            tmp_path,
            "kind: Resiliency\nspec:\n  policies: {timeouts: {DefaultTimeoutPolicy: 5s, t: 1s}}\n"
            "  targets:\n    components: {pubsub: {outbound: {timeout: t}, inbound: {circuitBreaker: c}, other: {}}}\n"
            "    apps: {a: {timeout: t, circuitBreakerCacheSize: 5, retries: r}}\n"
            "    actors: {MyActor: {timeout: t}}\n"
            "  more: 1",
        )

    (record,) = [item for item in caplog.records if item.message == "resiliency_ignored"]
    assert record.__dict__["what"].split(", ") == [
        "targets.components.pubsub.outbound",
        "targets.components.pubsub.inbound.circuitBreaker",
        "targets.components.pubsub.other",
        "targets.apps.a.circuitBreakerCacheSize",
        "targets.apps.a.retries",
        "targets.actors",
        "more",
        "policies.timeouts.DefaultTimeoutPolicy as a default",
    ]


@pytest.mark.parametrize(
    ("kind", "policy", "word"),
    [
        ("retries", "{duration: 1s, maxRetry: 3}", "maxRetry"),
        ("retries", "{matching: {gRPCStatusCodes: '1', httpStatusCodes: '429'}}", "matching.gRPCStatusCodes"),
        ("circuitBreakers", "{trips: requests > 3}", "trips"),
        ("retry", "{}", None),
    ],
)
def test_a_misspelled_word_of_a_policy_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, policy: str, word: str | None
) -> None:
    with caplog.at_level(logging.WARNING):
        written(tmp_path, f"kind: Resiliency\nspec: {{policies: {{{kind}: {{p: {policy}}}}}}}")

    (record,) = [item for item in caplog.records if item.message == "resiliency_ignored"]
    assert record.__dict__["what"] == (f"policies.{kind}.p.{word}" if word else f"policies.{kind}")


def test_all_that_is_understood_is_in_the_file_above_and_nothing_of_it_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        written(tmp_path, WHOLE)

    assert [item for item in caplog.records if item.message == "resiliency_ignored"] == []


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("targets: {apps: {a: {timeout: gone}}}", "no timeout 'gone'"),
        ("targets: {apps: {a: {retry: gone}}}", "no retry policy 'gone'"),
        ("targets: {apps: {a: {circuitBreaker: gone}}}", "no circuit breaker 'gone'"),
        (
            "policies: {circuitBreakers: {c: {trip: size(x) > 1}}}\n  targets: {apps: {a: {circuitBreaker: c}}}",
            "is not understood",
        ),
        ("policies: {retries: {5: {duration: 1s}}}", "the name 5, which is no text: put it in quotes"),
        ("policies: {timeouts: {5: 1s}}", "the name 5, which is no text"),
        ("targets: {apps: {5: {timeout: t}}}", "the name 5, which is no text"),
        ("policies: {timeouts: {t: {true: 1s}}}\n  targets: {apps: {a: {timeout: t}}}", "is no duration"),
        ("targets: " + "[" * 3_000, "nested too deep"),
        ("policies: {retries: {r: {matching: {httpStatusCodes: some}}}}", "'some' is no HTTP status"),
        ("policies: {timeouts: {t: soon}}\n  targets: {apps: {a: {timeout: t}}}", "timeouts.t: 'soon' is no duration"),
        ("policies: {retries: {r: {maxRetries: .inf}}}", "spec.policies.retries.r: "),
        ("targets: {apps: {a: {timeout: [t]}}}", "spec.targets.apps.a.timeout must be the name of a timeout"),
        ("targets: {apps: {a: {timeout: 5}}}", "spec.targets.apps.a.timeout must be the name of a timeout"),
        ("targets: {apps: {a: {retry: {r: {}}}}}", "spec.targets.apps.a.retry must be the name of a retry policy"),
        ("targets: {apps: {a: {circuitBreaker: [c]}}}", "apps.a.circuitBreaker must be the name of a circuit breaker"),
        (
            "targets: {components: {pubsub: {inbound: {retry: [r]}}}}",
            "spec.targets.components.pubsub.inbound.retry must be the name of a retry policy",
        ),
    ],
)
def test_a_rule_that_cannot_be_is_refused_at_the_start(tmp_path: Path, spec: str, sentence: str) -> None:
    with pytest.raises(StartError, match=sentence):
        written(tmp_path, f"kind: Resiliency\nspec:\n  {spec}")
