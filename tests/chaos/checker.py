"""What must hold, whatever happened. The checker sees what a client sees: its journal.

"Later" is what was sent after something else was answered; of what overlapped no order is asked for.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, pairwise
from math import inf
from typing import Any

from tests.chaos.client import ENDED
from tests.chaos.journal import Exchange, Journal, ModelCall, names_in


def violations(journal: Journal) -> list[str]:
    """A sentence for each thing that does not hold; none where all is well."""
    seen = _Seen(journal)
    return [f"{rule.__name__.strip('_')}: {what}" for rule in RULES for what in rule(seen)]


@dataclass(frozen=True)
class _Seen:
    """The journal, sorted by what the rules ask of it."""

    journal: Journal

    @cached_property
    def turn_of(self) -> dict[str, str]:
        return self.journal.turn_of()

    @cached_property
    def posts(self) -> dict[str, list[Exchange]]:
        """By the name of a message, the requests that sent it."""
        found: dict[str, list[Exchange]] = {}
        for post in self.journal.posts():
            found.setdefault(str(post.key), []).append(post)
        return found

    @cached_property
    def views(self) -> dict[str, list[Exchange]]:
        """By the name of a message, what GET said of its turn, in order of the answers."""
        return {name: self.journal.got("GET", f"/turns/{turn_id}") for name, turn_id in self.turn_of.items()}

    @cached_property
    def last(self) -> dict[str, dict[str, Any]]:
        """By the name of a message, the last view of its turn."""
        return {name: views[-1].answer for name, views in self.views.items() if views}

    def steered(self, name: str, how: str) -> list[Exchange]:
        path = f"/turns/{self.turn_of.get(name)}/{how}"
        return [item for item in self.journal.exchanges if item.path == path]

    @cached_property
    def calls(self) -> dict[str, list[ModelCall]]:
        found: dict[str, list[ModelCall]] = {}
        for call in self.journal.calls:
            found.setdefault(call.name, []).append(call)
        return found

    def names(self, session: str) -> list[str]:
        return [name for name, _ in self.journal.names(session) if name in self.last]

    def completed(self, session: str) -> list[str]:
        """The messages of a session that got a reply, in the order of their turns."""
        names = [name for name in self.names(session) if self.last[name].get("status") == "completed"]
        return sorted(names, key=lambda name: int(self.last[name]["sequence"]))

    def pair(self, name: str) -> list[str]:
        """What the message adds to its conversation."""
        return [self.posts[name][0].body["text"], self.reply(name)]

    def reply(self, name: str) -> str:
        return str((self.last[name].get("reply") or {}).get("reply", "nothing"))


def _steps_back(items: Sequence[Exchange], kept: Callable[[Exchange, Exchange], bool]) -> Iterator[Exchange]:
    """Those of `items` (in order of answers) that do not keep what the latest before them said."""
    answers = [item.answered or 0 for item in items]
    for item in items:
        before = bisect_left(answers, item.sent)
        if before and not kept(items[before - 1], item):
            yield item


def _every_accepted_turn_ends(seen: _Seen) -> Iterator[str]:
    for name, view in seen.last.items():
        if view.get("status") not in ENDED:
            yield f"{name} is {view.get('status')}"


def _no_request_meets_an_unexpected_error(seen: _Seen) -> Iterator[str]:
    for item in seen.journal.exchanges:
        if item.status == 500:
            yield f"{item.method} {item.path} {item.key or ''}"


def _a_key_has_one_turn_and_one_reply(seen: _Seen) -> Iterator[str]:
    for name, posts in seen.posts.items():
        answers = [post.answer for post in posts if post.answered is not None and isinstance(post.answer, dict)]
        turn_ids = {answer["turn_id"] for answer in answers if "turn_id" in answer}
        if len(turn_ids) > 1:
            yield f"{name} has {len(turn_ids)} turns"
        replies = {str(post.answer) for post in posts if post.status == 200}
        if len(replies) > 1:
            yield f"{name} has {len(replies)} replies"


def _a_turn_ends_as_its_messages_ask_for(seen: _Seen) -> Iterator[str]:
    for name, view in seen.last.items():
        words = seen.posts[name][0].body["text"].split()
        cancels, reruns = seen.steered(name, "cancel"), seen.steered(name, "rerun")
        allowed = {"failed"} if "401" in words and not reruns else {"completed"}
        if any(cancel.status == 200 for cancel in cancels):
            allowed = {"cancelled"}
        elif cancels:
            allowed |= {"cancelled"}
        if view.get("status") in ENDED and view["status"] not in allowed:
            yield f"{name} is {view['status']}"


def _what_was_said_of_a_turn_stays(seen: _Seen) -> Iterator[str]:
    for name, views in seen.views.items():
        reruns = seen.steered(name, "rerun")

        def kept(before: Exchange, after: Exchange, reruns: Sequence[Exchange] = reruns) -> bool:
            if any(before.sent < _end(rerun) and rerun.sent < _end(after) for rerun in reruns):
                return after.status == 200
            return after.status == 200 and _same_turn(before.answer, after.answer)

        for item in _steps_back(views, kept):
            yield f"{name} at {item.sent}"
        yield from (f"{name} is {item.status}" for item in views if item.status != 200)


def _same_turn(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether `after` can be a later view of the same turn: what has ended has not changed."""
    ended = before["status"] in ENDED
    if ended and any(before.get(key) != after.get(key) for key in ("status", "reply", "finished_at", "error")):
        return False
    steps = {step["name"]: step for step in after["steps"]}
    finished = [step for step in before["steps"] if step["status"] == "completed"]
    return before["sequence"] == after["sequence"] and all(steps.get(step["name"]) == step for step in finished)


def _a_reply_is_asked_for_once(seen: _Seen) -> Iterator[str]:
    """But where the machine died between the model's answer and its being on disk."""
    for name, calls in seen.calls.items():
        given = [call for call in calls if call.reply is not None and not call.cut_off]
        if len(given) > 1:
            yield f"{name}: {len(given)} replies that nothing cut off"
        for before, after in pairwise(calls):
            if before.reply is not None and not before.cut_off:
                yield f"{name}: asked again at {after.sent}"
        view = seen.last.get(name, {})
        if view.get("status") == "completed" and [call.reply for call in given] != [seen.reply(name)]:
            yield f"{name}: the reply is not the one that the model gave"


def _a_crash_uses_no_attempt_up(seen: _Seen) -> Iterator[str]:
    for name, view in seen.last.items():
        errors = [call for call in seen.calls.get(name, []) if call.answered is not None and call.reply is None]
        for step in view.get("steps", ()):
            if step["name"] == "generate_response" and step["attempts"] > 1 + len(errors):
                yield f"{name}: {step['attempts']} attempts with {len(errors)} errors"


def _turns_are_in_the_order_of_their_acceptance(seen: _Seen) -> Iterator[str]:
    for session, _ in seen.journal.sessions():
        names = [name for name in seen.names(session) if not seen.steered(name, "rerun")]
        for one, other in combinations(names, 2):
            first, second = seen.last[one].get("sequence", 0), seen.last[other].get("sequence", 0)
            heard = min(post.answered for post in seen.posts[one] if post.answered is not None)
            if first == second or (heard < seen.posts[other][0].sent and first > second):
                yield f"{one} is {first}, {other} is {second}"


def _turns_of_a_session_run_one_after_the_other(seen: _Seen) -> Iterator[str]:
    for session, _ in seen.journal.sessions():
        names = seen.completed(session)
        for one, other in pairwise(names):
            calls, later = seen.calls.get(one, []), seen.calls.get(other, [])
            if calls and later and (calls[-1].answered or 0) > later[0].sent and not seen.steered(other, "rerun"):
                yield f"{other} was begun before {one} was answered"


def _a_prompt_has_all_that_went_before(seen: _Seen) -> Iterator[str]:
    for session, _ in seen.journal.sessions():
        before: list[str] = []
        for name in seen.completed(session):
            call = next((call for call in seen.calls.get(name, []) if call.reply == seen.reply(name)), None)
            told = [] if call is None else [content for _, content in call.history]
            degraded = (seen.last[name].get("reply") or {}).get("degraded", ())
            if "history" not in degraded and told != before:
                yield f"{name} was asked with {told[-4:]} after {before[-4:]}"
            before += seen.pair(name)


def _histories_never_lose_an_entry(seen: _Seen) -> Iterator[str]:
    for session, _ in seen.journal.sessions():
        reads = [item for item in seen.journal.got("GET", f"/conversations/{session}") if item.status == 200]
        for item in _steps_back(reads, lambda before, after: _is_within(_contents(before), _contents(after))):
            yield f"{session} at {item.sent}"


def _each_turn_is_in_the_history_once(seen: _Seen) -> Iterator[str]:
    for session, _ in seen.journal.sessions():
        reads = [item for item in seen.journal.got("GET", f"/conversations/{session}") if item.status == 200]
        wanted = [content for name in seen.completed(session) for content in seen.pair(name)]
        if reads and _contents(reads[-1]) != wanted:
            yield f"{session} is {_contents(reads[-1])} and not {wanted}"


def _memory_never_goes_back(seen: _Seen) -> Iterator[str]:
    for user in dict.fromkeys(user for _, user in seen.journal.sessions()):
        reads = [item for item in seen.journal.got("GET", f"/memories/{user}") if item.status == 200]
        introduced = seen.journal.got("POST", f"/memories/{user}/initialize")
        for item in _steps_back(reads, lambda before, after: not (_summed(before) - _summed(after))):
            yield f"{user} at {item.sent}"
        for item in reads:
            if introduced and _end(introduced[0]) < item.sent and item.answer["name"] != "Jo":
                yield f"{user} is not known by name at {item.sent}"


def _each_turn_is_in_the_summary_once(seen: _Seen) -> Iterator[str]:
    for user in dict.fromkeys(user for _, user in seen.journal.sessions()):
        sessions = [session for session, owner in seen.journal.sessions() if owner == user]
        wanted = Counter(name for session in sessions for name in seen.completed(session))
        reads = [item for item in seen.journal.got("GET", f"/memories/{user}") if item.status == 200]
        if reads and _summed(reads[-1]) != wanted:
            missing, extra = wanted - _summed(reads[-1]), _summed(reads[-1]) - wanted
            yield f"{user}: {dict(missing)} missing, {dict(extra)} too many"


def _end(item: Exchange) -> float:
    """When it was over; one without an answer may still take effect."""
    return inf if item.answered is None else item.answered


def _contents(read: Exchange) -> list[str]:
    return [entry["content"] for entry in read.answer["history"]]


def _summed(read: Exchange) -> Counter[str]:
    return Counter(names_in(read.answer["user_summary"]))


def _is_within(part: Sequence[str], whole: Sequence[str]) -> bool:
    """Whether `whole` has all of `part`, in that order."""
    rest = iter(whole)
    return all(item in rest for item in part)


RULES: tuple[Callable[[_Seen], Iterator[str]], ...] = (
    _every_accepted_turn_ends,
    _no_request_meets_an_unexpected_error,
    _a_key_has_one_turn_and_one_reply,
    _a_turn_ends_as_its_messages_ask_for,
    _what_was_said_of_a_turn_stays,
    _a_reply_is_asked_for_once,
    _a_crash_uses_no_attempt_up,
    _turns_are_in_the_order_of_their_acceptance,
    _turns_of_a_session_run_one_after_the_other,
    _a_prompt_has_all_that_went_before,
    _histories_never_lose_an_entry,
    _each_turn_is_in_the_history_once,
    _memory_never_goes_back,
    _each_turn_is_in_the_summary_once,
)
