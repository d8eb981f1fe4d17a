"""A piece of work for a worker in another process: what is sent, and the answer that is awaited."""

import asyncio
import uuid
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from everturn.runtime.sdk import ActivityRequest, ActivityResponse, WorkflowResponse
from everturn.runtime.worker import WorkflowRequest

R = TypeVar("R", WorkflowResponse, ActivityResponse)

# Results are told apart by these alone, since some workers do not echo the token: the instance, and of an activity its
# number in it.
WorkKey = tuple[str, int | None]


class TooLargeError(Exception):
    """Work that no worker would take: the message of it is longer than gRPC lets it be."""


@dataclass(slots=True, eq=False)
class Work(Generic[R]):
    """One turn or one activity, for as long as nobody has answered it.

    `token` is echoed by the worker: an answer with another token is to an earlier turn, or to a task of the same
    number of an earlier execution.
    """

    key: WorkKey
    request: WorkflowRequest | ActivityRequest
    answer: "asyncio.Future[R]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    token: str = field(default_factory=lambda: uuid.uuid4().hex)


class Unanswered(Generic[R]):
    """The work of one kind that is waiting for its answer."""

    def __init__(self) -> None:
        self._by_key: dict[WorkKey, list[Work[R]]] = {}

    def add(self, work: Work[R]) -> None:
        self._by_key.setdefault(work.key, []).append(work)

    def drop(self, work: Work[R]) -> None:
        same_key = self._by_key[work.key]
        same_key.remove(work)
        if not same_key:
            del self._by_key[work.key]

    def settle(self, key: WorkKey, response: R) -> None:
        """Give `response` to the work that it answers; to nobody where that is unknown or answered already."""
        for work in reversed(self._by_key.get(key, [])):
            if response.completionToken in ("", work.token) and not work.answer.done():
                work.answer.set_result(response)
                return
