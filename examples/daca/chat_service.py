"""The chat service, in the shape of the DACA tutorial "Dapr Workflows": a message is a workflow."""

import json
import os
from typing import Any

import dapr.ext.workflow as wf
import uvicorn
from dapr.clients import DaprClient
from fastapi import FastAPI
from pydantic import BaseModel

engine = wf.WorkflowRuntime()
app = FastAPI(title="DACA Chat Service")


class Message(BaseModel):
    user_id: str
    session_id: str
    text: str


@engine.workflow(name="chat_workflow")
def chat_workflow(ctx: wf.DaprWorkflowContext, message: dict[str, str]) -> Any:
    try:
        context = yield ctx.call_activity(fetch_context, input=message)
        reply = yield ctx.call_activity(generate_response, input={**message, **context})
        yield ctx.call_activity(save_conversation, input={**message, "reply": reply})
    except wf.TaskFailedError as error:
        yield ctx.call_activity(handle_error, input=str(error))
        raise
    return {"user_id": message["user_id"], "reply": reply}


@engine.activity(name="fetch_context")
def fetch_context(_ctx: wf.WorkflowActivityContext, message: dict[str, str]) -> dict[str, Any]:
    path = f"conversations/{message['session_id']}"
    with DaprClient() as client:
        answer = client.invoke_method("agent-memory-service", path, data="", http_verb="GET")
    return {"history": answer.json()["history"]}


@engine.activity(name="generate_response")
def generate_response(_ctx: wf.WorkflowActivityContext, turn: dict[str, Any]) -> str:
    """In place of Gemini."""
    return f"You said {turn['text']!r}; I know {len(turn['history'])} messages of ours."


@engine.activity(name="save_conversation")
def save_conversation(_ctx: wf.WorkflowActivityContext, turn: dict[str, str]) -> None:
    with DaprClient() as client:
        client.publish_event("pubsub", "conversations", json.dumps(turn), data_content_type="application/json")


@engine.activity(name="handle_error")
def handle_error(_ctx: wf.WorkflowActivityContext, error: str) -> None:
    print(f"Error in workflow: {error}", flush=True)


@app.get("/")
def welcome() -> dict[str, str]:
    return {"message": "Welcome to the DACA Chat Service!"}


@app.post("/chat/")
async def chat(message: Message) -> Any:
    engine.start()
    client = wf.DaprWorkflowClient()
    instance = client.schedule_new_workflow(chat_workflow, input=message.model_dump())
    print(f"Workflow started. Instance ID: {instance}", flush=True)
    state = client.wait_for_workflow_completion(instance, timeout_in_seconds=60)
    print(f"Workflow completed! Status: {state.runtime_status.name}", flush=True)
    engine.shutdown()
    return json.loads(state.serialized_output)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["APP_PORT"]), log_level="warning")
