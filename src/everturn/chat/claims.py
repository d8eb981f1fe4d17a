"""Idempotency keys: a first write claims a key for one turn, before anything else of the turn is written.

A claim holds the message, so that whoever finds a claim whose turn was never accepted can finish that.
"""

import hashlib

from pydantic import BaseModel, Field
from pydantic_core import to_json

from everturn.contracts.chat import Message
from everturn.errors import ConflictError, TransientError
from everturn.sidecar.client import DaprClient, Save


class Claim(BaseModel):
    """Which turn a key stands for. `message` and the ids are as accepted; `fingerprint` is of the body as sent."""

    turn_id: str
    user_id: str
    session_id: str
    fingerprint: str
    text: str
    tags: list[str] = Field(default_factory=list)
    accepted_at: str


def claim_key(user_id: str, idempotency_key: str) -> str:
    """Keys count per user; hashed, since both parts may hold any character and any separator."""
    return "claim:" + hashlib.sha256(to_json([user_id, idempotency_key])).hexdigest()


def fingerprint(message: Message) -> str:
    """Equal for bodies that mean the same: absent and null are one, and the client's timestamp does not count."""
    session_id = message.metadata.session_id if message.metadata else None
    meaning = [message.user_id, message.text, session_id, message.tags or []]
    return hashlib.sha256(to_json(meaning)).hexdigest()


class Claims:
    """Claims in the state store."""

    def __init__(self, dapr: DaprClient) -> None:
        self._dapr = dapr

    async def find(self, key: str) -> Claim | None:
        item = await self._dapr.get_state(key)
        return None if item is None else Claim.model_validate(item.value)

    async def take(self, key: str, claim: Claim, *, ttl_s: int) -> Claim:
        """Claim `key`; the claim that holds it then: ours, or that of whoever was first."""
        try:
            await self._dapr.save_state(Save(key, claim.model_dump(mode="json"), first_write=True, ttl_s=ttl_s))
        except ConflictError:
            winner = await self.find(key)
            if winner is None:
                raise TransientError("the idempotency key could not be claimed", kind="conflict") from None
            return winner
        return claim

    async def release(self, key: str) -> None:
        """Give a key back that a refused request has taken."""
        await self._dapr.delete_state(key)
