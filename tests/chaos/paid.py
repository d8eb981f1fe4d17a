"""The client's assistant with tools: parallel calls, a handoff, and one about which a person decides.

Its tools and its model are the client's, so they outlive the machine, and hear of nothing from one that is dead.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agents import Agent
from agents.items import TResponseOutputItem
from agents.tool_context import ToolContext
from openai.types.responses import ResponseFunctionToolCall

from everturn.chat.assistant.tools import tool
from tests.chaos.journal import Journal, PaidCall
from tests.chaos.simulated_loop import pass_time

AGENT = f"{__name__}:agent"
# In a message: its turn calls the tools.
PAID = "paid"
# Its turn may let later ones pass while it waits for a person.
PASSED = "passed"
_CALL_S = 0.01


@dataclass
class _Machine:
    """The machine that calls the tools now."""

    journal: Journal
    life: int
    is_dead: Callable[[], bool]


_machine: list[_Machine] = []


def connect(journal: Journal, life: int, is_dead: Callable[[], bool]) -> None:
    """Let the tools be called by this life of the machine from now on."""
    _machine[:] = [_Machine(journal, life, is_dead)]


async def paid(key: str, what: str) -> str:
    """Note a call; its answer, which is no other's."""
    machine = _machine[0]
    call = PaidCall(machine.life, machine.journal.tick(), key, what)
    if not machine.is_dead():
        machine.journal.paid.append(call)
    await pass_time(_CALL_S)
    return call.answer


def _key(ctx: ToolContext[Any]) -> str:
    return str(ctx.idempotency_key)  # type: ignore[attr-defined]


@tool()
async def send_mail(ctx: ToolContext[Any], name: str, to: str) -> str:
    """Send a mail."""
    return await paid(_key(ctx), f"{name} mail {to}")


@tool(needs_approval=True)
async def book(ctx: ToolContext[Any], name: str) -> str:
    """Book a flight; a person decides first."""
    return await paid(_key(ctx), f"{name} book")


booker = Agent[Any](name="booker", instructions="Book flights.", tools=[book])
agent = Agent[Any](name="front", instructions="Send mails.", tools=[send_mail], handoffs=[booker])


async def asks(name: str, items: Sequence[Any]) -> list[TResponseOutputItem]:
    """What the model asks for next, in the turn of that message; nothing when it is time to reply."""
    made = sum(item.get("type") == "function_call_output" for item in items)
    match made:
        case 0:
            tools = [("send_mail", f'{{"name": "{name}", "to": "{to}"}}') for to in ("ann", "bob")]
        case 2:
            tools = [("transfer_to_booker", "{}")]
        case 3:
            tools = [("book", f'{{"name": "{name}"}}')]
        case _:
            return []
    answer = await paid(f"{name} model", f"{name} model {made}")
    return [
        ResponseFunctionToolCall(type="function_call", call_id=f"{answer} {place}", name=tool_name, arguments=arguments)
        for place, (tool_name, arguments) in enumerate(tools)
    ]
