"""How many tests have passed on each runtime: the run tells it, and fails if the runtimes are not equal.

In CI (the variable CI) it fails if anything was skipped too: a runtime that nobody tried is not one that conforms.
"""

import os
from collections import Counter
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

# Real Dapr twice: with its state in Redis, and in PostgreSQL.
SAME = ("embedded", "dapr", "postgresql")
# Beside them, the services apart on the embedded runtime.
RUNTIMES = (*SAME, "apart")
_RUNTIME = "runtime"


class Counts:
    """Outcomes by runtime."""

    def __init__(self) -> None:
        self.passed: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.elsewhere = 0

    def take(self, report: pytest.TestReport) -> None:
        runtime = dict(report.user_properties).get(_RUNTIME)
        if report.skipped:
            self.skipped[str(runtime)] += 1
        elif report.when == "call" and report.passed:
            if runtime is None:
                self.elsewhere += 1
            else:
                self.passed[str(runtime)] += 1

    def problem(self, *, in_ci: bool) -> str | None:
        """Why this is no proof that all runtimes do the same; None if it is, or was not meant to be one."""
        if self.skipped.total():
            return f"{self.skipped.total()} tests were skipped" if in_ci else None
        if self.elsewhere:
            return f"{self.elsewhere} tests ran on no runtime: give them one, or move them to tests/e2e"
        passed = {self.passed[runtime] for runtime in SAME}
        if len(passed) == 1 or (0 in passed and not in_ci):
            return None
        return "not the same number passed on each runtime"

    def summary(self) -> str:
        """What has passed and what was skipped, empty if nothing ran."""
        told = []
        for runtime in RUNTIMES:
            passed, skipped = self.passed[runtime], self.skipped[runtime]
            if passed or skipped:
                told.append(f"{runtime}: {passed} passed" + (f", {skipped} SKIPPED" if skipped else ""))
        return "; ".join(told)


def runtime_of(nodeid: str) -> str | None:
    """The runtime among a test's parameters."""
    _, _, parameters = nodeid.rstrip("]").partition("[")
    return next((each for each in parameters.split("-") if each in RUNTIMES), None)


_counts = pytest.StashKey[Counts]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_counts] = Counts()
    config.pluginmanager.register(_Listener(config.stash[_counts]))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Note each test's runtime, for its report."""
    for item in items:
        runtime = runtime_of(item.nodeid)
        if runtime is not None:
            item.user_properties.append((_RUNTIME, runtime))


class ByRuntime(LoadScopeScheduling):  # type: ignore[misc]
    """A runtime's tests in one process: they share a system."""

    def _split_scope(self, nodeid: str) -> str:
        return runtime_of(nodeid) or str(super()._split_scope(nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByRuntime:
    return ByRuntime(config, log)


class _Listener:
    """Hears every report, in the process that tells the outcome too."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if "tests/conformance/" in report.nodeid:
            self._counts.take(report)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """An exit code that says what `pytest_terminal_summary` says; the processes of xdist see a part only."""
    is_part = hasattr(session.config, "workerinput")
    if not is_part and session.exitstatus == pytest.ExitCode.OK and _problem(session.config) is not None:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    summary, problem = config.stash[_counts].summary(), _problem(config)
    if summary:
        terminalreporter.write_line(f"conformance: {summary}")
    if problem is not None:
        terminalreporter.write_line(f"conformance: FAILED: {problem}", red=True)


def _problem(config: pytest.Config) -> str | None:
    return config.stash[_counts].problem(in_ci=bool(os.environ.get("CI")))
