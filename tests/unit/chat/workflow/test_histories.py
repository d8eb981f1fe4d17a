"""Histories that a release wrote are replayed by the code of today: each must decide what it decided then."""

import base64
import json
from pathlib import Path

import pytest
from dapr.ext.workflow import WorkflowRuntime

from everturn.chat.workflow.chat_turn import register_chat_turn
from everturn.dapr.sdk import protocol as pb
from everturn.dapr.sdk.execution import Registered

FILES = sorted((Path(__file__).parent / "histories").glob("*.json"))
HISTORIES = {
    f"{file.stem}: {name}": [base64.b64decode(event) for event in events]
    for file in FILES
    for name, events in json.loads(file.read_text("utf-8")).items()
}


def events_of(name: str) -> list[pb.HistoryEvent]:
    return [pb.HistoryEvent.FromString(event) for event in HISTORIES[name]]


@pytest.mark.parametrize("name", HISTORIES)
def test_a_history_is_replayed_as_it_was(name: str) -> None:
    events = events_of(name)
    ended = [event.executionCompleted for event in events if event.HasField("executionCompleted")]
    replayed = [event for event in events if not event.HasField("executionCompleted")]
    worker = WorkflowRuntime()
    register_chat_turn(worker)

    actions = Registered(worker).execution("turn").take(replayed[:-1], replayed[-1:]).actions

    results = [action.completeWorkflow for action in actions if action.HasField("completeWorkflow")]
    assert [(result.workflowStatus, result.result.value) for result in results] == [
        (end.workflowStatus, end.result.value) for end in ended
    ], [result.failureDetails.errorMessage for result in results]


def test_there_are_histories_of_both_versions() -> None:
    assert [file.stem for file in FILES] == ["v1", "v2"]
    assert len(HISTORIES) >= 10
