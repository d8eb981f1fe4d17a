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
from tests.chaos.journal import Exchange, Journal, ModelCall, PaidCall, names_in
from tests.chaos.paid import PAID, PASSED

# Two tools are called at once.
_IN_FLIGHT = 2


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
        """By the name of a message, what GET said of its turn, in order of the answers; 503 says nothing of it."""
        got = {name: self.journal.got("GET", f"/turns/{turn_id}") for name, turn_id in self.turn_of.items()}
        return {name: [item for item in items if item.status != 503] for name, items in got.items()}

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

    def is_interrupted(self, name: str) -> bool:
        """Whether a later message of its session wants it to end."""
        session = self.posts[name][0].body["metadata"]["session_id"]
        later = (other for other in self.posts if self.overlap(other) == "interrupt" and other != name)
        return any(self.posts[other][0].body["metadata"]["session_id"] == session for other in later)

    def heard(self, contents: Sequence[str]) -> list[str]:
        """Those of `contents` whose message the client knows to be accepted: of others it cannot tell."""
        return [content for content in contents if _name_in(content) in self.turn_of]

    def completed(self, session: str) -> list[str]:
        """The messages of a session that got a reply of their own, in the order of their turns."""
        names = [name for name in self.names(session) if self.last[name].get("status") == "completed"]
        names = [name for name in names if "merged_into" not in self.last[name]]
        return sorted(names, key=lambda name: int(self.last[name]["sequence"]))

    @cached_property
    def merged(self) -> dict[str, list[str]]:
        """By the name of a message, those that its turn took up, in their order."""
        found: dict[str, list[str]] = {}
        taken = [name for name in self.last if "merged_into" in self.last[name]]
        names = {turn_id: name for name, turn_id in self.turn_of.items()}
        for name in sorted(taken, key=lambda name: int(self.last[name]["sequence"])):
            found.setdefault(names[self.last[name]["merged_into"]], []).append(name)
        return found

    def pair(self, name: str) -> list[str]:
        """What the message adds to its conversation, with those that are answered with it."""
        answered = [name, *self.merged.get(name, ())]
        return [*(self.posts[one][0].body["text"] for one in answered), self.reply(name)]

    def may_be_passed(self, name: str) -> bool:
        """Whether others may pass the turn, or the one that took its message up, which has another place then."""
        taker = next((one for one, merged in self.merged.items() if name in merged), name)
        return PASSED in self.posts[taker][0].body["text"].split()

    def overlap(self, name: str) -> str:
        return str(self.posts[name][0].body["metadata"].get("overlap", ""))

    def heard_at(self, name: str) -> float:
        """When the client heard that the message was accepted."""
        heard = [post.answered for post in self.posts[name] if post.status in (200, 202)]
        return min((at for at in heard if at is not None), default=inf)

    def before(self, session: str, name: str) -> list[str]:
        """The messages that were answered whose turns are before that of `name`."""
        place = int(self.last[name].get("sequence", 0))
        return [other for other in self.completed(session) if int(self.last[other]["sequence"]) < place]

    def answering(self, name: str) -> ModelCall | None:
        """The call of the model that gave the reply."""
        return next((call for call in self.calls.get(name, []) if call.reply == self.reply(name)), None)

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
        # A rerun of which nobody heard that it was accepted waits for somebody to repeat it, or to look.
        reruns = seen.steered(name, "rerun")
        if view.get("status") not in ENDED and (not reruns or any(rerun.status == 202 for rerun in reruns)):
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
        if reruns and not any(rerun.status == 202 for rerun in reruns):
            allowed |= {"failed"}
        if any(cancel.status == 200 for cancel in cancels):
            allowed = {"cancelled"}
        elif cancels or seen.is_interrupted(name):
            allowed |= {"cancelled"}
        if taker := next((one for one, merged in seen.merged.items() if name in merged), None):
            allowed = {str(seen.last[taker].get("status"))}
        if view.get("status") in ENDED and view["status"] not in allowed:
            yield f"{name} is {view['status']}"


def _what_was_said_of_a_turn_stays(seen: _Seen) -> Iterator[str]:
    for name, views in seen.views.items():
        reruns, may_move = seen.steered(name, "rerun"), seen.may_be_passed(name)

        def kept(
            before: Exchange, after: Exchange, reruns: Sequence[Exchange] = reruns, moves: bool = may_move
        ) -> bool:
            if any(before.sent < _end(rerun) and rerun.sent < _end(after) for rerun in reruns):
                return after.status == 200
            return before.status == after.status == 200 and _same_turn(before.answer, after.answer, moves)

        for item in _steps_back(views, kept):
            yield f"{name} at {item.sent}"
        yield from (f"{name} is {item.status}" for item in views if item.status != 200)


def _same_turn(before: dict[str, Any], after: dict[str, Any], moves: bool) -> bool:
    """Whether `after` can be a later view of the same turn: what has ended has not changed.

    `moves`: it may get a place behind the one that it had, until it has ended.
    """
    ended = before["status"] in ENDED
    if ended and any(before.get(key) != after.get(key) for key in ("status", "reply", "finished_at", "error")):
        return False
    steps = {step["name"]: step for step in after["steps"]}
    # The step that asks a person is completed when it asks, and goes on afterwards.
    is_open = before["status"] in ("waiting", "running", "queued")
    finished = [step for step in before["steps"] if step["status"] == "completed"]
    finished = [
        step for step in finished if not (is_open and step["name"] == "generate_response" and after["calls"][1:])
    ]
    moved = before["sequence"] != after["sequence"] and (ended or not moves or after["sequence"] < before["sequence"])
    return not moved and all(steps.get(step["name"]) == step for step in finished)


def _a_reply_is_asked_for_once(seen: _Seen) -> Iterator[str]:
    """But if the machine died between the model's answer and its being on disk."""
    for name, calls in seen.calls.items():
        given = [call for call in calls if call.reply is not None and not call.cut_off]
        if len(given) > 1:
            yield f"{name}: {len(given)} replies that nothing cut off"
        for before, after in pairwise(calls):
            if before.reply is not None and not before.cut_off:
                yield f"{name}: asked again at {after.sent}"
        if name in seen.completed(_session(seen, name)) and [call.reply for call in given] != [seen.reply(name)]:
            yield f"{name}: the reply is not the one that the model gave"


def _each_call_is_paid_once(seen: _Seen) -> Iterator[str]:
    """But if the machine died between its answer and its being on disk; with one key, whatever crashed."""
    calls: dict[str, list[PaidCall]] = {}
    for call in seen.journal.paid:
        calls.setdefault(call.what, []).append(call)
    for what, made in calls.items():
        if any(not before.cut_off or before.life == after.life for before, after in pairwise(made)):
            yield f"{what}: {len(made)} times"
        if len({call.key for call in made}) > 1:
            yield f"{what}: with {len({call.key for call in made})} keys"
    cut_off = Counter((call.what.split()[0], call.life) for call in seen.journal.paid if call.cut_off)
    for (name, life), count in cut_off.items():
        if count > _IN_FLIGHT:
            yield f"{name}: {count} calls were in flight when life {life} ended"
    for name, view in seen.last.items():
        if _is_paid(seen, name) and view.get("status") == "completed":
            used = view["reply"]["usage"]
            if (used["model_calls"], used["tool_calls"]) != (4, 3):
                yield f"{name} has {used}"
            yield from (
                f"{name} made no {what}" for what in ("mail ann", "mail bob", "book") if f"{name} {what}" not in calls
            )


def _is_paid(seen: _Seen, name: str) -> bool:
    return PAID in seen.posts[name][0].body["text"].split()


def _a_crash_uses_no_attempt_up(seen: _Seen) -> Iterator[str]:
    """But trouble with the state store does."""
    if seen.journal.troubled:
        return
    for name, view in seen.last.items():
        if _is_paid(seen, name):
            continue  # it is an attempt to go on when that is decided
        errors = [call for call in seen.calls.get(name, []) if call.answered is not None and call.reply is None]
        for step in view.get("steps", ()):
            if step["name"] == "generate_response" and step["attempts"] > 1 + len(errors):
                yield f"{name}: {step['attempts']} attempts with {len(errors)} errors"


def _turns_are_in_the_order_of_their_acceptance(seen: _Seen) -> Iterator[str]:
    for session, _ in seen.journal.sessions():
        names = [name for name in seen.names(session) if not seen.steered(name, "rerun")]
        names = [name for name in names if not seen.may_be_passed(name)]
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
            call = seen.answering(name)
            told = [] if call is None else seen.heard([content for _, content in call.history])
            degraded = (seen.last[name].get("reply") or {}).get("degraded", ())
            wanted = before[: len(told)] if seen.may_be_passed(name) else before  # what passed it is not in its prompt
            if "history" not in degraded and told != wanted:
                yield f"{name} was asked with {told[-4:]} after {before[-4:]}"
            before += seen.pair(name)


def _a_session_has_one_owner(seen: _Seen) -> Iterator[str]:
    owners = Counter(session for session, _ in seen.journal.sessions())
    yield from (f"{session} has {count} owners" for session, count in owners.items() if count > 1)


def _histories_never_lose_an_entry(seen: _Seen) -> Iterator[str]:
    for session, _ in seen.journal.sessions():
        reads = [item for item in seen.journal.got("GET", f"/conversations/{session}") if item.status == 200]
        for item in _steps_back(reads, lambda before, after: _is_within(_contents(before), _contents(after))):
            yield f"{session} at {item.sent}"


def _each_turn_is_in_the_history_once(seen: _Seen) -> Iterator[str]:
    for session, _ in seen.journal.sessions():
        reads = [item for item in seen.journal.got("GET", f"/conversations/{session}") if item.status == 200]
        wanted = [content for name in seen.completed(session) for content in seen.pair(name)]
        if reads and seen.heard(_contents(reads[-1])) != wanted:
            yield f"{session} is {_contents(reads[-1])} and not {wanted}"
        if reads and len(_contents(reads[-1])) > len(set(_contents(reads[-1]))):
            yield f"{session} is {_contents(reads[-1])}, and has something twice"


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
        answered = [name for session in sessions for name in seen.completed(session)]
        wanted = Counter(one for name in answered for one in (name, *seen.merged.get(name, ())))
        reads = [item for item in seen.journal.got("GET", f"/memories/{user}") if item.status == 200]
        summed = Counter(seen.heard(list(_summed(reads[-1]).elements()))) if reads else wanted
        if summed != wanted:
            missing, extra = wanted - summed, summed - wanted
            yield f"{user}: {dict(missing)} missing, {dict(extra)} too many"


def _a_merged_message_is_answered_once(seen: _Seen) -> Iterator[str]:
    """By the reply of the turn that took it up, which was asked with it."""
    for session, _ in seen.journal.sessions():
        for name in seen.completed(session):
            call, merged = seen.answering(name), seen.merged.get(name, [])
            if call is not None and call.merged != merged:
                yield f"{name} was asked with {call.merged} and has {merged} merged"
            for other in merged:
                if seen.calls.get(other):
                    yield f"{other} is merged into {name} and was asked by itself"
                if (seen.last[other].get("reply") or {}).get("reply") != seen.reply(name):
                    yield f"{other} is merged into {name} and has another reply"


def _what_was_refused_leaves_nothing(seen: _Seen) -> Iterator[str]:
    reads = [item for item in seen.journal.exchanges if item.path.startswith("/conversations/") and item.status == 200]
    for name, posts in seen.posts.items():
        if name in seen.turn_of or not any(post.status == 409 for post in posts):
            continue
        if seen.calls.get(name) or any(name in call.merged for call in seen.journal.calls):
            yield f"{name} was refused, and the model was asked"
        if any(content.split()[0] == name for item in reads for content in _contents(item)):
            yield f"{name} was refused, and is in a history"


def _who_does_not_wait_finds_nobody(seen: _Seen) -> Iterator[str]:
    for session, _ in seen.journal.sessions():
        for name in filter(lambda name: seen.overlap(name) == "reject", seen.names(session)):
            for other in seen.before(session, name):
                call = seen.answering(other)
                if call is not None and (call.answered or 0) > seen.heard_at(name):
                    yield f"{name} was accepted before {other} was answered"


def _what_is_interrupted_gets_no_reply_afterwards(seen: _Seen) -> Iterator[str]:
    """But where trouble kept the message from its work, so that it was heard of before that was done."""
    if seen.journal.troubled:
        return
    for session, _ in seen.journal.sessions():
        for name in filter(lambda name: seen.overlap(name) == "interrupt", seen.names(session)):
            for other in seen.before(session, name):
                call = seen.answering(other)
                if call is not None and (call.answered or 0) > seen.heard_at(name):
                    yield f"{other} was answered after {name} had interrupted it"


def _session(seen: _Seen, name: str) -> str:
    return str(seen.posts[name][0].body["metadata"]["session_id"])


def _end(item: Exchange) -> float:
    """When it was over; one without an answer may still take effect."""
    return inf if item.answered is None else item.answered


def _contents(read: Exchange) -> list[str]:
    return [entry["content"] for entry in read.answer["history"]]


def _name_in(content: str) -> str:
    """The message that an entry of a history, or a name in a summary, stands for."""
    return content.removeprefix("re:").split()[0].split(":")[0]


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
    _each_call_is_paid_once,
    _a_crash_uses_no_attempt_up,
    _turns_are_in_the_order_of_their_acceptance,
    _turns_of_a_session_run_one_after_the_other,
    _a_prompt_has_all_that_went_before,
    _a_session_has_one_owner,
    _histories_never_lose_an_entry,
    _each_turn_is_in_the_history_once,
    _memory_never_goes_back,
    _each_turn_is_in_the_summary_once,
    _a_merged_message_is_answered_once,
    _what_was_refused_leaves_nothing,
    _who_does_not_wait_finds_nobody,
    _what_is_interrupted_gets_no_reply_afterwards,
)
