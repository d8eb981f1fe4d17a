"""An assistant with two tools, about one of which a person decides; the replicas of the tests have it."""

from typing import Any

from agents import Agent

from everturn.chat.assistant.tools import tool


@tool()
async def find(flight: str) -> str:
    """Find a flight."""
    return f"found {flight}"


@tool(needs_approval=True)
async def book(flight: str) -> str:
    """Book a flight."""
    return f"booked {flight}"


agent = Agent[Any](name="assistant", instructions="You are the assistant of an airline.", tools=[find, book])
