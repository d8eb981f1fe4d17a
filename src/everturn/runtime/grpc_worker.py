"""An app's workers in other processes, as the one `Worker` that the engine knows: work goes out on their streams.

What is out on a stream that breaks goes to another one, or to the next that comes. Answers count on whatever
connection they come. The rules are those of daprd 1.18 (dapr-wire).
"""

from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Any

from everturn.runtime.clock import Alarm, Clock
from everturn.runtime.sdk import ActivityRequest, ActivityResponse, Replay, WorkflowResponse, new_failure_details
from everturn.runtime.work_item import TooLargeError, Unanswered, Work
from everturn.runtime.work_messages import outcome_of, replay_of
from everturn.runtime.work_stream import WorkStream
from everturn.runtime.worker import ActivityOutcome, WorkflowRequest

# Proxies close a silent stream after a minute or more (Envoy's stream idle timeout is 5 minutes).
PING_EVERY_S = 30.0


class RemoteWorker:
    """Never raises that a worker was lost: without a stream, work waits for one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._streams: list[WorkStream] = []
        self._waiting: OrderedDict[str, Work[Any]] = OrderedDict()
        self._turns: Unanswered[WorkflowResponse] = Unanswered()
        self._activities: Unanswered[ActivityResponse] = Unanswered()
        self._ping_alarm: Alarm | None = None

    @property
    def connected(self) -> int:
        """Streams that are open."""
        return len(self._streams)

    async def run_workflow(self, request: WorkflowRequest) -> Replay:
        try:
            response = await self._hand_out(Work((request.instance_id, None), request), self._turns)
        except TooLargeError as error:
            return Replay((), too_large=f"Payload size exceeded: {error}")
        return replay_of(response)

    async def run_activity(self, request: ActivityRequest) -> ActivityOutcome:
        key = (request.workflowInstance.instanceId, request.taskId)
        try:
            response = await self._hand_out(Work(key, request), self._activities)
        except TooLargeError as error:
            return ActivityOutcome(failure=new_failure_details(error))
        return outcome_of(response)

    def complete_workflow(self, response: WorkflowResponse) -> None:
        """A worker's answer to a turn. One to nothing that is out is passed over."""
        self._turns.settle((response.instanceId, None), response)

    def complete_activity(self, response: ActivityResponse) -> None:
        """A worker's answer to an activity. One to nothing that is out is passed over."""
        self._activities.settle((response.instanceId, response.taskId), response)

    def connect(self, capabilities: Collection[int]) -> WorkStream:
        """A new stream, which gets work at once; it must be given to `disconnect` when it ends."""
        stream = WorkStream(capabilities)
        self._streams.append(stream)
        self._assign()
        if self._ping_alarm is None:
            self._set_ping()
        return stream

    def disconnect(self, stream: WorkStream) -> None:
        """What is out on the stream goes to the others, before what came later."""
        self._streams.remove(stream)
        for token, work in reversed(stream.out.items()):
            self._waiting[token] = work
            self._waiting.move_to_end(token, last=False)
        stream.out = {}
        self._assign()
        if not self._streams and self._ping_alarm is not None:
            self._ping_alarm.cancel()
            self._ping_alarm = None

    def close(self) -> None:
        """End every stream."""
        for stream in self._streams:
            stream.close()

    async def _hand_out(self, work: Work[Any], unanswered: Unanswered[Any]) -> Any:
        unanswered.add(work)
        self._waiting[work.token] = work
        self._assign()
        try:
            return await work.answer
        finally:
            unanswered.drop(work)
            self._forget(work)

    def _forget(self, work: Work[Any]) -> None:
        self._waiting.pop(work.token, None)
        for stream in self._streams:
            stream.answered(work)
        self._assign()

    def _assign(self) -> None:
        while self._waiting:
            free = [stream for stream in self._streams if stream.has_room]
            if not free:
                return
            _, work = self._waiting.popitem(last=False)
            stream = min(free, key=_preference(work))
            # The next one, of several that have as little to do.
            self._streams.remove(stream)
            self._streams.append(stream)
            stream.send(work)

    def _set_ping(self) -> None:
        self._ping_alarm = self._clock.call_at(self._clock.now() + PING_EVERY_S, self._ping)

    def _ping(self) -> None:
        for stream in self._streams:
            if stream.wants_pings:
                stream.ping()
        self._set_ping()


def _preference(work: Work[Any]) -> Callable[[WorkStream], tuple[int, bool]]:
    return lambda stream: (len(stream.out), not stream.is_warm_for(work))
