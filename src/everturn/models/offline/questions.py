"""What a clause of a message asks of the offline demo."""

from dataclasses import dataclass
from enum import StrEnum

from everturn.models.offline.sentences import rule, straight


class Topic(StrEnum):
    NAME = "name"
    HOME = "home"
    LIKES = "likes"
    ATTRIBUTE = "attribute"  # what is my …
    THING = "thing"  # what is the …
    NOTE = "note"
    EVERYTHING = "everything"
    TIME = "time"
    ABILITIES = "abilities"
    GREETING = "greeting"
    THANKS = "thanks"
    FAREWELL = "farewell"


@dataclass(frozen=True, slots=True)
class Question:
    """A topic, and what of it: the subject of an attribute or a note, the place of a time."""

    topic: Topic
    about: str = ""


_IS = "(?:'s| is| are| was| were)"
_KNOW = "(?:know|remember|recall|tell me|say)"

# The more special one comes first.
_TOPICS = (
    (Topic.TIME, rule(rf"\bwhat{_IS}? (?:the )?(?:current )?(?:time|date)\b|\btime is it\b|\bwhat day is\b")),
    (Topic.TIME, rule(rf"\b(?:current|tell me the) (?:time|date)\b|\btoday's date\b|\bwhat{_IS} today\b")),
    (Topic.EVERYTHING, rule(r"\bwhat (?:all |else )?(?:do|can) you (?:know|remember|recall|tell me)\b")),
    (Topic.EVERYTHING, rule(r"\babout (?:me|myself)\b|\bwhat (?:have|did) i (?:told|tell) you(?: so far)?\W*$")),
    (Topic.NOTE, rule(r"\bwhat (?:did|have) i (?:ask|asked|tell|told) you\b")),
    (Topic.NAME, rule(rf"\b(?:what|who){_IS} my name\b|\bwho am i\b|\b{_KNOW} my name\b")),
    (Topic.NAME, rule(r"\bwhat (?:do|should|will) you call me\b|\bwhat am i called\b")),
    (Topic.HOME, rule(r"\b(?:where|which \w+|what \w+) (?:do|did|am) i (?:live|living|reside|based)\b")),
    (Topic.HOME, rule(rf"\b{_KNOW} where i(?:'m| am)? (?:live|living)\b|\bwhere{_IS} my home\b")),
    (Topic.LIKES, rule(r"\bwhat(?: \w+)? (?:do|did) i (?:really )?(?:like|love|enjoy)\b")),
    (Topic.LIKES, rule(rf"\b{_KNOW} what i (?:like|love|enjoy)\b")),
    (Topic.ABILITIES, rule(r"\bwhat can you do\b|\b(?:who|what) are you\b|\babout yourself\b|^\W*help\W*$")),
)
_ATTRIBUTE = rule(
    rf"\b(?:(?:what|who|where|when|which){_IS} |{_KNOW} (?:what )?)(?P<whose>my|the) (?P<about>[^?!]{{1,80}})"
)
_ABOUT_END = rule(r" (?:is|are|again|please|now)$")
_PLACE = rule(r"\bin (?P<about>[a-z][\w /+-]{1,60})|(?P<zone>\b[a-z]+/[\w/+-]+)")
_POLITE = (
    (Topic.THANKS, rule(r"\b(?:thanks|thank you|thx|cheers)\b")),
    (
        Topic.GREETING,
        rule(
            r"^\W*(?:hi|hiya|hello|hey|howdy|greetings|salaa?m|as-?salam\w*|good (?:morning|afternoon|evening|day))\b"
        ),
    ),
    (Topic.FAREWELL, rule(r"\b(?:goodbye|good bye|bye|see you|good night)\b")),
)


def asked_in(clause: str) -> Question | None:
    """The question of a clause that states nothing; None where it asks nothing that the demo knows."""
    plain = straight(clause)
    for topic, pattern in _TOPICS:
        if pattern.search(plain):
            return Question(topic, _place(clause) if topic is Topic.TIME else "")
    if found := _ATTRIBUTE.search(plain):
        topic = Topic.ATTRIBUTE if found["whose"].casefold() == "my" else Topic.THING
        return Question(topic, _ABOUT_END.sub("", found["about"].strip(" .,")))
    return None


def courtesies(text: str) -> list[Topic]:
    """The greetings, thanks and farewells in a message."""
    return [topic for topic, pattern in _POLITE if pattern.search(text)]


def _place(clause: str) -> str:
    found = _PLACE.search(clause)
    if found is None:
        return ""
    return (found["zone"] or found["about"]).strip()
