"""The agent memory service, in the shape of the DACA tutorial: a subscription that writes to the state store."""

import json
import os
from typing import Any

import uvicorn
from dapr.clients import DaprClient
from fastapi import FastAPI, Request

app = FastAPI(title="DACA Agent Memory Service")


@app.get("/")
def welcome() -> dict[str, str]:
    return {"message": "Welcome to the DACA Agent Memory Service!"}


@app.get("/dapr/subscribe")
def subscriptions() -> list[dict[str, str]]:
    return [{"pubsubname": "pubsub", "topic": "conversations", "route": "/conversations"}]


@app.get("/conversations/{session_id}")
def conversation(session_id: str) -> dict[str, Any]:
    with DaprClient() as client:
        stored = client.get_state("statestore", f"session:{session_id}").data
    return {"history": json.loads(stored) if stored else []}


@app.post("/conversations")
async def remember(request: Request) -> dict[str, str]:
    turn = (await request.json())["data"]
    key = f"session:{turn['session_id']}"
    with DaprClient() as client:
        stored = client.get_state("statestore", key).data
        history = json.loads(stored) if stored else []
        history += [{"role": "user", "content": turn["text"]}, {"role": "assistant", "content": turn["reply"]}]
        client.save_state("statestore", key, json.dumps(history))
    print(f"Stored {len(history)} messages of session {turn['session_id']}", flush=True)
    return {"status": "SUCCESS"}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["APP_PORT"]), log_level="warning")
