"""`everturn doctor`: what this machine, its settings and what they point to are like, and what to do about it."""

import asyncio
import json
from dataclasses import asdict

from everturn.cli import checks
from everturn.cli.checks import Finding
from everturn.errors import SettingError
from everturn.settings import load_settings, setting_warnings

_WIDTH = max(len(status) for status in checks.STATUSES)


def run_doctor(*, as_json: bool) -> bool:
    """Print a line for each finding, or all of them as JSON; whether there is no problem. Nothing is changed."""
    findings = asyncio.run(_examine())
    if as_json:
        worst = max((finding.status for finding in findings), key=checks.STATUSES.index)
        print(json.dumps({"status": worst, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        for finding in findings:
            print(f"{finding.status:<{_WIDTH}}  {finding.name}: {finding.message}")
    return all(finding.status != "problem" for finding in findings)


async def _examine() -> list[Finding]:
    began = checks.both_clocks()
    try:
        settings = load_settings()
    except SettingError as error:
        return [checks.versions(), Finding("settings", "problem", error.message)]
    findings = [
        checks.versions(),
        *_settings(),
        *checks.folder(settings),
        *checks.ports(settings),
        checks.callers(settings),
    ]
    async with checks.Sidecar(settings) as sidecar:
        asked = (checks.model(settings, sidecar), sidecar.findings(), checks.identity_provider(settings))
        for more in await asyncio.gather(*asked):
            findings += more
    return [*findings, checks.wall_clock(began)]


def _settings() -> list[Finding]:
    warnings = [Finding("settings", "warning", advice) for _, advice in setting_warnings()]
    return warnings or [Finding("settings", "ok", "none is wrong or misspelled")]
