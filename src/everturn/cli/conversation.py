"""A conversation with the chat service as its client sees it: each message is sent until it is taken, and its turn is
listened to until it ends, over as many connections as that needs.

A message has an Idempotency-Key and a stream continues after its last event, so asking again is always safe.
"""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import httpx2

from everturn.cli.client import answer_to, path_of, problem, reaching
from everturn.contracts.chat import ApprovalDecision, Turn, TurnStatus
from everturn.contracts.fields import new_id
from everturn.errors import TerminalError, TransientError

# Seconds before the service is asked again, after it could not be reached.
_PAUSE_S = 0.5
# The service says something every 15 s: what is silent for longer is a lost connection.
_SILENCE_S = 40.0
_LOOK_EVERY_S = 0.5
# Of one look: Ctrl-C waits for the one that is on its way.
_LOOK_TIMEOUT_S = 3.0
# A reply has at most 1 MiB; as JSON it may be longer.
_MAX_EVENT_BYTES = 16 << 20

# The kind of the error that says that a turn has failed: it can be run again.
TURN_FAILED = "turn_failed"


@dataclass(slots=True)
class Asked:
    """A call that a person may have to decide about; `arguments` as the model wrote them."""

    call_id: str
    tool: str
    arguments: str


class Screen:
    """Where a conversation is shown. `patience_s`: how long a service that went away is asked again."""

    patience_s: float
    # Whether `look` is wanted while a turn runs.
    wants_looks: bool

    def heard(self, text: str) -> None:
        """The reply begins with `text`. What was heard before may be taken back."""

    def look(self, turn: Turn) -> None:
        """Where the turn stands."""

    def note(self, sentence: str) -> None:
        """Something that is no part of the reply."""

    def lost(self, sentence: str) -> None:
        """The service cannot be reached now, until something is heard again."""
        self.note(sentence)

    def decide(self, turn_id: str, asked: Asked) -> ApprovalDecision | None:
        """What the person decides about a call; None if there is nobody here to ask."""

    def ended(self, turn: Turn) -> None:
        """The turn has ended, with a reply or without."""


@dataclass
class Heard:
    """What the events of a turn have said so far."""

    last_event: str = ""
    messages: dict[str, str] = field(default_factory=dict)
    # By their ids.
    calls: dict[str, Asked] = field(default_factory=dict)
    # What a person has to decide before there is more.
    asked: list[Asked] = field(default_factory=list)
    is_over: bool = False

    def apply(self, event_id: str, event: dict[str, Any]) -> None:
        """Take in an event of AG-UI."""
        self.last_event = event_id
        match event["type"]:
            case "RUN_STARTED":
                self.asked = []
            case "MESSAGES_SNAPSHOT":  # the words of a dead attempt are not in it
                said = (each for each in event["messages"] if each["role"] == "assistant")
                self.messages = {each["id"]: each.get("content") or "" for each in said}
            case "TEXT_MESSAGE_START":
                self.messages[event["messageId"]] = ""
            case "TEXT_MESSAGE_CONTENT":
                self.messages[event["messageId"]] = self.messages.get(event["messageId"], "") + event["delta"]
            case "TOOL_CALL_START":
                self.calls[event["toolCallId"]] = Asked(event["toolCallId"], event["toolCallName"], "")
            case "TOOL_CALL_ARGS":
                self.calls[event["toolCallId"]].arguments += event["delta"]
            case "RUN_ERROR":
                self.is_over = True
            case "RUN_FINISHED":
                ids = [each["toolCallId"] for each in (event.get("outcome") or {}).get("interrupts") or ()]
                self.asked = [self.calls[call_id] for call_id in ids]
                self.is_over = not self.asked


class Conversation:
    """One user's session with the chat service. `turn_id` is that of the last message that was taken."""

    def __init__(self, client: httpx2.Client, user_id: str | None, session_id: str, screen: Screen) -> None:
        self._client = client
        self._user_id = user_id
        self._screen = screen
        self.session_id = session_id
        self.turn_id: str | None = None
        # The message that the service may not have: its key and body.
        self._unsent: tuple[str, dict[str, Any]] | None = None
        # Whether the turn of the last message was taken and not seen to end.
        self.is_running = False

    def say(self, text: str) -> None:
        """Send `text` and show its turn to the end.

        Raises TransientError if the service cannot be reached, TerminalError if it refuses or the turn ends without a
        reply.
        """
        body = {"user_id": self._user_id, "text": text, "metadata": {"session_id": self.session_id}}
        self._unsent, self.turn_id, self.is_running = (new_id(), body), None, False
        self._listen()

    def go_to(self, session_id: str) -> None:
        """Go on in another conversation of the user."""
        self.session_id, self.turn_id, self._unsent, self.is_running = session_id, None, None, False

    def again(self) -> None:
        """Send the last message again if it was not taken, hear its turn again if that was not seen to end, or run a
        failed one again. Raises as `say`."""
        if self._unsent is None and not self.is_running:
            if self.turn_id is None:
                raise TerminalError("there is nothing to try again: no message was sent yet")
            self._ask("POST", "rerun")
        self._listen()

    def look(self) -> Turn:
        """The last turn. Raises as `say`, and TerminalError if there is none."""
        if self.turn_id is None:
            raise TerminalError("there is no turn yet: no message was sent")
        return self._ask("GET", timeout=_LOOK_TIMEOUT_S)

    def _ask(self, method: str, *rest: str, **given: Any) -> Turn:
        return answer_to(self._client, method, path_of(self.turn_id or "", *rest), Turn, **given)

    def _listen(self) -> None:
        """Hear the turn to its end, and show it. Raises as `say`."""
        heard, lost_at = Heard(), None
        with self._looking():
            while self.is_running or not heard.is_over:
                try:
                    for _ in self._events(heard):
                        lost_at = None
                        self._screen.heard("\n\n".join(heard.messages.values()))
                        self._decide(heard)
                    ended = self.look()
                    self.is_running = False
                except TransientError as error:
                    lost_at = self._go_on_after(error, lost_at)
                    time.sleep(_PAUSE_S)  # noqa: TID251 - nobody can say when a service is back
        self._screen.ended(ended)
        if ended.reply is not None and ended.reply.degraded:
            self._screen.note(f"answered without: {', '.join(ended.reply.degraded)}")
        if ended.status is not TurnStatus.COMPLETED:
            why = f": {ended.error.message}" if ended.error else ""
            if ended.status is TurnStatus.CANCELLED:
                raise TerminalError(f"turn {ended.turn_id} was cancelled", kind="cancelled")
            raise TerminalError(f"turn {ended.turn_id} failed{why}", kind=TURN_FAILED)

    def _go_on_after(self, error: TransientError, lost_at: float | None) -> float:
        """When the service was lost. Raises `error` if that is too long ago, or if it was never there."""
        if lost_at is None:
            if error.kind == "refused" and not self.is_running:
                raise error
            is_away = error.kind in ("refused", "cut")
            why = "the service went away" if is_away else error.message
            self._screen.lost(f"{why}; asking again for the same turn")
            return time.monotonic()
        if time.monotonic() - lost_at > self._screen.patience_s:
            raise error
        return lost_at

    def _events(self, heard: Heard) -> Iterator[None]:
        """Hear events over one connection: yields once it is open, then after each event that `heard` has taken in."""
        if heard.is_over:
            return
        method, path, body = "GET", path_of(self.turn_id or "", "events"), None
        headers = {"Last-Event-ID": heard.last_event}
        if self._unsent is not None:
            key, body = self._unsent
            method, path, headers = "POST", "/chat/", {"Idempotency-Key": key}
        headers["Accept"] = "text/event-stream"
        timeout = httpx2.Timeout(5.0, read=_SILENCE_S)
        stream = self._client.stream(method, path, json=body, headers=headers, timeout=timeout)
        with reaching(self._client), stream as response:
            if response.status_code != 200:
                response.read()
                raise problem(response)
            self.turn_id = unquote(response.headers["location"].rpartition("/")[2])
            self._unsent, self.is_running = None, True
            yield
            for event in httpx2.EventSource(response, max_event_size=_MAX_EVENT_BYTES):
                heard.apply(event.id, json.loads(event.data))
                yield
        if not heard.is_over:
            raise TransientError("the stream of the turn ended before the turn", kind="cut")

    def _decide(self, heard: Heard) -> None:
        """Ask the person about the calls that the turn waits for, each once."""
        while heard.asked:
            asked = heard.asked[0]
            decision = self._screen.decide(self.turn_id or "", asked)
            if decision is not None:
                try:
                    self._ask("POST", "approvals", asked.call_id, json=decision.model_dump(exclude_none=True))
                except TerminalError as error:  # somebody else was quicker
                    self._screen.note(error.message)
            heard.asked.pop(0)

    @contextlib.contextmanager
    def _looking(self) -> Iterator[None]:
        """Show where the turn stands, while the block runs. What cannot be seen now is seen by the next look."""
        if not self._screen.wants_looks:
            yield
            return
        done = threading.Event()

        def look() -> None:
            while not done.wait(_LOOK_EVERY_S):
                if self.is_running:
                    with contextlib.suppress(TransientError, TerminalError):
                        self._screen.look(self.look())

        looking = threading.Thread(target=look, daemon=True)
        looking.start()
        try:
            yield
        finally:
            done.set()
            looking.join()
