"""An assistant of one's own, with tools that are counted; the tests name it in `EVERTURN_ASSISTANT`."""

import asyncio
import os
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any

from agents import Agent
from agents.tool_context import ToolContext

from everturn.chat.assistant.tools import call_app, tool

# The environment's name of a file in which each call of a tool is a line, for tests that kill the process.
EFFECTS = "PAID_EFFECTS"
made: Counter[str] = Counter()
keys: list[str] = []
_ticks = count()


def _done(what: str, ctx: ToolContext[Any] | None = None) -> None:
    made[what] += 1
    if ctx is None:
        return
    key: str = ctx.idempotency_key  # type: ignore[attr-defined]
    keys.append(key)
    if path := os.environ.get(EFFECTS):
        with Path(path).open("a") as effects:
            effects.write(f"{key}\t{what}\n")


@tool()
async def send_mail(ctx: ToolContext[Any], to: str) -> str:
    """Send a mail."""
    _done(f"mail {to}", ctx)
    return f"sent to {to}"


@tool(idempotency="once")
async def pay(amount: int) -> str:
    """Pay an amount."""
    _done(f"pay {amount}")
    return f"paid {amount}"


@tool(retries=1)
async def look_up(ctx: ToolContext[Any], word: str) -> str:
    """Look a word up; the first attempt fails."""
    _done(f"look {word}", ctx)
    if made[f"look {word}"] == 1:
        raise OSError("down")
    return f"found {word}"


@tool()
async def call_me(ctx: ToolContext[Any], name: str) -> str:
    """Remember how to address the user: a method of another Dapr app."""
    memory = {"name": name, "preferred_style": "casual", "user_summary": ""}
    return await call_app(ctx, "agent-memory-service", "memories/ann/initialize", memory)


@tool()
async def call_nobody(ctx: ToolContext[Any]) -> str:
    """Call an app that there is not."""
    return await call_app(ctx, "nobody", "x")


@tool(needs_approval=True)
async def book(ctx: ToolContext[Any], flight: str) -> str:
    """Book a flight; a person decides first."""
    _done(f"book {flight}", ctx)
    return f"booked {flight}"


@tool(timeout_s=0.01)
async def wait_for_ever() -> str:
    """Give no answer."""
    made["wait"] += 1
    await asyncio.Event().wait()
    return ""


def _with_a_clock(_context: Any, _agent: Any) -> str:
    return f"It is {next(_ticks)} o'clock."


clerk = Agent[Any](name="clerk", instructions="Send mails.", tools=[send_mail])
booker = Agent[Any](name="booker", instructions=_with_a_clock, tools=[send_mail, book])
agent = Agent[Any](
    name="front",
    instructions=_with_a_clock,
    tools=[
        send_mail,
        pay,
        look_up,
        call_me,
        call_nobody,
        book,
        wait_for_ever,
        clerk.as_tool("ask_clerk", "Let the clerk send mails."),
    ],
    handoffs=[booker],
)
