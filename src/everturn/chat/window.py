"""The window of history that a model call gets."""

from collections.abc import Sequence

from everturn.contracts.memory import ConversationEntry
from everturn.models.excerpt import excerpt

# contracts.md, "History window": a fixed estimate, since every endpoint counts tokens in its own way.
CHARS_PER_TOKEN = 4


def fit(entries: Sequence[ConversationEntry], tokens: int) -> list[ConversationEntry]:
    """The last turns of `entries` that fit into `tokens`, oldest first, each whole.

    The last turn is always in it; where it alone is larger, its longest entries are cut in the middle, with a mark.
    """
    budget = tokens * CHARS_PER_TOKEN
    turns = _turns(entries)
    if not turns:
        return []
    kept = _cut_to(turns[-1], budget)
    budget -= _chars(kept)
    for turn in reversed(turns[:-1]):
        budget -= _chars(turn)
        if budget < 0:
            break
        kept = [*turn, *kept]
    return kept


def _turns(entries: Sequence[ConversationEntry]) -> list[list[ConversationEntry]]:
    """`entries` in turns: a user's entry begins one."""
    turns: list[list[ConversationEntry]] = []
    for entry in entries:
        if entry.role == "user" or not turns:
            turns.append([])
        turns[-1].append(entry)
    return turns


def _chars(entries: Sequence[ConversationEntry]) -> int:
    return sum(len(entry.content) for entry in entries)


def _cut_to(turn: list[ConversationEntry], budget: int) -> list[ConversationEntry]:
    """`turn` with at most `budget` characters: short entries stay whole, the longer ones share what is left."""
    room, shares = budget, {}
    by_length = sorted(range(len(turn)), key=lambda place: len(turn[place].content))
    for done, place in enumerate(by_length):
        shares[place] = min(len(turn[place].content), room // (len(turn) - done))
        room -= shares[place]
    return [
        entry.model_copy(update={"content": excerpt(entry.content, shares[place])}) for place, entry in enumerate(turn)
    ]
