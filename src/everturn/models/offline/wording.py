"""How the offline demo says things: formal or casual, and only what it knows."""

from collections.abc import Iterable, Sequence

from everturn.models.offline.facts import Fact, FactKind, same_subject
from everturn.models.offline.questions import Question, Topic

_FORMAL = ("formal", "polite", "professional", "business", "respectful")
_ABILITIES = (
    "I am an offline demo: a few rules, no language model. I can remember what you tell me (“my name is …”,"
    " “I live in …”, “I like …”, “my … is …”, “remember that …”), answer questions about it, and tell the time."
)


def is_formal(style: str) -> bool:
    """Whether a preferred style asks for formal speech."""
    words = style.casefold().replace("informal", "")
    return any(word in words for word in _FORMAL)


def courtesy(topic: Topic, name: str, *, formal: bool) -> str:
    """A greeting, thanks or farewell to `name`."""
    match topic:
        case Topic.GREETING:
            return f"Good day, {name}. How may I assist you?" if formal else f"Hey {name}! What's up?"
        case Topic.THANKS:
            return f"You are most welcome, {name}." if formal else f"Anytime, {name}!"
        case _:
            return f"Goodbye, {name}. It was a pleasure." if formal else f"See you, {name}!"


def noted(facts: Sequence[Fact], *, formal: bool) -> str:
    """What was just told, said back."""
    said = _listed(_to_the_user(fact) for fact in facts)
    return _sentence(f"Thank you. I shall remember: {said}" if formal else f"Got it: {said}")


def answer(question: Question, facts: Sequence[Fact], recorded_name: str) -> str:
    """The answer to a question about the user, from `facts` alone."""
    match question.topic:
        case Topic.NAME:
            return _name(facts, recorded_name)
        case Topic.HOME:
            return _last(facts, FactKind.HOME) or "I do not know where you live."
        case Topic.LIKES:
            return _likes(facts)
        case Topic.ATTRIBUTE:
            return _about(question.about, facts) or f"I do not know your {question.about}."
        case Topic.THING:
            return _about(question.about, facts) or f"I do not know the {question.about}. {_ABILITIES}"
        case Topic.NOTE:
            return _notes(facts)
        case Topic.EVERYTHING:
            return _everything(facts, recorded_name)
        case _:
            return _ABILITIES


def not_understood(*, formal: bool) -> str:
    """What the demo says where its rules do not reach."""
    return f"{'I regret that' if formal else 'Sorry,'} I did not understand that. {_ABILITIES}"


def _name(facts: Sequence[Fact], recorded_name: str) -> str:
    told = [fact for fact in facts if fact.kind is FactKind.NAME]
    if told:
        return _sentence(f"your name is {told[-1].value}")
    return f"You have not told me your name; I have you down as {recorded_name}."


def _last(facts: Sequence[Fact], kind: FactKind) -> str:
    found = [fact for fact in facts if fact.kind is kind]
    return _sentence(_to_the_user(found[-1])) if found else ""


def _likes(facts: Sequence[Fact]) -> str:
    likes = [fact.value for fact in facts if fact.kind is FactKind.LIKE]
    return _sentence(f"you like {_listed(likes)}") if likes else "I do not know what you like."


def _about(about: str, facts: Sequence[Fact]) -> str:
    """The newest fact about `about`: an attribute of that name, else a note that has all its words; empty if none."""
    subject = same_subject(about)
    for fact in reversed(facts):
        if fact.kind is FactKind.ATTRIBUTE and same_subject(fact.subject) == subject:
            return _sentence(_to_the_user(fact))
    words = set(subject.split())
    for fact in reversed(facts):
        if fact.kind in (FactKind.NOTE, FactKind.OTHER) and words <= set(same_subject(fact.value).split()):
            return _sentence(_to_the_user(fact))
    return ""


def _notes(facts: Sequence[Fact]) -> str:
    notes = [fact.value for fact in facts if fact.kind is FactKind.NOTE]
    return _sentence(f"you asked me to remember: {_listed(notes)}") if notes else "I have no such note."


def _everything(facts: Sequence[Fact], recorded_name: str) -> str:
    if not facts:
        return f"I have you down as {recorded_name}; I know nothing else about you yet."
    known = facts
    if not any(fact.kind is FactKind.NAME for fact in facts):
        known = [Fact(FactKind.NAME, recorded_name), *facts]
    return _sentence(f"this is what I know: {'; '.join(_to_the_user(fact) for fact in known)}")


def _to_the_user(fact: Fact) -> str:
    match fact.kind:
        case FactKind.NAME:
            return f"your name is {fact.value}"
        case FactKind.HOME:
            return f"you live in {fact.value}"
        case FactKind.LIKE:
            return f"you like {fact.value}"
        case FactKind.DISLIKE:
            return f"you do not like {fact.value}"
        case FactKind.ATTRIBUTE:
            return f"your {fact.subject} {fact.verb} {fact.value}"
        case FactKind.NOTE:
            return f"you asked me to remember: {fact.value}"
        case FactKind.OTHER:
            return fact.value.rstrip(".")


def _listed(things: Iterable[str]) -> str:
    *first, last = things
    return f"{', '.join(first)} and {last}" if first else last


def _sentence(words: str) -> str:
    stop = "" if words.endswith(".") else "."
    return words[:1].upper() + words[1:] + stop
