"""`everturn turns export` and `everturn turns replay`: a recorded turn as a file, and run again without a call."""

import asyncio
import json
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path

from pydantic import ValidationError

from everturn.chat.assistant.agent import build_assistant
from everturn.chat.replay import Replay, replay
from everturn.cli.client import path_of, printable
from everturn.cli.turns import ask
from everturn.contracts.recording import Recording
from everturn.errors import TerminalError
from everturn.models.providers import prepare_sdk
from everturn.settings import load_settings

_ENDINGS = {
    "reply": "the reply is the recorded one",
    "recording": "the recording ends before a reply, and the run comes as far",
    "departure": "the end of the recording cannot be reached",
}


def export_turn(turn_id: str, *, url: str | None) -> None:
    """Print a turn with all that a replay of it needs. Raises as `show_turn`."""
    print(_asked(turn_id, url).model_dump_json(indent=2, exclude_unset=True))


def replay_turn(turn: str, *, ignored: Collection[str], as_json: bool, url: str | None) -> bool:
    """Run a turn, or one that a file has, again offline, and print how it departs; whether it does not.

    Departures of the kinds `ignored` do not count. Raises as `show_turn`, and SettingError for a wrong assistant.
    """
    path = Path(turn)
    recording = _read(path) if path.is_file() else _asked(turn, url)
    settings = load_settings()
    prepare_sdk()
    from everturn.models.offline.model import OfflineChatModel  # noqa: PLC0415 - it needs the SDK

    assistant = build_assistant(settings, OfflineChatModel(0))  # which is never asked
    found = asyncio.run(replay(recording, assistant, settings.history_tokens))
    is_same = all(departure.kind in ignored for departure in found.departures)
    print(json.dumps({"same": is_same, **asdict(found)}, indent=2) if as_json else printable(_report(found)))
    return is_same


def _asked(turn_id: str, url: str | None) -> Recording:
    return ask("GET", path_of(turn_id, "recording"), url, Recording)


def _read(path: Path) -> Recording:
    try:
        return Recording.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise TerminalError(f"{path} is no recording of this version: make it with `everturn turns export`") from error


def _report(found: Replay) -> str:
    """The replay for a person to read."""
    lines = [f"turn {found.turn_id}: {found.answered} of {found.recorded} recorded calls answered"]
    for departure in found.departures:
        of_agent = f" of {departure.agent}" if departure.agent else ""
        lines.append(f"{departure.kind}{of_agent} departs:")
        lines.extend(f"  {line}" for line in departure.lines)
    lines.append("same: " + _ENDINGS[found.ending] if found.is_same else "departs: " + _ending_of(found))
    return "\n".join(lines)


def _ending_of(found: Replay) -> str:
    if found.ending == "reply" and any(departure.kind == "reply" for departure in found.departures):
        return "the reply is another one"
    if found.ending == "reply":
        return "with the recorded answers the reply would be the same, but the model would be asked again"
    return _ENDINGS[found.ending]
