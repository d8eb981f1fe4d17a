"""What waits in this process for the end of a run: requests and streams, to answer; a step, to stop if its run was
cancelled, or interrupted by a later message, perhaps on another replica.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from everturn.chat.facts import Cancelled, TurnFacts, TurnRun, Verdict
from everturn.chat.journal import Journal
from everturn.chat.queue import SessionQueue
from everturn.dapr.workflows import Workflows
from everturn.errors import EverturnError, TransientError

log = logging.getLogger(__name__)

# Most turns end in this process, so at first only that is awaited; then the end of the workflow as well.
_ALONE_S = 0.2
# While a client waits for a turn, it is checked this often: the turn before it may have been abandoned.
_LOOK_EVERY_S = 1
# Seconds between two checks of what other replicas have cancelled.
CANCELLATIONS_EVERY_S = 2.0
# If very many runs are running a check takes long: the pause before the next is this many times as long.
_PAUSE_TIMES = 20
_RUNS_A_REQUEST = 100


class EndSignals:
    """Tells of the ends of runs inside this process."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}

    def of(self, run: TurnRun) -> "asyncio.Future[None]":
        """A future that is done when the run has its outcome, or waits for a person. Cancel it to wait no longer."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(run.instance_id, set())
        waiting.add(future)
        future.add_done_callback(lambda done: self._forget(run.instance_id, done))
        return future

    def send(self, instance_id: str) -> None:
        for future in list(self._waiting.get(instance_id, ())):
            if not future.done():
                future.set_result(None)

    def _forget(self, instance_id: str, future: "asyncio.Future[None]") -> None:
        waiting = self._waiting.get(instance_id, set())
        waiting.discard(future)
        if not waiting:
            self._waiting.pop(instance_id, None)


@dataclass(eq=False, slots=True)
class TurnWaiter:
    """Waits for the ends of turns. `look_after` makes sure that a run goes on, and says whether a person has to decide
    before it does.
    """

    _journal: Journal
    _workflows: Workflows
    _signals: EndSignals
    _look_after: Callable[[TurnRun], Awaitable[bool]]
    _limits: set[asyncio.Timeout] = field(default_factory=set, init=False)
    released: bool = field(default=False, init=False)

    def release(self) -> None:
        """End all waits: the process stops, and what is not done yet is done after the next start."""
        self.released = True
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(asyncio.get_running_loop().time())

    async def wait(self, run: TurnRun, seconds: float) -> TurnFacts:
        """The facts of `run` once it has ended; without an outcome after `seconds`, if a person has to decide first, or
        when all waits are released.

        Outlasts a sidecar that is away.
        """
        ended, limit = self._signals.of(run), asyncio.timeout(0 if self.released else seconds)
        try:
            async with limit:
                self._limits.add(limit)
                if self._journal.ended_here(run) is None:
                    await asyncio.wait([ended], timeout=_ALONE_S)
                while not ended.done() and self._journal.ended_here(run) is None:
                    await self._look(run, ended)
                return TurnFacts(run, await self._journal.verdict(run), await self._journal.outcome(run))
        except TimeoutError:
            return TurnFacts(run, None, self._journal.ended_here(run))
        finally:
            ended.cancel()
            self._limits.discard(limit)

    async def _look(self, run: TurnRun, ended: "asyncio.Future[None]") -> None:
        """Return after a moment, or at the end of the turn, and make sure that it goes on."""
        watching = asyncio.ensure_future(self._workflows.wait(run.instance_id, _LOOK_EVERY_S))
        try:
            both: list[asyncio.Future[Any]] = [ended, watching]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if ended.done() or (watching.result() and await self._journal.outcome(run) is not None):
                return
            if await self._look_after(run) and not ended.done():
                ended.set_result(None)  # a turn that has stopped for a person will not end soon
        except TransientError as error:
            log.warning("turn_out_of_sight", extra={"turn_id": run.turn_id, "reason": error.message})
            await asyncio.wait([ended], timeout=_LOOK_EVERY_S)
        finally:
            watching.cancel()


@dataclass(eq=False, slots=True)
class _AtWork:
    run: TurnRun
    cancel: Callable[[], None]


class Cancellations:
    """Notifies the turns that run in this process.

    A cancellation in this process is noticed at once; for those of other replicas all runs are checked together.
    """

    def __init__(
        self, journal: Journal, queue: SessionQueue, signals: EndSignals, look_every_s: float = CANCELLATIONS_EVERY_S
    ) -> None:
        self._journal = journal
        self._queue = queue
        self._signals = signals
        self._look_every_s = look_every_s
        self._at_work: set[_AtWork] = set()
        # Those that have just ended in this process.
        self._ended: list[_AtWork] = []
        self._is_busy, self._has_ended = asyncio.Event(), asyncio.Event()

    @contextmanager
    def watching(self, run: TurnRun, cancel: Callable[[], None]) -> Iterator[None]:
        """Call `cancel`, perhaps more than once, if `run` is cancelled, or is to be, while the block runs."""
        at_work = _AtWork(run, cancel)

        def note(ended: "asyncio.Future[None]") -> None:
            if not ended.cancelled():
                self._ended.append(at_work)
                self._has_ended.set()

        self._at_work.add(at_work)
        self._is_busy.set()
        ended = self._signals.of(run)
        ended.add_done_callback(note)
        try:
            yield
        finally:
            ended.cancel()
            self._at_work.discard(at_work)

    @asynccontextmanager
    async def looking(self) -> AsyncIterator[None]:
        """Check for cancellations of other replicas while the block runs."""
        task = asyncio.create_task(self._look_forever(), name="cancellations")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _look_forever(self) -> None:
        loop, pause_s = asyncio.get_running_loop(), self._look_every_s
        due = loop.time() + pause_s
        while True:
            if not self._at_work:
                self._is_busy.clear()
                await self._is_busy.wait()
                due = loop.time() + pause_s
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._has_ended.wait()
            self._has_ended.clear()
            begun, ended, self._ended = loop.time(), self._ended, []
            # All of them when it is time, however many end here: the others may have been cancelled elsewhere.
            is_due = begun >= due
            wanted = list(self._at_work) if is_due else ended
            try:
                for first in range(0, len(wanted), _RUNS_A_REQUEST):
                    await self._look(wanted[first : first + _RUNS_A_REQUEST])
            except EverturnError as error:
                log.warning("cancellations_not_seen", extra={"runs": len(wanted), "reason": error.message})
            if is_due:
                pause_s = max(self._look_every_s, _PAUSE_TIMES * (loop.time() - begun))
                due = loop.time() + pause_s

    async def _look(self, wanted: Sequence[_AtWork]) -> None:
        verdicts = await self._journal.read_all({at_work.run.key("verdict"): Verdict for at_work in wanted})
        undecided = {
            at_work.run.accepted.session_id for at_work in wanted if at_work.run.key("verdict") not in verdicts
        }
        sessions = await self._queue.read_many(list(undecided))
        for at_work in wanted:
            verdict = verdicts.get(at_work.run.key("verdict"))
            session = sessions.get(at_work.run.accepted.session_id) if verdict is None else None
            if isinstance(verdict, Cancelled) or (session is not None and session.is_interrupted(at_work.run)):
                at_work.cancel()
