"""What the steps of a turn may use; put together in `app.py`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from everturn.chat.admission import Attempts
from everturn.chat.instances import TurnInstances
from everturn.chat.metrics import ChatMetrics
from everturn.chat.records import TurnRecords
from everturn.chat.session_store import HandOver, SessionStore
from everturn.contracts.memory import ConversationEntry, UserMemory
from everturn.settings import Settings
from everturn.sidecar.client import DaprClient


class Replier(Protocol):
    """Gives the reply to a message: `chat.agent.Assistant`."""

    async def reply(self, memory: UserMemory, window: Sequence[ConversationEntry], text: str) -> str: ...


@dataclass(frozen=True, slots=True)
class TurnServices:
    """`model_name` is what `ChatReply.model` shows."""

    settings: Settings
    dapr: DaprClient
    records: TurnRecords
    sessions: SessionStore
    instances: TurnInstances
    hand_over: HandOver
    assistant: Replier
    model_name: str
    metrics: ChatMetrics
    attempts: Attempts
