"""Users in the state store: what is remembered of each, one key a user, changed under its ETag."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from everturn.contracts.memory import UserMemory, default_memory
from everturn.errors import ConflictError
from everturn.memory.encoding import UserRecord, user_from_json, user_key, user_to_json
from everturn.sidecar.client import DaprClient, Save, StateItem

# As for conversations: each lost race means that another writer got on.
_MAX_RACES = 20


@dataclass(frozen=True, slots=True)
class ReadUser:
    """A user's key as it was read; `item` is None where there is none."""

    user_id: str
    record: UserRecord
    item: StateItem | None

    @property
    def memory(self) -> UserMemory:
        """What is remembered; the default of the contract where nothing is."""
        return self.record.memory or default_memory(self.user_id)


class Users:
    """All methods raise TransientError where the store cannot be read or written, never taking that for a new user."""

    def __init__(self, dapr: DaprClient) -> None:
        self._dapr = dapr

    async def read(self, user_id: str) -> ReadUser:
        item = await self._dapr.get_state(user_key(user_id))
        return ReadUser(user_id, UserRecord() if item is None else user_from_json(item.value), item)

    async def initialize(self, user_id: str, memory: UserMemory) -> None:
        """Replace what is remembered. A summary that is being made begins again from the new one."""
        await self._change(user_id, lambda record: replace(record, memory=memory))

    async def apply_summary(self, user: ReadUser, session_id: str, summary: str, turns: int) -> None:
        """Write a summary made from `user.memory` that has the first `turns` turns of the session in it.

        One write, of the summary and of the note of what is in it. Raises ConflictError, and writes nothing, where the
        key has changed since `user` was read.
        """
        memory = user.memory.model_copy(update={"user_summary": summary})
        await self._write(user, UserRecord(memory, {**user.record.applied, session_id: turns}))

    async def forget_applied(self, user_id: str, session_id: str, turns: int) -> None:
        """Drop the note of a session whose own index says by now that the first `turns` turns are in the summary."""

        def without(record: UserRecord) -> UserRecord:
            if record.applied.get(session_id, turns + 1) > turns:
                return record
            return replace(record, applied={key: value for key, value in record.applied.items() if key != session_id})

        await self._change(user_id, without)

    async def _change(self, user_id: str, change: Callable[[UserRecord], UserRecord]) -> None:
        for _ in range(_MAX_RACES):
            user = await self.read(user_id)
            changed = change(user.record)
            if changed == user.record:
                return
            try:
                await self._write(user, changed)
            except ConflictError:
                continue
            return
        raise ConflictError(f"user {user_id!r} has too many writers")

    async def _write(self, user: ReadUser, record: UserRecord) -> None:
        key, value = user_key(user.user_id), user_to_json(record)
        if user.item is None:
            await self._dapr.save_state(Save(key, value, first_write=True))
        else:
            await self._dapr.save_state(Save(key, value, etag=user.item.etag))
