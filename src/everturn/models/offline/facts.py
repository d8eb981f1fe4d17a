"""What the offline demo can know of a user, and how a newer fact takes the place of an older one."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from everturn.models.offline.sentences import straight


class FactKind(StrEnum):
    NAME = "name"  # what to call the user
    HOME = "home"  # where the user lives
    LIKE = "like"
    DISLIKE = "dislike"
    ATTRIBUTE = "attribute"  # "my SUBJECT is VALUE"
    NOTE = "note"  # "remember that VALUE"
    OTHER = "other"  # a sentence of a summary that fits no other kind, as it stands


# Two ways to write one word; a question may use the other one.
_SPELLINGS = (("favourite", "favorite"), ("colour", "color"))
# "my dog's name is Rex", "my dog is called Rex": both are about the dog.
_EMPTY_WORDS = frozenset({"name", "called", "named", "again", "now"})


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact. `value` is exactly what was said; `subject` and `verb` (is, are) belong to attributes."""

    kind: FactKind
    value: str
    subject: str = ""
    verb: str = "is"

    @property
    def key(self) -> tuple[str, str]:
        """Two facts with the same key are about the same thing: the newer one holds."""
        match self.kind:
            case FactKind.NAME | FactKind.HOME:
                return (self.kind, "")
            case FactKind.ATTRIBUTE:
                return (self.kind, same_subject(self.subject))
            case FactKind.LIKE | FactKind.DISLIKE:
                return ("taste", self.value.casefold())
            case FactKind.NOTE | FactKind.OTHER:
                return (self.kind, self.value.casefold())


def same_subject(subject: str) -> str:
    """`subject` without what does not tell two subjects apart: case, spelling, white space, "'s name"."""
    words = straight(subject).casefold()
    for one, other in _SPELLINGS:
        words = words.replace(one, other)
    core = [word.removesuffix("'s") for word in words.split() if word not in _EMPTY_WORDS]
    return " ".join(core) or words


def merge(facts: Iterable[Fact]) -> list[Fact]:
    """`facts`, which come oldest first, with only the newest of each key; a fact that is said again counts as new."""
    known: dict[tuple[str, str], Fact] = {}
    for fact in facts:
        known.pop(fact.key, None)
        known[fact.key] = fact
    return list(known.values())
