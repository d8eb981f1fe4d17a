"""`everturn chat`: a conversation with a running chat service."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import httpx2
from rich.console import Console
from rich.table import Table

from everturn.cli.client import answer_to, note, open_client, plain
from everturn.cli.conversation import TURN_FAILED, Conversation
from everturn.cli.screen import Lines, Terminal, is_terminal, shell
from everturn.cli.turns import print_turn
from everturn.contracts.chat import SessionList
from everturn.contracts.fields import new_id
from everturn.errors import EverturnError, TerminalError, TransientError

_HELP = """\
/turn            where the last turn stands, step by step
/retry           send the last message again if it was not taken, or run its failed turn again
/sessions [ID]   your conversations; with an id, go on in that one
/quit            leave; Ctrl-D and Ctrl-C do the same
A message that begins with a slash: write it with two."""


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """`user_id`: None for a signed-in user. `message`: the one to send, or None for a conversation.

    `url`: where the chat service is, or None for what the settings say. `as_json`: print each turn as a line of JSON.
    """

    user_id: str | None
    session_id: str | None
    message: str | None
    url: str | None
    as_json: bool = False


def run_chat(options: ChatOptions) -> None:
    """Talk until the input ends, or send the one message. Without a terminal, replies go to stdout, all else to stderr.

    Raises SettingError, TransientError if the service cannot be reached, TerminalError if it refuses or a turn ends
    without a reply.
    """
    terminal = Terminal(Console(highlight=False)) if is_terminal() and not options.as_json else None
    screen = terminal or Lines(as_json=options.as_json)
    with open_client(options.url) as client:
        conversation = Conversation(client, options.user_id, options.session_id or new_id(), screen)
        try:
            if options.message is not None:
                with terminal.showing() if terminal else contextlib.nullcontext():
                    conversation.say(options.message)
                note(f"session: {conversation.session_id}")
                note(f"turn: {conversation.turn_id}")
            elif terminal is not None:
                _Prompt(client, conversation, terminal, options).run()
            else:
                note(f"session: {conversation.session_id}")
                while (text := _line("")) is not None:
                    if text.strip():
                        conversation.say(text)
        except KeyboardInterrupt:
            if terminal is not None:
                print()  # after the prompt
            _say_how_to_go_on(conversation, options)


def _line(prompt: str) -> str | None:
    """What is typed; None at the end of the input."""
    try:
        return input(prompt)
    except EOFError:
        return None


def _say_how_to_go_on(conversation: Conversation, options: ChatOptions) -> None:
    if conversation.is_running:
        note(f"turn {conversation.turn_id} goes on: {shell('turns', 'show', str(conversation.turn_id))}")
    user = () if options.user_id is None else ("--user", options.user_id)
    url = () if options.url is None else ("--url", options.url)
    note(f"to go on: {shell('chat', *user, '--session', conversation.session_id, *url)}")


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A person who types messages and commands."""

    client: httpx2.Client
    conversation: Conversation
    terminal: Terminal
    options: ChatOptions

    def run(self) -> None:
        """Until /quit or the end of the input. What goes wrong with one message is said, and the next one may come."""
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401, PLC0415 - gives input() line editing
        self.terminal.note(f"session: {self.conversation.session_id} (/help lists the commands, /quit leaves)")
        while (text := _line("you> ")) is not None:
            word, _, rest = text.strip().partition(" ")
            if word == "/quit":
                break
            if not word:
                continue
            try:
                self._do(word, rest.strip(), text)
            except EverturnError as error:
                self.terminal.console.print(plain(error.message), style="red")
                if isinstance(error, TransientError) or error.kind == TURN_FAILED:
                    self.terminal.note("/retry tries it again")
        _say_how_to_go_on(self.conversation, self.options)

    def _do(self, word: str, rest: str, text: str) -> None:
        commands: dict[str, Callable[[], None]] = {
            "/help": lambda: self.terminal.console.print(plain(_HELP)),
            "/turn": lambda: print_turn(self.conversation.look(), self.terminal.console),
            "/retry": lambda: self._show(self.conversation.again),
            "/sessions": lambda: self._sessions(rest),
        }
        if word.startswith("//") or not word.startswith("/"):
            message = text.replace("//", "/", 1) if word.startswith("//") else text
            self._show(lambda: self.conversation.say(message))
        elif word in commands:
            commands[word]()
        else:
            raise TerminalError(f"no command {word!r}: /help lists them")

    def _show(self, work: Callable[[], None]) -> None:
        with self.terminal.showing():
            work()

    def _sessions(self, wanted: str) -> None:
        if wanted:
            self.conversation.go_to(wanted)
            self.terminal.note(f"session: {wanted}")
            return
        query = {"user_id": self.options.user_id} if self.options.user_id is not None else {}
        listed = answer_to(self.client, "GET", "/sessions", SessionList, params=query)
        rows = Table.grid(padding=(0, 2))
        rows.add_column(no_wrap=True, overflow="fold")
        rows.add_column(no_wrap=True, overflow="ellipsis")
        for session in listed.sessions:
            turns = f"{session.turns} turn{'' if session.turns == 1 else 's'}"
            at = datetime.fromisoformat(session.last_at).astimezone()
            rows.add_row(plain(session.session_id), plain(f"{turns}, {at:%Y-%m-%d %H:%M}: {session.title}"))
        self.terminal.console.print(rows if listed.sessions else plain("no conversation yet"))
