"""Stops running turns that were cancelled, or interrupted by a later message, perhaps on another replica."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass

from everturn.chat.ending import Waiters
from everturn.chat.facts import Cancelled, TurnRun, Verdict
from everturn.chat.journal import Journal
from everturn.chat.queue import SessionQueue
from everturn.errors import EverturnError

log = logging.getLogger(__name__)

# Seconds between two checks of what other replicas have cancelled.
LOOK_EVERY_S = 2.0
# If very many runs are running a check takes long: the pause before the next is this many times as long.
_PAUSE_TIMES = 20
_RUNS_A_REQUEST = 100


@dataclass(eq=False, slots=True)
class _AtWork:
    run: TurnRun
    cancel: Callable[[], None]


class Cancellations:
    """Notifies the turns that run in this process.

    A cancellation in this process is noticed at once; for those of other replicas all runs are checked together.
    """

    def __init__(
        self, journal: Journal, queue: SessionQueue, waiters: Waiters, look_every_s: float = LOOK_EVERY_S
    ) -> None:
        self._journal = journal
        self._queue = queue
        self._waiters = waiters
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
        ended = self._waiters.add(run)
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
