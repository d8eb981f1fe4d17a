"""What a user states about themselves in a message: "my name is X", "I live in X", "remember that …".

Rules over English sentences; what they do not understand is no fact. Values stay exactly as they were written.
"""

import re
from collections.abc import Iterator

from everturn.models.offline.facts import Fact, FactKind
from everturn.models.offline.sentences import MAX_SENTENCE_CHARS, rule, sentences, straight, without_stop

_ADVERBS = r"(?:(?:also|really|now|currently|still|just|absolutely|do|very much|actually) ){0,2}"
_LIVE_IN = (
    rf"i {_ADVERBS}(?:live|reside) in|(?:i'm|i am) {_ADVERBS}(?:living|based) in|(?:i|i've|i have) {_ADVERBS}moved to"
)

# Each begins a clause of its own. Its last group is open-ended and is cut afterwards.
_PATTERNS = (
    r"(?:(?:remember|(?:do not|don't) forget)(?: that\b|\s?:)?|(?:keep in mind|note)(?: that\b|\s?:)) (?P<note>\S.*)",
    r"(?:you (?:can|may|should) )?call me (?P<name>\S.*)",
    r"(?:my name(?: is|'s)|i am called|i'm called) (?P<named>\S.*)",
    rf"(?:{_LIVE_IN}) (?P<home>\S.*)",
    rf"i {_ADVERBS}(?:(?:don't|do not|no longer) {_ADVERBS}(?:like|love|enjoy)|hate|dislike) (?P<dislike>\S.*)",
    rf"i {_ADVERBS}(?:like|love|enjoy) (?P<like>\S.*)",
    r"my (?P<subject>[^,.!?:]{1,60}?) (?P<verb>is|are) (?P<attribute>\S.*)",
)
_STATEMENT = rule(rf"(?<![\w'])(?:{'|'.join(_PATTERNS)})")

_STARTS = (
    r"(?:please )?(?:remember|(?:do not|don't) forget)\b|(?:you can )?call me\b|my \w"
    rf"|i {_ADVERBS}(?:live|reside|moved|like|love|enjoy|hate|dislike|don't|do not)\b|(?:i'm|i am|i've) "
)
_ASKS = (
    r"(?:what|where|who|when|which|how|do|does|can|could|would|tell)(?:'s)?"
    r" (?:\w+ ){0,3}?(?:i|my|me|you|time|is|it)\b"
)
_CLAUSE = rule(
    rf"\s{{0,3}}[,–—]\s{{0,3}}(?:(?:and|but|so) )?(?={_STARTS}|{_ASKS})"
    rf"| (?:and|but|so) (?={_STARTS}|{_ASKS})"
    r"| (?=what(?:'s| is| are| do) (?:my|i)\b|where do i\b|who am i\b)"
)
# A clause with one of these before the statement only supposes it, or tells what somebody else says.
_SUPPOSED = rule(r"\b(?:if|whether|when|unless|suppose|imagine|says|said|think|thinks|wish|not)\b")
_QUESTION = rule(
    r"(?:what|where|who|whom|whose|when|which|why|how|do|does|did|is|are|am|was|can|could|would|will|should|have|has)\b"
)
_POLITE_END = re.compile(r",?\s{1,3}(?:please|too|as\s{1,3}well|by\s{1,3}the\s{1,3}way|btw|now|ok|okay)$")
_NAME_END = rule(r"[,;(]| [–—-] | (?:and|but|from|because|so|not) ")
_HOME_END = re.compile(r",?\s{1,3}(?:but|because|since|so)\s|\s{1,3}and\s{1,3}(?=[a-z])")
_NO_NAME = frozenset(
    {
        "later",
        "tomorrow",
        "tonight",
        "soon",
        "anytime",
        "back",
        "when",
        "if",
        "at",
        "on",
        "in",
        "a",
        "an",
        "maybe",
        "not",
    }
)
_NO_THING = frozenset({"it", "that", "this", "these", "those", "you", "him", "her", "them", "what"})
# "I remember …" tells of the past; only "remember …" is a wish.
_NOT_ASKED = rule(r"\b(?:i|we|they|you|to|always|never|can't)\s{0,3}$")
_REQUEST = rule(r"(?:can|could|would|will) you (?:please )?(?=call me\b|remember that\b)")


def clauses(text: str) -> list[str]:
    """The sentences of `text`, taken apart where a new statement or question begins within one."""
    found = []
    for sentence in sentences(text):
        if len(sentence) > MAX_SENTENCE_CHARS:
            continue
        start = 0
        for boundary in _CLAUSE.finditer(straight(sentence)):
            found.append(sentence[start : boundary.start()])
            start = boundary.end()
        found.append(sentence[start:])
    return [clause for clause in found if clause.strip()]


def is_question(clause: str) -> bool:
    """Whether `clause` asks: by its mark or its first word."""
    bare = straight(clause).strip()
    if _REQUEST.match(bare):
        return False
    return bare.endswith("?") or _QUESTION.match(bare) is not None


def stated(text: str) -> list[Fact]:
    """The facts that a message states, in its order."""
    return [fact for clause in clauses(text) for fact in stated_in(clause)]


def stated_in(clause: str) -> list[Fact]:
    """The facts that one clause states; none where it asks."""
    if is_question(clause):
        return []
    request = _REQUEST.match(straight(clause))
    return list(_facts(clause[request.end() :] if request else clause))


def _facts(clause: str) -> Iterator[Fact]:
    found = _STATEMENT.search(straight(clause))
    if found is None:
        return
    kind, before = found.lastgroup or "", straight(clause[: found.start()])
    if _SUPPOSED.search(before) or (kind == "note" and _NOT_ASKED.search(before)):
        return
    value = clause[found.start(kind) : found.end(kind)]
    if kind == "note":
        yield from _facts(value) if _STATEMENT.match(straight(value)) else _note(value)
    elif kind in ("name", "named"):
        yield from _name(value)
    elif kind == "home":
        yield from _fact(FactKind.HOME, _HOME_END.split(value, maxsplit=1)[0])
    elif kind in ("like", "dislike"):
        if value.split(maxsplit=1)[0].strip(".,!").casefold() not in _NO_THING:
            yield from _fact(FactKind(kind), value)
    elif value.split(maxsplit=1)[0].casefold() != "not":
        subject = clause[found.start("subject") : found.end("subject")]
        yield from _fact(FactKind.ATTRIBUTE, value, subject, found.group("verb").casefold())


def _fact(kind: FactKind, value: str, subject: str = "", verb: str = "is") -> Iterator[Fact]:
    exact = _POLITE_END.sub("", without_stop(value))
    if exact:
        yield Fact(kind, exact, subject, verb)


def _name(value: str) -> Iterator[Fact]:
    exact = _NAME_END.split(value, maxsplit=1)[0]
    if exact.split() and exact.split(maxsplit=1)[0].casefold() not in _NO_NAME:
        yield from _fact(FactKind.NAME, exact)


def _note(value: str) -> Iterator[Fact]:
    first_word = value.split(maxsplit=1)[0].strip(".,!?").casefold()
    if first_word not in ("me", "it", "that", "this", "my"):  # "remember my name" states nothing
        yield from _fact(FactKind.NOTE, value)
