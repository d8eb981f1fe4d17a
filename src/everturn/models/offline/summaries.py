"""Facts as the sentences of a summary, and back. It also reads what a person wrote: "Junaid lives in Karachi."."""

import re
from collections.abc import Iterable

from everturn.contracts.memory import MAX_FIELD_CHARS
from everturn.models.offline.facts import Fact, FactKind
from everturn.models.offline.sentences import sentences, straight, without_stop

# A fact that is longer than this is kept only in part: it would push the others out.
_MAX_VALUE_CHARS = 400
_MAX_NAME_CHARS = 60
_PRONOUNS = ("the user", "user", "he", "she", "they")
_NOBODY = re.compile(r" is a new user\.?$", re.IGNORECASE)

_PREDICATES = (
    (FactKind.NAME, r"(?:'s name is|is called|goes by|wants to be called)"),
    (FactKind.HOME, r"(?:lives in|is living in|resides in|is based in|moved to)"),
    (FactKind.DISLIKE, r"(?:does not like|doesn't like|dislikes|hates)"),
    (FactKind.LIKE, r"(?:likes|loves|enjoys)"),
    (FactKind.NOTE, r"asked to remember:"),
)
_FIRST_SUBJECT = re.compile(rf"(?P<who>[^\s'][^']{{0,59}}?)\s?(?:{'|'.join(words for _, words in _PREDICATES)})\s")
_ATTRIBUTE = re.compile(r"'s?\s(?P<subject>.{1,60}?)\s(?P<verb>is|are)\s(?P<value>.+)", re.DOTALL)


def render(facts: Iterable[Fact], name: str) -> str:
    """`facts`, oldest first, as one short sentence a line; the oldest are left out beyond 2,000 characters."""
    who = name if name.strip() and len(name) <= _MAX_NAME_CHARS and name.isprintable() else "The user"
    lines: list[str] = []
    room = MAX_FIELD_CHARS
    for fact in reversed(list(facts)):
        line = _sentence(fact, who)
        room -= len(line) + 1
        if room < -1:
            break
        lines.append(line)
    return "\n".join(reversed(lines))


def read(summary: str, name: str) -> list[Fact]:
    """The facts of `summary` about the user called `name`, in its order.

    A sentence about somebody else, or one that fits no rule, is kept as it stands.
    """
    found = [sentence for line in summary.splitlines() for sentence in sentences(line)]
    subject = _subject_pattern(name, found)
    return [_fact(sentence, subject) for sentence in found if not _NOBODY.search(sentence)]


def _sentence(fact: Fact, who: str) -> str:
    value = fact.value if len(fact.value) <= _MAX_VALUE_CHARS else fact.value[:_MAX_VALUE_CHARS] + "…"
    sentence = _words(fact, who, " ".join(value.splitlines()))
    return sentence if sentence[-1:] in ".!?" else f"{sentence}."


def _words(fact: Fact, who: str, value: str) -> str:
    match fact.kind:
        case FactKind.NAME:
            return f"{who}'s name is {value}"
        case FactKind.HOME:
            return f"{who} lives in {value}"
        case FactKind.LIKE:
            return f"{who} likes {value}"
        case FactKind.DISLIKE:
            return f"{who} does not like {value}"
        case FactKind.ATTRIBUTE:
            return f"{who}'s {fact.subject} {fact.verb} {value}"
        case FactKind.NOTE:
            return f"{who} asked to remember: {value}"
        case FactKind.OTHER:
            return value


def _subject_pattern(name: str, found: list[str]) -> re.Pattern[str]:
    """Matches the user at the beginning of a sentence: by name, by pronoun, or as the summary itself begins."""
    names = {name.strip(), *name.split()[:1], *_PRONOUNS}
    if found and (first := _FIRST_SUBJECT.match(straight(found[0]))):
        names.add(first["who"])
    by_length = sorted((word for word in names if word), key=len, reverse=True)
    return re.compile(rf"(?:{'|'.join(map(re.escape, by_length))})(?=['\s])", re.IGNORECASE)


def _fact(sentence: str, subject: re.Pattern[str]) -> Fact:
    plain = straight(sentence)
    who = subject.match(plain)
    if who is None:
        return Fact(FactKind.OTHER, sentence)
    rest = plain[who.end() :]
    for kind, predicate in _PREDICATES:
        if found := re.match(rf"\s?{predicate}\s(.+)", rest, re.IGNORECASE | re.DOTALL):
            return Fact(kind, without_stop(sentence[who.end() + found.start(1) :]))
    if found := _ATTRIBUTE.match(rest):
        about = sentence[who.end() + found.start("subject") : who.end() + found.end("subject")]
        value = without_stop(sentence[who.end() + found.start("value") :])
        return Fact(FactKind.ATTRIBUTE, value, about, found["verb"])
    return Fact(FactKind.OTHER, sentence)
