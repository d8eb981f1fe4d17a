"""Bugs, planted to see the checker find them. Each stands for a mistake that somebody could make; none is in `src`.

They sit where the system meets its surroundings: the disk, a service's sidecar, the way of events.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

import grpc
from dapr.ext.workflow import WorkflowRuntime

from everturn.chat.turn import CHAT_WORKFLOW
from everturn.sidecar.wire import Request, Response, Transport
from everturn.sidecar.workflows import Sidecar
from everturn.testing.simulated_loop import pass_time
from tests.chaos.disk import Disk, Write, fail
from tests.chaos.life import Parts

_STATE = "/v1.0/state/statestore"
_DONE = Response(204)
Send = Callable[[Request], Awaitable[Response]]
Tamper = Callable[[Request, Send], Awaitable[Response]]


class AcknowledgesEarly(Disk):
    """Tells of a commit when its jobs have run, and makes it with the next one."""

    def commit(self, group: Sequence[Write]) -> None:
        if self.connection.in_transaction:
            self.connection.execute("COMMIT")
        self.connection.execute("BEGIN")
        for write in group:
            self.loop.call_soon(self.run(write))


class SkipsCommits(Disk):
    """Tells of every twentieth commit that it is on disk, and it is not."""

    def commit(self, group: Sequence[Write]) -> None:
        if self.writes % 20:
            super().commit(group)
            return
        self.connection.execute("BEGIN")
        for write in group:
            self.loop.call_soon(self.run(write))
        self.connection.execute("ROLLBACK")


class CommitsTheFirst(Disk):
    """Of the jobs of one commit the first alone is kept for sure; the rest goes into the next one, and all are told."""

    def commit(self, group: Sequence[Write]) -> None:
        if self.connection.in_transaction:
            self.connection.execute("COMMIT")
        super().commit(group[:1])
        if group[1:]:
            self.connection.execute("BEGIN")
        for write in group[1:]:
            self.loop.call_soon(self.run(write))


class UndoesAllForOne(Disk):
    """Where a job fails, all of its commit is undone, and the others are told that theirs is on disk."""

    def commit(self, group: Sequence[Write]) -> None:
        self.connection.execute("BEGIN")
        told = [self.run(write) for write in group]
        self.connection.execute("ROLLBACK" if any(tell.func is fail for tell in told) else "COMMIT")
        for tell in told:
            self.loop.call_soon(tell)


def forgetting(table: str) -> Parts:
    """What the table holds is only kept in memory: a start finds it empty."""

    def forget(disk: Disk) -> None:
        disk.connection.execute(f"DELETE FROM {table}")

    return Parts(on_start=forget)


class Tampered:
    """A sidecar with `tamper` between it and its service."""

    def __init__(self, inner: Sidecar, tamper: Tamper) -> None:
        self._inner = inner
        self._tamper = tamper

    @property
    def transport(self) -> Transport:
        return TamperedTransport(self._inner.transport, self._tamper)

    @property
    def workflows(self) -> Any:
        return self._inner.workflows

    async def start(self, worker: WorkflowRuntime) -> None:
        await self._inner.start(worker)

    async def stop(self) -> None:
        await self._inner.stop()


class TamperedTransport:
    def __init__(self, inner: Transport, tamper: Tamper) -> None:
        self._inner = inner
        self._tamper = tamper

    async def send(self, request: Request) -> Response:
        return await self._tamper(request, self._inner.send)

    async def close(self) -> None:
        await self._inner.close()


def in_chat(tamper: Tamper) -> Parts:
    return Parts(chat_sidecar=lambda sidecar: Tampered(sidecar, tamper))


def in_memory(tamper: Tamper) -> Parts:
    return Parts(memory_sidecar=lambda sidecar: Tampered(sidecar, tamper))


def of_events(tamper: Tamper) -> Parts:
    async def only_events(request: Request, send: Send) -> Response:
        is_event = request.method == "POST" and request.target == "/conversations"
        return await (tamper(request, send) if is_event else send(request))

    return Parts(events=lambda channel: TamperedTransport(channel, only_events))


def with_saves_changed(request: Request, change: Callable[[dict[str, Any]], object]) -> Request:
    """`request` after `change` of each save (key, value, etag…) in it."""
    if request.method != "POST" or not request.target.startswith(_STATE) or request.target.endswith("/bulk"):
        return request
    body = json.loads(request.body)
    saves = body if isinstance(body, list) else [item["request"] for item in body["operations"]]
    for save in saves:
        change(save)
    return Request(request.method, request.target, request.headers, json.dumps(body).encode())


def key_read(request: Request) -> str:
    """The key that a request reads; empty where it is none that reads one."""
    return unquote(request.target.removeprefix(f"{_STATE}/")) if request.method == "GET" else ""


async def ignore_etags(request: Request, send: Send) -> Response:
    def change(save: dict[str, Any]) -> None:
        save.pop("etag", None)
        save.pop("options", None)

    return await send(with_saves_changed(request, change))


async def ignore_claims(request: Request, send: Send) -> Response:
    if key_read(request).startswith("claim:") or b'"claim:' in request.body:
        return _DONE
    return await send(request)


def claims_in_memory(sidecar: Sidecar) -> Sidecar:
    claims: dict[str, Any] = {}

    async def tamper(request: Request, send: Send) -> Response:
        key = key_read(request)
        if key.startswith("claim:"):
            return Response(200, {"etag": "1"}, json.dumps(claims[key]).encode()) if key in claims else _DONE
        if b'"claim:' not in request.body:
            return await send(request)
        is_lost = False

        def keep(save: dict[str, Any]) -> None:
            nonlocal is_lost
            is_lost = save["key"] in claims
            claims.setdefault(save["key"], save["value"])

        with_saves_changed(request, keep)
        return Response(409) if is_lost else _DONE

    return Tampered(sidecar, tamper)


async def swap_queue(request: Request, send: Send) -> Response:
    def change(save: dict[str, Any]) -> None:
        queue: list[Any] = save["value"].get("queue", []) if save["key"].startswith("session:") else []
        if len(queue) > 2:
            queue[1], queue[2] = queue[2], queue[1]

    return await send(with_saves_changed(request, change))


async def forget_recent(request: Request, send: Send) -> Response:
    return await send(with_saves_changed(request, lambda save: _of_session(save).pop("recent", None)))


def _of_session(save: dict[str, Any]) -> dict[str, Any]:
    return dict(save["value"]) if not save["key"].startswith("session:") else save["value"]


async def store_reply_later(request: Request, send: Send) -> Response:
    """The step is told that its reply is stored, which happens half a second later."""
    replies: list[str] = []

    def look(save: dict[str, Any]) -> None:
        if save["key"].startswith("turn:") and save["value"].get("reply") and not save["value"].get("outcome"):
            replies.append(save["key"])

    with_saves_changed(request, look)
    if not replies:
        return await send(request)
    beside(_later(request, send))
    return _DONE


async def _later(request: Request, send: Send) -> None:
    await pass_time(0.5)
    await send(request)


def beside(work: Any) -> None:
    task = asyncio.ensure_future(work)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


_tasks: set["asyncio.Future[Any]"] = set()


def start_next_early(sidecar: Sidecar) -> Sidecar:
    """A second turn of a session is started beside the first."""

    async def tamper(request: Request, send: Send) -> Response:
        queue: list[dict[str, Any]] = []
        with_saves_changed(
            request, lambda save: queue.extend(_of_session(save).get("queue", ()) if "session:" in save["key"] else ())
        )
        response = await send(request)
        if len(queue) > 1 and response.status < 300:
            turn = {"turn_id": queue[1]["turn_id"], "policies": {"steps": {}}}
            with suppress(grpc.RpcError):
                await sidecar.workflows.schedule_new_workflow(CHAT_WORKFLOW, input=turn, instance_id=turn["turn_id"])
        return response

    return Tampered(sidecar, tamper)


async def forget_what_is_summarised(request: Request, send: Send) -> Response:
    def change(save: dict[str, Any]) -> None:
        if save["key"].startswith("user:"):
            save["value"]["applied"] = {}

    return await send(with_saves_changed(request, change))


async def acknowledge_before_storing(request: Request, send: Send) -> Response:
    beside(_later(request, send))
    return Response(200, {}, b'{"status": "SUCCESS"}')


def tell_events_apart() -> Tamper:
    """Every delivery is taken for an event of its own."""
    seen: list[bytes] = []

    async def tamper(request: Request, send: Send) -> Response:
        seen.append(request.body)
        event = json.loads(request.body)
        event["data"]["turn_id"] += f".{len(seen)}"
        return await send(Request(request.method, request.target, request.headers, json.dumps(event).encode()))

    return tamper


async def order_by_arrival(request: Request, send: Send) -> Response:
    event = json.loads(request.body)
    del event["data"]["sequence"]
    return await send(Request(request.method, request.target, request.headers, json.dumps(event).encode()))


BUGS: dict[str, Parts] = {
    "acknowledges a write before it is committed": Parts(disk=AcknowledgesEarly),
    "skips a commit": Parts(disk=SkipsCommits),
    "keeps the first job of a commit only": Parts(disk=CommitsTheFirst),
    "undoes a commit for one of its jobs that fails": Parts(disk=UndoesAllForOne),
    "keeps timers in memory only": forgetting("workflow_timers"),
    "keeps the outbox of activities in memory only": forgetting("workflow_activities"),
    "keeps the outbox of messages in memory only": forgetting("deliveries"),
    "acknowledges an event before it is stored": of_events(acknowledge_before_storing),
    "takes a redelivered event for a new one": of_events(tell_events_apart()),
    "orders a history by arrival": of_events(order_by_arrival),
    "ignores ETags": in_chat(ignore_etags),
    "ignores ETags of memories": in_memory(ignore_etags),
    "ignores claims": in_chat(ignore_claims),
    "keeps claims in memory only": Parts(chat_sidecar=claims_in_memory),
    "answers out of order": in_chat(swap_queue),
    "starts the next turn before its time": Parts(chat_sidecar=start_next_early),
    "stores a reply after the step has ended": in_chat(store_reply_later),
    "reads a context that lacks the last turns": in_chat(forget_recent),
    "summarises a turn twice": in_memory(forget_what_is_summarised),
}
