"""Recordings of turns, made from their facts: what `everturn turns export` writes and `replay` reads."""

from collections.abc import Iterable

import msgspec

from everturn.chat.calls import Call, Decision, calls_of, decision_key, parts_of, pauses_of
from everturn.chat.context import recent_entries
from everturn.chat.facts import Failed, Prompt, Reply, TurnFacts, prompt_key
from everturn.chat.journal import Journal
from everturn.contracts.chat import ApprovalDecision
from everturn.contracts.recording import Recording
from everturn.errors import TerminalError


async def recording_of(journal: Journal, facts: TurnFacts) -> Recording:
    """The last run of a turn, as far as it has come. Raises TerminalError (kind `no_context`) before it has begun."""
    run, verdict = facts.run, facts.verdict
    context = await journal.context(run)
    if context is None or context.recent is None:
        raise TerminalError(
            f"turn {run.turn_id!r} cannot be replayed: what its model was asked with is not kept", kind="no_context"
        )
    calls = await calls_of(journal, run)
    asked = {decision_key(run, one.call_id): one.call_id for pause in pauses_of(calls) for one in pause.asked}
    decided = await journal.read_all(dict.fromkeys(asked, Decision))
    if isinstance(verdict, Reply) and verdict.last_call:
        calls.append(msgspec.convert(verdict.last_call, Call))
    return Recording(
        turn_id=run.turn_id,
        run=run.number,
        status=facts.outcome.status if facts.outcome else None,
        accepted=msgspec.structs.replace(run.accepted, trace="").stored(),
        context=msgspec.json.decode(msgspec.json.encode(context.stored())),  # a tuple is no JSON for pydantic
        recent=[msgspec.to_builtins(entry) for entry in await recent_entries(journal, context)],
        calls=[call.stored() for call in calls],
        decisions={
            asked[key]: ApprovalDecision(decision=decision.decision, reason=decision.reason)
            for key, decision in decided.items()
        },
        prompts=await _prompts_of(journal, calls),
        reply=verdict.text if isinstance(verdict, Reply) else None,
        error=verdict.as_failure() if isinstance(verdict, Failed) else None,
    )


async def _prompts_of(journal: Journal, calls: Iterable[Call]) -> dict[str, object]:
    """What the calls were asked, as far as it is not kept with them."""
    digests: set[str] = set()
    for call in calls:
        if call.kind == "model":
            offered, instructions, _ = parts_of(call.id)
            digests |= {offered} if call.instructions is not None else {offered, instructions}
    keys = {prompt_key(digest): digest for digest in sorted(digests)}
    found = await journal.read_all(dict.fromkeys(keys, Prompt))
    return {keys[key]: prompt.value for key, prompt in found.items()}
