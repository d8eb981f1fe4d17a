"""How `everturn chat` shows a conversation: to a person at a terminal, as plain lines, or as JSON, one line a turn."""

import contextlib
import math
import shlex
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from everturn.cli.client import command, note, plain, printable
from everturn.cli.conversation import Asked, Screen
from everturn.contracts.chat import ApprovalDecision, StepStatus, Turn, TurnStatus

_LABEL = "everturn> "
_REFRESHES_A_SECOND = 8
# Seconds that a service which went away is asked again if nobody is there to press Ctrl-C: a restart takes a few.
_PATIENCE_S = 60.0


class Lines(Screen):
    """Plain lines: each reply as it is on stdout, or its JSON; all else on stderr."""

    patience_s = _PATIENCE_S
    wants_looks = False

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def note(self, sentence: str) -> None:
        note(sentence)

    def decide(self, turn_id: str, asked: Asked) -> ApprovalDecision | None:
        verb = f"{command()} turns approve {turn_id} {asked.call_id}"
        note(f"waits for a decision about {asked.tool} {asked.arguments}: {verb}   (or: reject, --reason)")
        return None

    def ended(self, turn: Turn) -> None:
        if self._as_json:
            print((turn.reply or turn).model_dump_json(exclude_none=True), flush=True)
        elif turn.reply is not None:
            print(printable(turn.reply.reply), flush=True)


class Terminal(Screen):
    """A terminal: words as they come, wrapped, and below them a line that says what the turn waits for.

    Lines that are full are printed for good; the rest and the status are drawn again and again.
    """

    patience_s = math.inf
    wants_looks = True

    def __init__(self, console: Console) -> None:
        self.console = console
        self._spinner = Spinner("dots", style="dim")
        self._turn: Turn | None = None
        self._heard = ""
        self._printed: list[str] = []
        self._rest = Text()
        self._lost: str | None = None
        self._live: Live | None = None
        self._width = console.width

    @contextlib.contextmanager
    def showing(self) -> Iterator[None]:
        """Show the turn that runs in this block."""
        self._turn, self._heard, self._printed, self._rest, self._lost = None, "", [], Text(), None
        # Fixed for a turn: lines that are printed stay as they are if the window changes.
        self._width = self.console.width
        try:
            self._draw()
            yield
        finally:
            self._stop()

    def _draw(self) -> None:
        self._live = Live(
            get_renderable=self._render,
            console=self.console,
            refresh_per_second=_REFRESHES_A_SECOND,
            transient=True,
        )
        self._live.start()

    def _stop(self) -> None:
        """Leave the words where they are, without the status."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._rest:
            self._print(self._rest)
            self._rest = Text()

    def _render(self) -> RenderableType:
        self._spinner.update(text=Text(self._lost or status_of(self._turn, datetime.now(UTC)), style="dim"))
        return Group(self._rest, self._spinner) if self._rest else self._spinner

    def _print(self, line: Text) -> None:
        self.console.print(line)
        self._printed.append(line.plain)

    def heard(self, text: str) -> None:
        self._lost, self._heard = None, text
        *full, rest = self._lines()
        self._show(full)
        # While an answer after a crash repeats what is printed, there is nothing to add.
        self._rest = rest if text and len(full) >= len(self._printed) else Text()

    def _lines(self) -> list[Text]:
        text = Text(_LABEL, style="bold green").append(printable(self._heard), style="not bold default")
        return list(text.wrap(self.console, self._width, tab_size=4))

    def _show(self, lines: list[Text]) -> None:
        """Print those of `lines` that are not printed yet; all, if they are another answer."""
        if any(line.plain != printed for line, printed in zip(lines, self._printed, strict=False)):
            self._rest = Text()
            self.note("that answer broke off; here is the next")
            self._printed.clear()
        for line in lines[len(self._printed) :]:
            self._rest = Text()
            self._print(line)

    def look(self, turn: Turn) -> None:
        self._turn = turn

    def note(self, sentence: str) -> None:
        self.console.print(plain(sentence), style="dim")

    def lost(self, sentence: str) -> None:
        """Say it in the status until the turn is heard again."""
        self._lost = sentence

    def decide(self, turn_id: str, asked: Asked) -> ApprovalDecision | None:
        self._stop()
        self.console.print(
            Text("approve? ", style="bold yellow").append(printable(f"{asked.tool} {asked.arguments}"), style="default")
        )
        try:
            answer = ""
            while answer not in ("y", "yes", "n", "no"):
                answer = input("(y)es or (n)o> ").strip().lower()
            reason = "" if answer.startswith("y") else input("why not (the model reads it)> ").strip()
        except EOFError:
            self.note(f"decide later: {command()} turns approve {turn_id} {asked.call_id}   (or: reject, --reason)")
            return None
        finally:
            self._draw()
        return ApprovalDecision(decision="approve" if answer.startswith("y") else "reject", reason=reason or None)

    def ended(self, turn: Turn) -> None:
        if turn.reply is not None:
            self._heard = self._heard or turn.reply.reply
            self._show(self._lines())
            self._rest = Text()


def status_of(turn: Turn | None, now: datetime) -> str:
    """What the turn does or waits for now, in a few words: its step, the attempt, the time of the next try."""
    if turn is None:
        return "sending"
    match turn.status:
        case TurnStatus.QUEUED:
            return "queued behind another turn of this conversation"
        case TurnStatus.PAUSED:
            return f"paused; {command()} turns resume {turn.merged_into or turn.turn_id} lets it go on"
        case TurnStatus.WAITING:
            return "waits for a decision"
    step = turn.steps[-1] if turn.steps else None
    if step is None:
        return "starting"
    if turn.next_attempt_at is not None or step.status is StepStatus.RETRYING:
        why = f" ({printable(step.error.message)})" if step.error else ""
        return f"{step.name}: attempt {step.attempts} failed{why}{_next_try(turn, now)}"
    call = next((f", {one.kind} {one.name}" for one in reversed(turn.calls) if one.finished_at is None), "")
    return f"{step.name}: attempt {step.attempts}{call}"


def _next_try(turn: Turn, now: datetime) -> str:
    if turn.next_attempt_at is None:
        return ""
    at = datetime.fromisoformat(turn.next_attempt_at)
    seconds = max(0, math.ceil((at - now).total_seconds()))
    return f"; next try at {at.astimezone():%H:%M:%S}, in {seconds} s"


def is_terminal() -> bool:
    """Whether a person sits at both ends, at a terminal that can be drawn on."""
    return sys.stdin.isatty() and sys.stdout.isatty() and not Console().is_dumb_terminal


def shell(*words: str) -> str:
    """A command of this program, to be typed."""
    return f"{command()} {shlex.join(words)}"
