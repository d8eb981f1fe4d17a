"""The assistant: an agent of the OpenAI Agents SDK that knows the user's memory and the window of history."""

from collections.abc import Callable, Sequence
from copy import copy
from datetime import datetime
from typing import TYPE_CHECKING

from everturn.chat.agent_prompt import instructions
from everturn.chat.agent_tools import current_time_tool
from everturn.contracts.memory import ConversationEntry, UserMemory
from everturn.contracts.times import utc_now
from everturn.models.faults import sorted_faults
from everturn.models.replies import checked_reply
from everturn.models.sdk import prepare_sdk

if TYPE_CHECKING:
    from agents import Agent, Model, RunContextWrapper, TResponseInputItem

# contracts.md, "Model faults": at most 10 rounds of tools. The SDK counts calls of the model, and the last one answers.
MAX_TOOL_ROUNDS = 10


class Assistant:
    """Answers messages with `model`. One object serves every turn of a process; it keeps nothing between them."""

    def __init__(self, model: "Model", *, now: Callable[[], datetime] = utc_now) -> None:
        prepare_sdk()
        from agents import Agent, RunConfig  # noqa: PLC0415 - imported late, see prepare_sdk

        self._agent = Agent[UserMemory](
            name="assistant", instructions=_instructions, model=model, tools=[current_time_tool(now)]
        )
        self._run_config = RunConfig(
            tracing_disabled=True,
            trace_include_sensitive_data=False,
            tool_not_found_behavior="return_error_to_model",
        )

    async def reply(self, memory: UserMemory, window: Sequence[ConversationEntry], text: str) -> str:
        """The reply to `text`, with `window` (oldest first) as the conversation before it; at most 1 MiB.

        Raises TransientError where trying again may help and TerminalError where it will not, both with a sentence
        that is safe to show. There is no time limit here beside the endpoint's own: the step has one.
        """
        from agents import Runner  # noqa: PLC0415 - imported late, see prepare_sdk

        items: list[TResponseInputItem] = [_item(entry.role, entry.content) for entry in window]
        items.append(_item("user", text))
        with sorted_faults():
            # An agent object a run: the SDK compares the tools of all runs of one with one another, at every step.
            result = await Runner.run(
                copy(self._agent), items, context=memory, max_turns=MAX_TOOL_ROUNDS + 1, run_config=self._run_config
            )
        return checked_reply(str(result.final_output or ""))


def _instructions(context: "RunContextWrapper[UserMemory]", _agent: "Agent[UserMemory]") -> str:
    return instructions(context.context)


def _item(role: str, content: str) -> "TResponseInputItem":
    if role == "assistant":
        return {"role": "assistant", "content": content}
    return {"role": "user", "content": content}
