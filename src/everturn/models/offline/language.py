"""What a user states of themselves, what they ask, and a summary of it, by the rules of `english.toml`.

What no rule fits is neither a fact nor a question. Values stay exactly as they were written. A clause is short, so no
text costs more than its length.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from everturn.contracts.memory import MAX_FIELD_CHARS

_ENGLISH: dict[str, Any] = tomllib.loads(Path(__file__).with_name("english.toml").read_text("utf-8"))
KINDS: dict[str, list[str]] = _ENGLISH["kinds"]
REPLIES: dict[str, list[str]] = _ENGLISH["replies"]

# A longer sentence states no fact that we could read. What follows so many is not looked at.
_MAX_SENTENCE_CHARS, _MAX_SENTENCES, _MAX_MARKS = 500, 200, 1_000
# A fact or a name that is longer than this is kept only in part, or not: it would push the others out.
_MAX_VALUE_CHARS, _MAX_NAME_CHARS = 400, 60
# The look back keeps a long row of marks from being read again from each of them.
_END = re.compile(r"(?<![.!?…])[.!?…]++[\"')\]]?(?=\s)|[\n;]+")
# A full stop after one of these, or after a single letter, does not end a sentence.
_ABBREVIATION = re.compile(r"(?i:(?:^|[\s(])(?:st|mr|mrs|ms|dr|prof|jr|sr|vs|no|mt|ft|ave|etc|approx|(?!i)[^\W\d_])$)")
_ABBREVIATION_CHARS = 8
_APOSTROPHES = str.maketrans({"\u2019": "'", "\u2018": "'", "\u02bc": "'"})
_CAPITALS = re.compile(r"[^\W\d_a-z][\w'’.-]*(?:\s+[^\W\d_a-z][\w'’.-]*){0,2}")
# "my dog's name is Rex", "my dog is called Rex": both are about the dog. And two ways to write one word.
_EMPTY_WORDS = frozenset({"name", "called", "named", "again", "now"})
_SPELLINGS = {"favourite": "favorite", "colour": "color"}


def _compiled(rule: str | list[str]) -> re.Pattern[str]:
    pattern = rule if isinstance(rule, str) else "|".join(rule)
    for word, meaning in reversed(_ENGLISH["words"].items()):  # one may have an earlier one in it
        pattern = pattern.replace(f"<{word}>", meaning)
    return re.compile(pattern.replace("\\\n", "").replace(" ", r"\s{1,3}"), re.IGNORECASE | re.DOTALL)


_RULES, _TOPICS, _COURTESIES = (
    {name: _compiled(rule) for name, rule in _ENGLISH[table].items()} for table in ("rules", "topics", "courtesies")
)
_STATEMENT, _MAYBE = _RULES["statement"], _RULES["maybe"]
_NEW_USER = re.compile(r" is a new user\.?$")
# A summary may have another name for the user than the memory has.
_FIRST_NAME = re.compile(r"\b([A-Z]\w*(?: [A-Z]\w*)?)(?:'s name is| lives in| likes| works| is from) ")


class Fact(NamedTuple):
    """One fact of a kind of `KINDS`. `value` is exactly what was said; `subject` and `verb` belong to attributes."""

    kind: str
    value: str
    subject: str = ""
    verb: str = "is"

    @property
    def key(self) -> tuple[str, str]:
        """Two facts with the same key are about the same thing: the newer one holds."""
        if self.kind in ("name", "home", "origin", "attribute"):
            return (self.kind, same_subject(self.subject))
        words = self.value.casefold().split()
        if self.kind == "work":  # as a nurse, at a hospital: one of each
            return (self.kind, words[0])
        return (self.kind.removeprefix("dis"), " ".join(words))

    def said(self, before: str) -> str:
        """The fact after `before`, which is about whom it is: a summary's words or those to the user."""
        about = f"{self.subject} {self.verb} " if self.kind == "attribute" else ""
        return self.value.rstrip(".") if self.kind == "other" else f"{before} {about}{self.value}"

    def to_the_user(self) -> str:
        return self.said(KINDS[self.kind][1])


def same_subject(subject: str) -> str:
    """`subject` without what does not tell two subjects apart: case, spelling, white space, "'s name"."""
    words = [word.removesuffix("'s") for word in _straight(subject).casefold().split()]
    return " ".join(_SPELLINGS.get(word, word) for word in words if word not in _EMPTY_WORDS) or " ".join(words)


def merge(facts: Iterable[Fact]) -> list[Fact]:
    """`facts`, which come oldest first, with only the newest of each key; a fact that is said again counts as new."""
    known: dict[tuple[str, str], Fact] = {}
    for fact in facts:
        known.pop(fact.key, None)
        known[fact.key] = fact
    return list(known.values())


def render(facts: Iterable[Fact], name: str) -> str:
    """`facts`, oldest first, as one short sentence a line; the oldest are left out beyond 2,000 characters."""
    who = name if name.strip() and len(name) <= _MAX_NAME_CHARS and name.isprintable() else "The user"
    lines: list[str] = []
    room = MAX_FIELD_CHARS + 1
    for fact in reversed(list(facts)):
        words = " ".join(fact.said(who + KINDS[fact.kind][0]).splitlines())
        words = words if len(words) <= _MAX_VALUE_CHARS + _MAX_NAME_CHARS else words[:_MAX_VALUE_CHARS] + "…"
        lines.append(words if words[-1:] in ".!?" else f"{words}.")
        room -= len(lines[-1]) + 1
        if room < 0:
            return "\n".join(reversed(lines[:-1]))
    return "\n".join(reversed(lines))


def read(summary: str, name: str) -> list[Fact]:
    """The facts of `summary` about the user called `name`, in its order, also if a person wrote it.

    A sentence about somebody else, or one that fits no rule, is kept as it is.
    """
    own = [name.strip(), *name.split()[:1], *_FIRST_NAME.findall(summary)[:1]]
    names = [*own, "the user", "user", "he", "she", "they"]
    found = [sentence for line in summary.splitlines() for sentence in _sentences(line)]
    return [_read(sentence, names) for sentence in found if not _NEW_USER.search(sentence)]


def _read(sentence: str, names: list[str]) -> Fact:
    """A sentence is read as if the user said it: "Ann's dog is Rex", "my dog is Rex"; "Ann likes", "I likes"."""
    for who in sorted(filter(None, names), key=len, reverse=True):
        rest = sentence[len(who) :]
        if sentence[: len(who)].casefold() == who.casefold() and _straight(rest)[:1] in ("'", " "):
            said = f"my {rest[1:].removeprefix('s').lstrip()}" if rest[0] != " " else f"I{rest}"
            facts = list(_facts(said, is_name=False)) if _STATEMENT.match(_straight(said)) else []
            return facts[0] if len(facts) == 1 else Fact("other", sentence)
    return Fact("other", sentence)


def clauses(text: str) -> list[str]:
    """The sentences of `text`, taken apart if a new statement or question begins within one."""
    found = []
    for sentence in _sentences(text)[:_MAX_SENTENCES]:
        if len(sentence) > _MAX_SENTENCE_CHARS:
            continue
        start, before = 0, ""
        for boundary in _RULES["clause"].finditer(_straight(sentence)):
            found.append(before + sentence[start : boundary.start()])
            start, before = boundary.end(), "I " if boundary["bare"] else ""  # after "and" people leave it out
        found.append(before + sentence[start:])
    return [clause for clause in found if clause.strip()]


def courtesies(text: str) -> list[str]:
    """The greetings, thanks and farewells in a message."""
    return [topic for topic, pattern in _COURTESIES.items() if pattern.search(text)]


def is_question(clause: str) -> bool:
    """Whether `clause` asks: by its mark or its first word."""
    bare = _straight(clause).strip()
    return not _RULES["request"].match(bare) and (bare.endswith("?") or _RULES["question"].match(bare) is not None)


def asked_in(clause: str) -> tuple[str, str]:
    """What a clause that states nothing asks: a kind or another topic, and what of it; empty if nothing known."""
    plain = _straight(clause)
    for topic, pattern in _TOPICS.items():
        if pattern.search(plain):
            place = _RULES["place"].search(clause) if topic == "time" else None
            return topic, (place["zone"] or place["about"]).strip() if place else ""
    if found := _RULES["about"].search(plain):
        about = _RULES["end-about"].sub("", found["about"].strip(" .,"))
        return "attribute" if found["whose"].casefold() == "my" else "thing", about
    return "", ""


def stated(text: str) -> list[Fact]:
    """The facts that a message states, in its order."""
    is_name = _RULES["new-name"].search(_straight(text)) is not None
    return [
        fact
        for clause in (clauses(text) if _MAYBE.search(text) else ())
        if _MAYBE.search(clause) and not is_question(clause)
        for fact in _facts(_RULES["request"].sub("", clause, count=1), is_name=is_name)
    ]


def _facts(clause: str, *, is_name: bool) -> Iterator[Fact]:
    """The facts in a clause; `is_name`: "i'm" in small letters says a name."""
    found = _STATEMENT.search(_straight(clause))
    if found is None:
        return
    kind, before = found.lastgroup or "", _straight(clause[: found.start()])
    value = clause[found.start(kind) : found.end(kind)]
    if _RULES["supposed"].search(before) or (kind == "note" and _RULES["not-asked"].search(before)):
        return
    if kind == "note" and _STATEMENT.match(_straight(value)):
        yield from _facts(value, is_name=is_name)
        return
    value, *origin = _RULES["from"].split(value, maxsplit=1) if kind in ("name", "me", "being") else (value,)
    exact = _cut("name" if kind == "me" else kind, value)
    if not exact or (kind == "me" and not _CAPITALS.fullmatch(exact) and not (is_name and exact.isalpha())):
        return
    subject = clause[found.start("subject") : found.end("subject")] if kind == "attribute" else ""
    yield Fact("name" if kind == "me" else kind, exact, subject, (found["verb"] or "is").casefold())
    yield from (Fact("origin", _cut("origin", place)) for place in origin)


def _cut(kind: str, value: str) -> str:
    """`value` without what does not belong to a value of its kind: another clause, courtesies, the full stop."""
    end = _RULES.get(f"end-{kind}")
    return _RULES["end-polite"].sub("", _without_stop(end.split(value, maxsplit=1)[0] if end else value))


def _sentences(text: str) -> list[str]:
    """The sentences of `text`, with their marks and exactly as they were written; none is blank.

    What is after so many marks is one, and too long to be read.
    """
    found, start = [], 0
    for end in islice(_END.finditer(text), _MAX_MARKS):
        before = text[max(start, end.start() - _ABBREVIATION_CHARS) : end.start()]
        if end.group() == "." and _ABBREVIATION.search(before):
            continue
        found.append(text[start : end.end()].strip(" \t\r\n;"))
        start = end.end()
    found.append(text[start:].strip(" \t\r\n;"))
    return [sentence for sentence in found if sentence.strip(".")]


def _straight(text: str) -> str:
    """`text` with straight apostrophes, of the same length: to look at, not to keep."""
    return text.translate(_APOSTROPHES)


def _without_stop(value: str) -> str:
    """`value` without the mark that ends its sentence; that of an abbreviation such as `D.C.` stays."""
    bare = value.rstrip().rstrip("!?…,;:").rstrip()
    last_word = bare[:-1].rsplit(None, 1)[-1:]
    return bare[:-1].rstrip() if bare.endswith(".") and last_word and "." not in last_word[0] else bare
