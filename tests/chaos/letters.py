"""A client that sends each message once, whatever comes of it, and reads at the end what has become of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from tests.chaos.client import Client
from tests.chaos.journal import Journal
from tests.chaos.simulated_loop import pass_time

# What is asked of the model: `models` has the meaning.
WORDS = ("", "", "", "500", "429", "401", "401", "slow=2", "slow=40")
# Seconds between two messages of a session at most, and what the system gets before the end.
_PAUSE_S = 1.0
# How often, and for how long, it asks its own model.
_LOOK_EVERY_S = 0.1
_LOOKS = 1_000
_REST_S = 4 * 3600.0


@dataclass(slots=True)
class Letter:
    """A message. `sent`, `turn_id` (if it was accepted) and `steered` outlive a crash: nothing is sent again."""

    session: str
    user: str
    name: str
    words: str
    sent: bool = False
    turn_id: str = ""
    steered: bool = False


async def send_once(client: Client, letters: Sequence[Letter], chance: Random) -> None:
    """Send what has not been sent; some of the accepted turns are cancelled, and those that fail run again, once."""
    for letter in letters:
        if not letter.sent:
            letter.sent = True
            text = f"{letter.name} {letter.words}"
            body = {"user_id": letter.user, "text": text, "metadata": {"session_id": letter.session}}
            answer = await client.send("POST", "/chat/", body, key=letter.name, prefer="respond-async")
            letter.turn_id = str(answer.answer["turn_id"]) if answer.status == 202 else ""
            await pass_time(chance.random() * _PAUSE_S)
        if letter.turn_id and not letter.steered:
            await _steer(client, letter, chance)


async def _steer(client: Client, letter: Letter, chance: Random) -> None:
    if letter.words == "401":
        await _refused(client.journal, letter.name)
        client.journal.forgiven.add(letter.name)
        letter.steered = True
        await client.send("POST", f"/turns/{letter.turn_id}/rerun")
        return
    letter.steered = True
    if chance.random() < 0.3:
        await client.send("POST", f"/turns/{letter.turn_id}/cancel")


async def _refused(journal: Journal, name: str) -> None:
    """Return a moment after the model, which is the client's own, has refused the message; or after a while."""
    for _ in range(_LOOKS):
        await pass_time(_LOOK_EVERY_S)
        if any(call.name == name and call.answered is not None for call in journal.calls):
            return


async def look_once(client: Client) -> None:
    """After hours: each history and memory once, and only then each turn, since a look at one may help it."""
    await pass_time(_REST_S)
    for session, user in client.journal.sessions():
        await client.send("GET", f"/conversations/{session}")
        await client.send("GET", f"/memories/{user}")
    for turn_id in client.journal.turn_ids():
        await client.send("GET", f"/turns/{turn_id}")
