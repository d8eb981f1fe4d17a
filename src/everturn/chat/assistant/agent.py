"""The assistant: an agent of the OpenAI Agents SDK that knows the user's memory and the window of history."""

import asyncio
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import copy
from datetime import datetime
from importlib import import_module
from pathlib import Path
from sysconfig import get_path
from types import MappingProxyType
from typing import TYPE_CHECKING

from pydantic_core import to_json

from everturn.chat.assistant.prompt import Known, instructions
from everturn.chat.assistant.tools import built_in_tools
from everturn.chat.calls import CallLog, Decision
from everturn.chat.facts import PastEntry
from everturn.contracts.fields import utc_now
from everturn.contracts.memory import UserMemory
from everturn.dapr.client import SidecarClient
from everturn.errors import SettingError, TransientError
from everturn.models.faults import classify
from everturn.models.providers import prepare_sdk
from everturn.models.texts import checked_reply
from everturn.settings import Settings

if TYPE_CHECKING:
    from agents import Agent, Model, RunContextWrapper, TResponseInputItem
    from openai.types.responses import ResponseOutputTextParam

    from everturn.chat.assistant.mcp_servers import ToolServers
    from everturn.chat.assistant.paid_calls import PaidRun


class ModelCallFailed(TransientError):
    """A model call failed after others of its attempt may have succeeded: `spent_s` seconds since the last one."""

    def __init__(self, error: TransientError, *, spent_s: float, got_on: bool) -> None:
        super().__init__(error.message, kind=error.kind, retry_after_s=error.retry_after_s)
        self.spent_s = spent_s
        self.got_on = got_on


class RunStopped(Exception):
    """A person has to decide about calls first: `CallLog.pause` says which."""


class Assistant:
    """Answers messages with `model`. One object serves every turn of a process; it keeps nothing between them."""

    def __init__(
        self,
        model: "Model",
        *,
        timeout_s: float = 60.0,
        max_model_calls: int = 11,
        now: Callable[[], datetime] = utc_now,
        agent: "Agent[Known] | None" = None,
        dapr: SidecarClient | None = None,
    ) -> None:
        """`timeout_s`: limit of one model call, in seconds. `max_model_calls`: of one turn, over which it fails.

        `agent`: one's own; without a model it gets `model`. `dapr`: for tools that are methods of other apps.
        """
        prepare_sdk()
        from agents import Agent, RunConfig  # noqa: PLC0415 - imported late, see prepare_sdk

        from everturn.chat.assistant.paid_calls import PaidRun, prepare  # noqa: PLC0415 - it imports the SDK

        self._run: Callable[[CallLog], PaidRun] = lambda log: PaidRun(model, timeout_s, max_model_calls, log)
        self._agent = agent or Agent[Known](name="assistant", instructions=_instructions, tools=built_in_tools(now))
        self._dapr = dapr
        self._servers: ToolServers | None = None
        if servers := prepare(self._agent):
            from everturn.chat.assistant import mcp_servers  # noqa: PLC0415 - it imports all of mcp

            self._servers = mcp_servers.ToolServers(servers)
        self._run_config = RunConfig(
            tracing_disabled=True,
            trace_include_sensitive_data=False,
            tool_not_found_behavior="return_error_to_model",
        )

    async def reply(
        self,
        memory: UserMemory,
        window: Sequence[PastEntry],
        text: str,
        unavailable: Sequence[str] = (),
        log: CallLog | None = None,
        decisions: Mapping[str, Decision] = MappingProxyType({}),
    ) -> str:
        """The reply to `text`, with `window` (oldest first) as the conversation before it; at most 1 MiB.

        `unavailable`: what of memory and history could not be reached; the prompt says so. `log`: the calls of earlier
        attempts, which are not made again; `decisions`: those about the calls for which it stopped. Raises RunStopped
        if a person has to decide first, TransientError if trying again may help (ModelCallFailed says for how long the
        model has been failing) and TerminalError if it will not, both with a sentence that is safe to show.
        """
        items: list[TResponseInputItem] = [_item(entry.role, entry.content) for entry in window]
        items.append(_item("user", text))
        log = log or CallLog()
        known, run = Known(memory, tuple(unavailable), self._dapr), self._run(log)
        if not log.is_offline:
            await self.connect()
        try:
            with run.running():
                answer = await self._answer(run, items, known, decisions)
                if answer is not None:
                    return checked_reply(answer)
        except Exception as error:  # noqa: BLE001 - every failure is classified here, and raised
            fault = classify(error)
            if isinstance(fault, TransientError):
                raise ModelCallFailed(fault, spent_s=run.failing_for_s, got_on=run.has_answered) from None
            raise fault from None
        raise RunStopped

    async def connect(self) -> None:
        """Connect the agent's MCP servers. Raises TransientError (kind `tools_unreachable`) if that does not work."""
        if self._servers:
            await self._servers.connect()

    async def close(self) -> None:
        if self._servers:
            await self._servers.close()

    async def _answer(
        self, run: "PaidRun", items: "list[TResponseInputItem]", known: Known, decisions: Mapping[str, Decision]
    ) -> str | None:
        from agents import Runner  # noqa: PLC0415 - imported late, see prepare_sdk

        # An agent object a run: the SDK compares the tools of all runs of one with one another, at every step.
        agent = copy(self._agent)
        state = await run.state(agent, known, decisions)
        result = await Runner.run(
            agent,
            state or items,
            context=None if state else known,
            max_turns=None,
            run_config=self._run_config,
        )
        if result.interruptions:
            await run.stop(result)
            return None
        output = result.final_output
        return output if isinstance(output, str) else to_json(output, fallback=str).decode()


def agent_at(place: str) -> "Agent[Known]":
    """The agent at `module:name`, also of a module in the working folder. Raises SettingError if there is none."""
    prepare_sdk()
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    from agents import Agent  # noqa: PLC0415 - imported late, see prepare_sdk

    module, _, name = place.partition(":")
    if not (module and name):
        raise SettingError(f"EVERTURN_ASSISTANT: {place!r} names no agent: write it as module:agent")
    try:
        agent = getattr(import_module(module), name, None)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            raise SettingError(f"EVERTURN_ASSISTANT: there is no module {module!r} in this folder") from error
        what = f"{type(error).__name__} at {_own_line(error)}"
        raise SettingError(f"EVERTURN_ASSISTANT: {module!r} cannot be imported: {what}") from error
    if agent is None:
        raise SettingError(f"EVERTURN_ASSISTANT: the module {module!r} has no {name!r}")
    if not isinstance(agent, Agent):
        raise SettingError(f"EVERTURN_ASSISTANT: {place!r} is a {type(agent).__name__}, not an Agent of the Agents SDK")
    return agent


def _own_line(error: Exception) -> str:
    """Where `error` was raised, or the last line on the way there that is not of a library."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}"
    frames, libraries = traceback.extract_tb(error.__traceback__), (get_path("stdlib"), get_path("purelib"))
    own = next((frame for frame in reversed(frames) if not frame.filename.startswith(libraries)), frames[-1])
    return f"{own.filename}:{own.lineno}"


def build_assistant(settings: Settings, model: "Model", dapr: SidecarClient | None = None) -> Assistant:
    """The assistant of the settings, with `model`. `dapr`: for the tools. Raises SettingError."""
    return Assistant(
        model,
        timeout_s=settings.generate_timeout_s,
        max_model_calls=settings.max_model_calls_per_turn,
        agent=agent_at(settings.assistant) if settings.assistant else None,
        dapr=dapr,
    )


def _instructions(context: "RunContextWrapper[Known]", _agent: "Agent[Known]") -> str:
    return instructions(context.context)


def _item(role: str, content: str) -> "TResponseInputItem":
    if role == "assistant":
        # Whole: the SDK's RunState keeps a short one in a shape that its own converter does not read back.
        said: ResponseOutputTextParam = {"type": "output_text", "text": content, "annotations": []}
        return {"type": "message", "role": "assistant", "id": "history", "status": "completed", "content": [said]}
    if role == "system":
        return {"role": "system", "content": content}
    return {"role": "user", "content": content}


class WarmedAssistant:
    """An assistant that is built in a thread at the start: the SDK behind it takes seconds to import."""

    def __init__(
        self, settings: Settings, build: "Callable[[], Model]", model_name: str, dapr: SidecarClient | None = None
    ) -> None:
        """`dapr`: for the tools."""
        self._settings = settings
        self._build = build
        self._dapr = dapr
        self.model_name = model_name
        self._model: Model | None = None
        self._built: Assistant | None = None

    async def warm_up(self) -> None:
        """Build it. An MCP server may be away: it is connected when a turn needs it."""
        self._model, built = await asyncio.to_thread(self._build_both)
        with suppress(TransientError):  # which is logged
            await built.connect()
        self._built = built

    async def close(self) -> None:
        """End the connections of the model and of tools."""
        if self._built is not None:
            await self._built.close()
        if self._model is not None:
            await self._model.close()

    def _build_both(self) -> "tuple[Model, Assistant]":
        model = self._build()
        return model, build_assistant(self._settings, model, self._dapr)

    async def reply(
        self,
        memory: UserMemory,
        window: Sequence[PastEntry],
        text: str,
        unavailable: Sequence[str],
        log: CallLog,
        decisions: Mapping[str, Decision],
    ) -> str:
        """As `Assistant.reply`. Raises TransientError before `warm_up` is done."""
        if self._built is None:
            raise TransientError("the assistant is still starting", kind="starting")
        return await self._built.reply(memory, window, text, unavailable, log, decisions)
