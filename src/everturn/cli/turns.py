"""`everturn turns show`: where a turn stands, step by step."""

from urllib.parse import quote

import httpx2
from pydantic import ValidationError

from everturn.cli.chat import printable
from everturn.cli.requests import open_client, problem, send
from everturn.contracts.chat import Step, Turn
from everturn.errors import TerminalError


def show_turn(turn_id: str, *, url: str | None) -> None:
    """Print the turn. Raises SettingError, TransientError where the service cannot be reached, TerminalError else."""
    with open_client(url) as client:
        response = send(client, client.build_request("GET", f"/turns/{quote(turn_id, safe='')}"))
    if response.status_code != 200:
        raise problem(response)
    for line in turn_lines(_turn(response)):
        print(printable(line))


def turn_lines(turn: Turn) -> list[str]:
    """`turn` for a person to read."""
    finished = f", finished {turn.finished_at}" if turn.finished_at else ""
    lines = [
        f"turn {turn.turn_id}: {turn.status}",
        f"  user {turn.user_id}, session {turn.session_id}, turn number {turn.sequence} in it",
        f"  accepted {turn.created_at}{finished}",
    ]
    lines += [_step_line(step) for step in turn.steps]
    if turn.reply is not None:
        lines.append(f"  reply by {turn.reply.model}: {turn.reply.reply}")
    if turn.error is not None:
        lines.append(f"  error {turn.error.kind}: {turn.error.message}")
    return lines


def _step_line(step: Step) -> str:
    attempts = f"{step.attempts} attempt{'' if step.attempts == 1 else 's'}"
    error = f"; last error {step.error.kind}: {step.error.message}" if step.error else ""
    return f"  {step.name:<20} {step.status:<10} {attempts}{error}"


def _turn(response: httpx2.Response) -> Turn:
    try:
        return Turn.model_validate_json(response.content)
    except ValidationError as error:
        raise TerminalError(f"{response.url} did not answer with a turn: is it a chat service?") from error
