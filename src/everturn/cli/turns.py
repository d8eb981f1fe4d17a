"""`everturn turns`: look at turns of a running service, and steer them."""

import json
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from everturn.cli.client import T, answer_to, command, note, open_client, path_of, plain
from everturn.contracts.chat import Turn, TurnList

# Columns of what goes to a file or a pipe, which have no width of their own: lines stay whole.
_WIDE = 1_000


def show_turn(turn_id: str, *action: str, url: str | None, body: Mapping[str, str | None] | None = None) -> None:
    """Print a turn, step by step; after `action` on it, if that is given: what follows its path, as `cancel`.

    Raises SettingError, TransientError if the service cannot be reached, TerminalError if it refuses.
    """
    turn = ask("POST" if action else "GET", path_of(turn_id, *action), url, Turn, json=body)
    print_turn(turn, _console())


def list_turns(wanted: Mapping[str, str | int | None], *, url: str | None) -> None:
    """Print a line for each turn, newest first; `wanted` is the query of `GET /turns`, without what is None.

    How to see the next ones goes to stderr, and that there are none. Raises as `show_turn`.
    """
    query = {name: value for name, value in wanted.items() if value is not None}
    listed = ask("GET", "/turns", url, TurnList, params=query)
    if not listed.turns:
        note("no turns")
        return
    rows = Table.grid(padding=(0, 2))
    for turn in listed.turns:
        rows.add_row(*map(plain, (turn.turn_id, turn.status, turn.created_at, turn.session_id)))
    _console().print(rows)
    if listed.next is not None:
        note(f"there are more: --cursor {listed.next}")


def ask(method: str, path: str, url: str | None, shape: type[T], **given: Any) -> T:
    """As `answer_to`, of the chat service at `url`. Raises as `show_turn`."""
    with open_client(url) as client:
        return answer_to(client, method, path, shape, **given)


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else _WIDE)


def print_turn(turn: Turn, console: Console) -> None:
    """`turn` for a person to read: what it is, a row for each step, how it ended."""
    finished = f", finished {turn.finished_at}" if turn.finished_at else ""
    lines = [
        f"turn {turn.turn_id}: {turn.status}",
        f"  user {turn.user_id}, session {turn.session_id}, turn number {turn.sequence} in it",
        f"  accepted {turn.created_at}{finished}",
    ]
    steps = Table.grid(padding=(0, 2))
    for step in turn.steps:
        error = f"last error {step.error.kind}: {step.error.message}" if step.error else ""
        steps.add_row("", *map(plain, (step.name, step.status, _attempts(step.attempts), error)))
    for call in turn.calls:
        error = f"error {call.error.kind}: {call.error.message}" if call.error else ""
        steps.add_row("", *map(plain, (f"  {call.kind} {call.name}", "", _attempts(call.attempts), error)))
    console.print(*map(plain, lines), steps, sep="\n")
    for asked in turn.approvals:
        console.print(plain(f"  asks for {asked.tool} {json.dumps(asked.arguments, ensure_ascii=False)}"))
        console.print(plain(f"    {command()} turns approve {turn.turn_id} {asked.call_id}   (or: reject, --reason)"))
    if turn.reply is not None:
        console.print(plain(f"  reply by {turn.reply.model}: {turn.reply.reply}"))
    if turn.error is not None:
        console.print(plain(f"  error {turn.error.kind}: {turn.error.message}"))


def _attempts(count: int) -> str:
    return f"{count} attempt{'' if count == 1 else 's'}"
