"""A workflow that is there and never begins, as Dapr leaves one if the caller dies at the wrong moment."""

from datetime import timedelta

from everturn.chat.app import ChatParts
from everturn.chat.facts import Accepted, TurnRun, instance_id
from everturn.chat.journal import Journal
from everturn.chat.old_records import facts_of
from everturn.chat.queue import SessionQueue
from everturn.chat.streamed_words import close_words
from everturn.chat.workflow.chat_turn import CHAT_WORKFLOW, TurnInput
from everturn.chat.workflow.steps import STEP_NAMES, policies_from
from everturn.contracts.fields import to_wire, utc_now
from everturn.settings import Settings
from tests.system.conftest import System


class LostStarts:
    """Starts workflows that nothing will begin for a day."""

    def __init__(self, parts: ChatParts, settings: Settings) -> None:
        self._client = parts.sidecar.workflows
        self._policies = policies_from(settings)

    async def start(self, run: TurnRun) -> None:
        await self.start_waiting(run.turn_id, run.number, run.accepted.session_id)

    async def start_waiting(self, turn_id: str, number: int, session_id: str) -> None:
        given = TurnInput(
            turn_id=turn_id,
            session_id=session_id,
            run=number,
            steps=STEP_NAMES,
            policies=self._policies,
            starts_first=True,
        )
        await self._client.schedule_new_workflow(
            CHAT_WORKFLOW,
            input=given.model_dump(mode="json"),
            instance_id=instance_id(turn_id, number),
            start_at=utc_now() + timedelta(days=1),
        )


async def test_whoever_looks_wakes_a_head_whose_workflow_has_not_begun(system: System) -> None:
    parts = system.composed.chat.parts
    journal = Journal(parts.sidecar.client, 30, facts_of, close_words)
    queue = SessionQueue(parts.sidecar.client, journal, LostStarts(parts, system.settings))
    run = TurnRun("lost", 0, Accepted(user_id="ann", session_id="s", text="hello", at=to_wire(utc_now())))
    await journal.accept(run)
    await queue.enter(run, is_new=True)

    async def has_ended() -> bool:
        return bool((await system.turn("lost"))["status"] == "completed")

    await system.until(has_ended, moving=False)
    assert await system.history_of(2) == ["hello", (await system.turn("lost"))["reply"]["reply"]]
