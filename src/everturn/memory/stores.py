"""Everything of this service that lies in the state store."""

from dataclasses import dataclass

from everturn.memory.conversations import Conversations
from everturn.memory.reading import Reader
from everturn.memory.users import Users
from everturn.sidecar.client import DaprClient


@dataclass(frozen=True, slots=True)
class Stores:
    conversations: Conversations
    reader: Reader
    users: Users

    @classmethod
    def over(cls, dapr: DaprClient) -> "Stores":
        return cls(Conversations(dapr), Reader(dapr), Users(dapr))
