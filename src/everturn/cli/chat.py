"""`everturn chat`: a small terminal client. Each message has an Idempotency-Key, so asking again is always safe."""

import contextlib
import sys
import time
from dataclasses import dataclass
from typing import Any

import httpx2

from everturn.cli.requests import open_client, problem, send
from everturn.contracts.ids import new_id
from everturn.errors import EverturnError, TransientError

# Seconds that a reply is asked for again after the service went away: a restart takes a few.
_PATIENCE_S = 60.0
_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """`message`: the one to send, or None for a conversation; `url`: where the chat service is, or None."""

    user_id: str
    session_id: str | None
    message: str | None
    url: str | None


def run_chat(options: ChatOptions) -> None:
    """Talk until the input ends, or send the one message. Replies go to stdout, all else to stderr.

    Raises SettingError, TransientError where the service cannot be reached, TerminalError where it refuses.
    """
    with open_client(options.url) as client:
        conversation = _Conversation(client, options.user_id, options.session_id or new_id())
        if options.message is not None:
            print(printable(conversation.say(options.message)), flush=True)
            note(f"session: {conversation.session_id}")
            return
        _converse(conversation)


def _converse(conversation: "_Conversation") -> None:
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401, PLC0415 - gives input() line editing
    note(f"session: {conversation.session_id} (Ctrl-D ends)")
    while True:
        try:
            text = input("you> " if sys.stdin.isatty() else "")
        except EOFError:
            return
        if not text.strip():
            continue
        try:
            print(printable(conversation.say(text)), flush=True)
        except EverturnError as error:
            if not sys.stdin.isatty():
                raise
            note(error.message)


class _Conversation:
    """One user's session with the chat service."""

    def __init__(self, client: httpx2.Client, user_id: str, session_id: str) -> None:
        self._client = client
        self._user_id = user_id
        self.session_id = session_id

    def say(self, text: str) -> str:
        """The reply to `text`. Raises as `run_chat`."""
        body = {"user_id": self._user_id, "text": text, "metadata": {"session_id": self.session_id}}
        request = self._client.build_request("POST", "/chat/", json=body, headers={"Idempotency-Key": new_id()})
        reply = self._ask(request)
        if reply["degraded"]:
            note(f"answered without: {', '.join(reply['degraded'])}")
        return str(reply["reply"])

    def _ask(self, request: httpx2.Request) -> dict[str, Any]:
        """Ask until there is a reply: the same key is the same turn, also over a restart of the service."""
        give_up_at: float | None = (
            None  # None until the service has been reached once: before that it is just not there
        )
        while True:
            try:
                response = send(self._client, request)
            except TransientError as error:
                give_up_at = self._give_up_at(error, give_up_at)
                time.sleep(_PAUSE_S)  # noqa: TID251 - nobody can say when a service is back
                continue
            if response.status_code == 200:
                return dict(response.json())
            if response.status_code != 202:
                raise problem(response)
            note(f"still working on it: {response.headers.get('location', '')}")
            give_up_at = time.monotonic() + _PATIENCE_S

    @staticmethod
    def _give_up_at(error: TransientError, give_up_at: float | None) -> float:
        """Until when to ask again after `error`. Raises `error` where that is over, or nothing was ever accepted."""
        if give_up_at is None:
            if error.kind == "refused":
                raise error
            note("the service went away; asking again for the same turn")
            return time.monotonic() + _PATIENCE_S
        if time.monotonic() > give_up_at:
            raise error
        return give_up_at


def printable(text: str) -> str:
    """`text` without the characters that a terminal would obey."""
    return "".join(char if char in "\n\t" or char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def note(sentence: str) -> None:
    print(printable(sentence), file=sys.stderr, flush=True)
