"""Bugs, planted to see the checker find them. Each stands for a mistake that somebody could make; none is in `src`.

They sit where the system meets its surroundings: the disk, a service's sidecar, the way of events.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, unquote

import apsw
from dapr.ext.workflow import WorkflowRuntime

from everturn.dapr.client import DaprClient
from everturn.dapr.wire import Request, Response, Transport
from everturn.dapr.workflows import Sidecar
from everturn.runtime.database.database import Job
from tests.chaos.disk import SimulatedDatabase, SimulatedDisk, rows
from tests.chaos.life import Parts
from tests.chaos.simulated_loop import pass_time
from tests.chaos.world import PLAIN, Setting

_STATE = "/v1.0/state/statestore"
_DONE = Response(204)
T = TypeVar("T")
# The share of jobs that get lost: were it all of them, some would be done again for ever.
_LOST_JOBS = 0.2
Send = Callable[[Request], Awaitable[Response]]
Tamper = Callable[[Request, Send], Awaitable[Response]]


class AcknowledgesEarly(SimulatedDatabase):
    """Tells of a job when it has run, before it is committed."""

    async def write(
        self,
        job: Job[T],
        committed: Callable[[T], None] | None = None,
        *,
        durable: bool = True,  # noqa: ARG002 - none is
    ) -> T:
        loop = asyncio.get_running_loop()
        told: asyncio.Future[T] = loop.create_future()

        def run(cursor: apsw.Cursor) -> T:
            try:
                result = job(cursor)
            except Exception as error:
                loop.call_soon(_fail, told, error)
                raise
            loop.call_soon(_tell, told, result, committed)
            return result

        beside(super().write(run))
        return await told


def _tell(told: "asyncio.Future[T]", result: T, committed: Callable[[T], None] | None) -> None:
    if committed is not None:
        committed(result)
    if not told.done():
        told.set_result(result)


def _fail(told: "asyncio.Future[Any]", error: Exception) -> None:
    if not told.done():
        told.set_exception(error)


class SkipsCommits(SimulatedDisk):
    """Every twentieth commit is none, and counts as one."""

    def make_commit(self, connection: apsw.Connection) -> None:
        connection.execute("COMMIT" if self.power.writes % 20 else "ROLLBACK")


class KeepsTheFirst(SimulatedDatabase):
    """Of the jobs of one commit the first alone is kept for sure."""

    async def write(self, job: Job[T], committed: Callable[[T], None] | None = None, *, durable: bool = True) -> T:
        def run(cursor: apsw.Cursor) -> T:
            if self.disk.jobs <= 1 or self.disk.power.random.random() > _LOST_JOBS:
                return job(cursor)
            cursor.execute("SAVEPOINT bug")
            result = job(cursor)
            cursor.execute("ROLLBACK TO bug")
            return result

        return await super().write(run, committed, durable=durable)


class UndoesAllForOne(SimulatedDatabase):
    """If a job fails or loses its race, all of its commit is undone, and the others hear that theirs is on disk."""

    async def write(self, job: Job[T], committed: Callable[[T], None] | None = None, *, durable: bool = True) -> T:
        def run(cursor: apsw.Cursor) -> T:
            self.disk.undo = True
            result = job(cursor)
            # A save of one key does not fail when it loses: its result is the list of the keys that lost.
            self.disk.undo = isinstance(result, list) and bool(result)
            return result

        return await super().write(run, committed, durable=durable)


class Undoing(SimulatedDisk):
    """For `UndoesAllForOne`: what the last job of a commit did decides over all of it."""

    def make_commit(self, connection: apsw.Connection) -> None:
        connection.execute("ROLLBACK" if self.undo else "COMMIT")
        self.undo = False


class YoungerFirst(SimulatedDatabase):
    """Of what is to be done after a commit some comes late: after that of younger commits (a defect of issue 10)."""

    async def write(self, job: Job[T], committed: Callable[[T], None] | None = None, *, durable: bool = True) -> T:
        def late(result: T) -> None:
            if committed is not None:
                asyncio.get_running_loop().call_later(self.disk.power.random.random() * 0.05, committed, result)

        return await super().write(job, late, durable=durable)


class ForgetsWhatIsRefused(SimulatedDatabase):
    """What has returned before it is on disk is not written again when the disk refuses it."""

    async def write(self, job: Job[T], committed: Callable[[T], None] | None = None, *, durable: bool = True) -> T:
        results: list[T] = []

        def once(cursor: apsw.Cursor) -> T:
            if durable or not results:
                results.append(job(cursor))
            return results[-1]

        return await super().write(once, committed, durable=durable)


class NeverWaits(SimulatedDatabase):
    """A client may get an answer before what it rests on is on disk."""

    async def settled(self) -> None: ...


def forgetting(table: str) -> Parts:
    """What the table holds is only kept in memory: a start finds it empty."""

    def forget(file: Path) -> None:
        rows(file, f"DELETE FROM {table}")

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
    def client(self) -> DaprClient:
        return DaprClient(self.transport)

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
    """The key that a request reads; empty if it is none that reads one."""
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
        if save["key"].endswith(":verdict") and save["value"]["verdict"] == "reply":
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


def start_next_early() -> Tamper:
    """The second turn of a session is started beside the first, and its workflow is told that it is the head."""
    early: dict[str, str] = {}

    async def tamper(request: Request, send: Send) -> Response:
        key = key_read(request)
        response = await send(request)
        if not key.startswith("session:") or response.status != 200:
            return response
        session = json.loads(response.body)
        queue = session.get("queue", [])
        if len(queue) > 1 and early.setdefault(key, queue[0]["turn_id"]) == queue[0]["turn_id"]:
            session["queue"] = queue[1:]
            return Response(response.status, response.headers, json.dumps(session).encode())
        return response

    return tamper


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


def saves_of(request: Request) -> list[dict[str, Any]]:
    """The saves in a request; none if it is another one."""
    saves: list[dict[str, Any]] = []
    with_saves_changed(request, saves.append)
    return saves


def _is_first(save: dict[str, Any]) -> bool:
    return bool(save.get("options", {}).get("concurrency") == "first-write" and "etag" not in save)


async def write_first_by_transaction(request: Request, send: Send) -> Response:
    """Where Redis drops `first-write`."""
    saves = saves_of(request)
    if request.target != _STATE or not any(save["key"].startswith("session:") and _is_first(save) for save in saves):
        return await send(request)
    body = json.dumps({"operations": [{"operation": "upsert", "request": save} for save in saves]})
    return await send(Request("POST", f"{_STATE}/transaction", request.headers, body.encode()))


async def lose_place_of_rerun(request: Request, send: Send) -> Response:
    """A rerun whose session changes meanwhile is taken for one that has its place."""
    sessions = [save["value"] for save in saves_of(request) if save["key"].startswith("session:")]
    busy = [session["queue"] for session in sessions if len(session.get("queue", [])) > 1]
    return _DONE if any(queue[-1].get("run") for queue in busy) else await send(request)


def blank_by_repeat() -> Tamper:
    """A repeated request is slow, and begins the turn that it finds afresh."""
    seen: set[str] = set()

    async def tamper(request: Request, send: Send) -> Response:
        keys = {save["key"] for save in saves_of(request) if save["key"].endswith(":accepted")}
        is_again = bool(keys & seen)
        seen.update(keys)
        if keys:
            await pass_time(0.05)
        response = await send(request)
        if is_again:
            await pass_time(0.2)
            verdict = keys.pop().replace(":accepted", ":0:verdict")
            await send(Request("DELETE", f"{_STATE}/{quote(verdict, safe='')}", {}, b""))
        return response

    return tamper


async def cancel_after_publish(request: Request, send: Send) -> Response:
    """A cancellation replaces a reply, and a publish is slow to answer."""

    def change(save: dict[str, Any]) -> None:
        if save["key"].endswith(":verdict") and save["value"]["verdict"] == "cancellation":
            save.pop("options", None)

    response = await send(with_saves_changed(request, change))
    if request.target.startswith("/v1.0/publish/"):
        await pass_time(1.5)
    return response


async def lose_record_of_head(request: Request, send: Send) -> Response:
    """What was accepted is gone when its turn is the head."""
    response = await send(request)
    for save in saves_of(request):
        queue = save["value"].get("queue", []) if save["key"].startswith("session:") else []
        if queue and queue[0]["sequence"] % 3 == 0:
            key = f"turn:{quote(queue[0]['turn_id'], safe='')}:accepted"
            await send(Request("DELETE", f"{_STATE}/{quote(key, safe='')}", {}, b""))
    return response


async def forget_runs(request: Request, send: Send) -> Response:
    """A place is one of any run of its turn: who ends the run before, slowly, takes it away."""

    def change(save: dict[str, Any]) -> None:
        for place in save["value"].get("queue", []) if save["key"].startswith("session:") else []:
            place.pop("run", None)

    response = await send(with_saves_changed(request, change))
    if any(save["key"].endswith(":outcome") for save in saves_of(request)):
        await pass_time(0.5)
    return response


async def forget_calls(request: Request, send: Send) -> Response:
    """What a turn has called is in memory only."""
    return _DONE if any(":call:" in save["key"] for save in saves_of(request)) else await send(request)


@dataclass(frozen=True, slots=True)
class Bug:
    """What is replaced, and the setting in which it shows."""

    parts: Parts
    setting: Setting = PLAIN


ON_REDIS = Setting("redis", replicas=2)

# Those that were once in `src`.
DEFECTS: dict[str, Bug] = {
    "writes a session first by a transaction on Redis": Bug(in_chat(write_first_by_transaction), ON_REDIS),
    "loses the place of a rerun": Bug(in_chat(lose_place_of_rerun), Setting("redis", replicas=2, alone=True)),
    "lets a slow repeat blank its turn": Bug(in_chat(blank_by_repeat()), Setting(replicas=2)),
    "cancels a turn that has its reply": Bug(in_chat(cancel_after_publish), Setting("postgresql", 2, alone=True)),
    "keeps a head without its record": Bug(in_chat(lose_record_of_head), ON_REDIS),
    "ends a rerun with the run before": Bug(in_chat(forget_runs), Setting("redis", replicas=2, alone=True)),
}

BUGS: dict[str, Parts] = {
    "acknowledges a write before it is committed": Parts(database=AcknowledgesEarly),
    "skips a commit": Parts(disk=SkipsCommits),
    "keeps the first job of a commit only": Parts(database=KeepsTheFirst),
    "undoes a commit for one of its jobs that fails": Parts(database=UndoesAllForOne, disk=Undoing),
    "tells of a younger commit before an older one": Parts(database=YoungerFirst),
    "forgets what has returned when the disk refuses it": Parts(database=ForgetsWhatIsRefused),
    "answers before all is on disk": Parts(database=NeverWaits),
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
    "starts the next turn before its time": in_chat(start_next_early()),
    "stores a reply after the step has ended": in_chat(store_reply_later),
    "reads a context that lacks the last turns": in_chat(forget_recent),
    "summarises a turn twice": in_memory(forget_what_is_summarised),
}
