"""Model calls and tool calls of a run of an agent, each paid once: a run that is repeated finds their answers.

The SDK's own Runner runs the agent. Its models and tools, and those of every agent that it can reach, are wrapped once
a process; in a run they look into its calls before they make one. A model call is found by a digest of what was asked;
a tool call by its model call and its place in that answer, since the ids of a model can be empty or repeat. So their
order does not matter, and a prompt that was changed asks again: one that a function renders is rendered once a run. The
answer that ends a run is not kept: the turn's verdict has it.

Importing this takes seconds: do it late.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import msgspec
from agents import (
    Agent,
    AgentsException,
    FunctionTool,
    Handoff,
    Model,
    ModelResponse,
    ModelSettings,
    RunResult,
    RunState,
)
from agents.items import TResponseStreamEvent
from agents.tool_context import ToolContext
from openai.types.responses import ResponseFunctionToolCall
from pydantic import TypeAdapter

from everturn import tracing
from everturn.chat.assistant.tools import OUTCOME_UNKNOWN, failed, is_called_once, kept_answer
from everturn.chat.calls import BEGUN, Asked, Call, CallLog, Decision, Question, Taken, read_arguments
from everturn.chat.streamed_words import WordWriter
from everturn.contracts.events import CHAT_APP_ID
from everturn.contracts.fields import new_id, to_wire, utc_now
from everturn.errors import TerminalError, TransientError
from everturn.models.streaming import streamed

if TYPE_CHECKING:
    from agents.mcp import MCPServer  # imports all of mcp

log = logging.getLogger(__name__)

_RESPONSE = TypeAdapter(ModelResponse)
_ANYTHING = TypeAdapter(Any)
# What the SDK gives an agent without a model: settings of OpenAI's newest one, which other endpoints refuse.
_DEFAULT_SETTINGS = Agent(name="default").model_settings
# What an answer that ends a run consists of; anything else asks for something to be done.
_FINAL = frozenset({"message", "reasoning"})
# The arguments of `Model.get_response`, in their order; others have names alone.
_ASKED = ("system_instructions", "input", "model_settings", "tools", "output_schema", "handoffs", "tracing")

_RUN: ContextVar["PaidRun"] = ContextVar("run")
# Inside a tool's call, which may be the run of an agent: the faults of its own calls, which the SDK takes for answers.
_TOOL_FAULTS: ContextVar[list[Exception] | None] = ContextVar("tool_faults", default=None)


class PaidRun:
    """One attempt of a run. `log` has the calls that earlier attempts made, and gets the new ones."""

    def __init__(self, model: Model, timeout_s: float, max_model_calls: int, log: CallLog) -> None:
        """`model`: that of agents without one. `timeout_s`: limit of one model call, in seconds."""
        self.log = log
        self._model = model
        self._timeout_s = timeout_s
        self._max_model_calls = max_model_calls
        self._since = asyncio.get_running_loop().time()
        self._asked: Counter[str] = Counter()
        # Our ids of tool calls, by those that the SDK knows.
        self._ids: dict[str, str] = {}
        self.has_answered = False
        # The messages of other turns that the model is asked with from now on.
        self._taken: list[Taken] = []
        self._has_looked = False
        # The first fault of a call: the SDK hides it in an error of its own.
        self._fault: Exception | None = None
        asked: Counter[str] = Counter()
        for call in log.calls:
            if call.kind == "model":
                self._take_ids(call.id, _RESPONSE.validate_python(call.answer))
                asked[call.id.rpartition("-")[0]] += 1
            elif call.kind == "approval":
                # The run goes on from there: what was asked before is not asked again, and the same is a new question.
                self._asked = asked.copy()

    @property
    def failing_for_s(self) -> float:
        """Seconds since the last model call that succeeded."""
        return asyncio.get_running_loop().time() - self._since

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let prepared agents make their calls in this run while the block lasts."""
        token = _RUN.set(self)
        try:
            yield
        except Exception:
            if self._fault is not None:
                raise self._fault from self._fault.__cause__
            raise
        finally:
            _RUN.reset(token)

    @contextmanager
    def noting_faults(self) -> Iterator[None]:
        """Note what the block raises."""
        try:
            yield
        except Exception as error:
            self._fault = self._fault or error
            if (faults := _TOOL_FAULTS.get()) is not None:
                faults.append(error)
            raise

    async def ask(
        self, agent: Agent[Any], own: Model | None, asked: Sequence[Any], more: dict[str, Any]
    ) -> ModelResponse:
        """The answer of the agent's model. `asked`: the SDK's arguments in their order."""
        is_rendered = callable(agent.instructions)
        instructions = (is_rendered and self.log.instructions_of(agent.name)) or asked[0]
        asked, question = await self._with_taken(agent.name, instructions, asked)
        self._asked[question.digest] += 1
        call_id = f"{question.digest}-{self._asked[question.digest]}"
        if (kept := self.log.answer_to(call_id, question)) is not None:
            response = _RESPONSE.validate_python(kept.answer)
            self._take_ids(kept.id, response)
            return response
        self._refuse_more()
        await self.log.keep_question(call_id, question, rendered := instructions if is_rendered else None)
        name = self.log.model_name if own is None else str(getattr(own, "model", type(own).__name__))
        began = to_wire(utc_now())
        call = Call(id=call_id, kind="model", name=name, agent=agent.name, started_at=began, instructions=rendered)
        # What an agent that is a tool says is no part of the reply.
        if writer := self.log.writer if _TOOL_FAULTS.get() is None else None:
            writer.begin_call(len(self.log.calls))
        with tracing.span(CHAT_APP_ID, f"chat {name}", kind="CLIENT", attributes=_asks(name)) as recording:
            response = await self._timed(own or self._model, (instructions, *asked[1:]), more, writer)
            recording.note(**_used(response))
        tokens = [response.usage.input_tokens, response.usage.output_tokens]
        call = msgspec.structs.replace(call, finished_at=to_wire(utc_now()), tokens=tokens)
        call = self.log.described(call, question)
        if _TOOL_FAULTS.get() is None and all(item.type in _FINAL for item in response.output):
            self.log.last = call
            return response
        if writer:
            await writer.end_call()
        self._take_ids(call_id, response)
        answer = _RESPONSE.dump_python(response, mode="json")
        kept = await self.log.add(msgspec.structs.replace(call, answer=answer))
        return response if kept.answer is answer else _RESPONSE.validate_python(kept.answer)

    def _refuse_more(self) -> None:
        if max(self._asked.total(), self.log.model_calls + 1) > self._max_model_calls:
            most = f"{self._max_model_calls} model calls, EVERTURN_MAX_MODEL_CALLS_PER_TURN"
            raise TerminalError(f"the turn needs more than {most}", kind="too_many_model_calls")

    async def _with_taken(
        self, agent: str, instructions: str | None, asked: Sequence[Any]
    ) -> tuple[Sequence[Any], Question]:
        """What is asked with the messages that the turn takes up before it, unless an agent asks that is a tool.

        A call that was made is asked as it was then.
        """
        if _TOOL_FAULTS.get() is not None or isinstance(asked[1], str):
            return asked, _question(agent, instructions, asked)
        while True:
            items = list(asked[1])
            for number, taken in enumerate(self._taken):
                place = number + min(taken.index, len(asked[1]))
                items.insert(place, {"role": "user", "content": taken.message.user_message})
            whole = (asked[0], items, *asked[2:])
            question = _question(agent, instructions, whole)
            self.log.merged = [taken.message for taken in self._taken]
            is_kept = self.log.is_kept(f"{question.digest}-{self._asked[question.digest] + 1}", question)
            if is_kept or not await self._take_up(len(asked[1])):
                return whole, question

    async def _take_up(self, index: int) -> bool:
        """Take up the next message, after so many items; False if there is none."""
        if len(self._taken) == len(self.log.taken):
            await self.log.take_up(index, is_first=not self._has_looked)
            self._has_looked = True
        left = self.log.taken[len(self._taken) :]
        self._taken += left[:1]
        return bool(left)

    async def _timed(
        self, model: Model, asked: Sequence[Any], more: dict[str, Any], writer: WordWriter | None
    ) -> ModelResponse:
        try:
            async with self.log.within(self._timeout_s):
                call = streamed(model, writer.add, asked, more) if writer else model.get_response(*asked, **more)
                response = await call
        except TimeoutError:
            sentence = f"the model gave no answer within {self._timeout_s:g} s"
            raise TransientError(sentence, kind="timeout") from None
        self._since, self.has_answered = asyncio.get_running_loop().time(), True
        return response

    def _take_ids(self, call_id: str, response: ModelResponse) -> None:
        """Know the tool calls of an answer. The SDK refuses an id that was used before: such get one of ours."""
        for place, item in enumerate(response.output):
            if isinstance(item, ResponseFunctionToolCall):
                ours = f"{call_id}-{place}"
                if not item.call_id or self._ids.get(item.call_id, ours) != ours:
                    item.call_id = f"call_{ours}"
                self._ids[item.call_id] = ours

    async def call(self, tool: FunctionTool, inner: Any, context: ToolContext[Any], arguments: str) -> Any:
        """The tool's answer to a call."""
        call_id = self._ids.get(context.tool_call_id, f"tool-{context.tool_call_id}")
        if (kept := self.log.answer_of(call_id, tool.name, arguments)) is not None:
            return kept.answer
        self.log.check()
        context.idempotency_key = self.log.key_of(call_id)  # type: ignore[attr-defined]
        context.check = self.log.check  # type: ignore[attr-defined]
        agent = context.agent.name if context.agent else ""
        call = Call(id=call_id, kind="tool", name=tool.name, agent=agent, started_at=to_wire(utc_now()))
        if is_called_once(tool):
            begun = msgspec.structs.replace(call, id=call_id + BEGUN, answer=new_id())
            # Also if another attempt runs at this moment, as when a sidecar that is back gives the step out again.
            if await self.log.add(begun) is not begun:
                return await self._keep(call, OUTCOME_UNKNOWN.format(name=tool.name), error="outcome_unknown")
        with tracing.span(CHAT_APP_ID, f"execute_tool {tool.name}", attributes=_executes(tool.name, call_id)):
            answer = await self._made(tool.name, inner(context, arguments))
        if answer is None and tool._agent_instance is not None:  # noqa: SLF001 - as in `_reached`
            return answer  # the agent that is this tool stopped to ask: it goes on when that is decided
        return await self._keep(call, answer, attempts=getattr(context, "attempts", 1))

    async def _made(self, name: str, call: Coroutine[Any, Any, Any]) -> Any:
        """The answer of a tool; an error for the model if it raises: to try the whole step again would call it again.

        Raises what an agent that is a tool failed with, and the SDK's own errors, as those of guardrails.
        """
        faults: list[Exception] = []
        token, task = _TOOL_FAULTS.set(faults), asyncio.current_task()
        try:
            answer = await call
        except (Exception, asyncio.CancelledError) as error:
            # A library can cancel its own call; ours is cancelled if the step is.
            if isinstance(error, AgentsException) or (task and task.cancelling()):
                raise
            self.log.check()
            answer = failed(name, error)
        finally:
            _TOOL_FAULTS.reset(token)
        if faults:
            raise faults[0]
        return answer

    async def stop(self, result: RunResult) -> None:
        """Keep that the run stops to ask, and what."""
        asked = []
        for item in result.interruptions:
            raw = msgspec.convert(_plain(item.raw_item), dict[str, Any])
            sdk_id = str(raw.get("call_id") or raw.get("id"))
            call_id, arguments = self._ids.get(sdk_id, f"tool-{sdk_id}"), read_arguments(raw.get("arguments"))
            asked.append(Asked(call_id=call_id, sdk_id=sdk_id, tool=item.tool_name or "", arguments=arguments))
        state = result.to_state().to_json(context_serializer=lambda _: {})
        await self.log.stop(result.last_agent.name, asked, _plain(state))

    async def state(self, agent: Agent[Any], context: Any, decisions: Mapping[str, Decision]) -> Any:
        """From where the run goes on after what was decided; None for one that has not stopped."""
        if (pause := self.log.pause) is None:
            return None
        state = await RunState.from_json(agent, pause.state, context_override=context)
        of_sdk_id = {one.sdk_id: decisions[one.call_id] for one in pause.asked}
        for item in state.get_interruptions():
            raw = msgspec.convert(_plain(item.raw_item), dict[str, Any])
            decision = of_sdk_id[str(raw.get("call_id") or raw.get("id"))]
            if decision.decision == "approve":
                state.approve(item)
            else:
                state.reject(item, rejection_message=f"error: not allowed: {decision.reason or 'the user said no'}")
        return state

    async def listed(self, agent: Agent[Any], inner: Any, context: Any) -> list[Any]:
        """The tools of MCP servers. Raises TransientError (kind `tools_unreachable`) if one does not list them."""
        if (shapes := self.log.tools_of_servers(agent.name)) is not None:
            own = {tool.name for tool in agent.tools}
            return [_recorded_tool(shape) for shape in shapes if shape[0] not in own]
        with self.noting_faults():
            try:
                found: list[Any] = await inner(context)
            except Exception as error:  # noqa: BLE001 - whatever it raises, its connection cannot be used
                log.warning("tools_unreachable", extra={"error_type": type(error).__name__})
                raise TransientError("an MCP server does not list its tools", kind="tools_unreachable") from None
        return found

    async def _keep(self, call: Call, answer: Any, *, error: str = "", attempts: int = 1) -> Any:
        finished_at, plain = to_wire(utc_now()), kept_answer(call.name, answer)
        if not error and isinstance(plain, str) and plain.startswith("error:"):
            error = "tool_failed"
        full = msgspec.structs.replace(call, answer=plain, finished_at=finished_at, error=error, attempts=attempts)
        return (await self.log.add(full)).answer


def prepare(agent: Agent[Any]) -> "list[MCPServer]":
    """Let every call of `agent`, and of the agents that it can reach, be paid once; their MCP servers.

    Done twice it changes nothing. Raises ValueError for an agent that names its model: it has none, or the object.
    """
    agents = _reached(agent)
    for one in agents:
        if not isinstance(one.model, _PaidModel):
            _prepare(one)
    return list(dict.fromkeys(server for one in agents for server in one.mcp_servers))


def _prepare(agent: Agent[Any]) -> None:
    if isinstance(agent.model, str):
        raise ValueError(f"the agent {agent.name!r} names its model {agent.model!r}: leave it out, or give the Model")
    if agent.model is None and agent.model_settings == _DEFAULT_SETTINGS:
        agent.model_settings = ModelSettings()
    agent.model = _PaidModel(agent, agent.model)
    for tool in agent.tools:
        _prepare_tool(tool)
    for handoff in agent.handoffs:
        if isinstance(handoff, Handoff):
            _prepare_handoff(handoff)
    if agent.mcp_servers:
        _prepare_servers(agent)


def _reached(agent: Agent[Any]) -> list[Agent[Any]]:
    """`agent`, and what it hands over to or uses as a tool, as far as that can be seen before a run."""
    found, left = [agent], [agent]
    while left:
        one = left.pop()
        # The SDK has no other way to say which agent a tool is, or a handoff leads to.
        tools = (getattr(tool, "_agent_instance", None) for tool in one.tools)
        handoffs = (_target(other) if isinstance(other, Handoff) else other for other in one.handoffs)
        for other in (*tools, *handoffs):
            if isinstance(other, Agent) and not any(other is old for old in found):
                found.append(other)
                left.append(other)
    return found


def _target(handoff: Handoff[Any, Any]) -> Any:
    return handoff._agent_ref() if handoff._agent_ref else None  # noqa: SLF001


def _prepare_tool(tool: Any) -> None:
    if isinstance(tool, FunctionTool) and not isinstance(tool.on_invoke_tool, _PaidTool):
        tool.on_invoke_tool = _PaidTool(tool, tool.on_invoke_tool)


def _prepare_handoff(handoff: Handoff[Any, Any]) -> None:
    inner = handoff.on_invoke_handoff

    async def invoke(context: Any, arguments: str) -> Any:
        agent = await inner(context, arguments)
        prepare(agent)
        return agent

    handoff.on_invoke_handoff = invoke


def _prepare_servers(agent: Agent[Any]) -> None:
    inner = agent.get_mcp_tools

    async def get_mcp_tools(context: Any) -> list[Any]:
        tools = await _RUN.get().listed(agent, inner, context)
        for tool in tools:
            _prepare_tool(tool)
        return tools

    agent.get_mcp_tools = get_mcp_tools  # type: ignore[method-assign, assignment]


class _PaidTool:
    """What the SDK calls for `tool`."""

    def __init__(self, tool: FunctionTool, inner: Any) -> None:
        self._tool = tool
        self._inner = inner

    async def __call__(self, context: ToolContext[Any], arguments: str) -> Any:
        run = _RUN.get()
        with run.noting_faults():
            return await run.call(self._tool, self._inner, context, arguments)


class _PaidModel(Model):
    """The model of `agent`: its own, or that of the run."""

    def __init__(self, agent: Agent[Any], own: Model | None) -> None:
        self._agent = agent
        self._own = own

    async def get_response(self, *given: Any, **more: Any) -> ModelResponse:
        run, asked = _RUN.get(), (*given, *(more.pop(name) for name in _ASKED[len(given) :]))
        with run.noting_faults():
            return await run.ask(self._agent, self._own, asked, more)

    def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[TResponseStreamEvent]:
        raise NotImplementedError("a run of an agent asks for whole answers")


def _asks(model: str) -> dict[str, str | int]:
    """https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/"""
    return {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": model}


def _executes(tool: str, call_id: str) -> dict[str, str | int]:
    return {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": tool, "gen_ai.tool.call.id": call_id}


def _used(response: ModelResponse) -> dict[str, int]:
    return {
        "gen_ai__usage__input_tokens": response.usage.input_tokens,
        "gen_ai__usage__output_tokens": response.usage.output_tokens,
    }


def _plain(value: Any) -> Any:
    return _ANYTHING.dump_python(value, mode="json", fallback=str)


def _shape(tool: Any) -> Any:
    return [tool.name, getattr(tool, "description", None), getattr(tool, "params_json_schema", None)]


def _recorded_tool(shape: Sequence[Any]) -> FunctionTool:
    """A tool of that `_shape`, which only a replay has, where none is called."""
    name, description, schema = shape

    async def never(_context: Any, _arguments: str) -> Any:
        raise TerminalError(f"the tool {name!r} is not called in a replay")

    return FunctionTool(name, description or "", schema or {}, never, strict_json_schema=False)


def _question(agent: str, instructions: str | None, asked: Sequence[Any]) -> Question:
    """What is asked, of the SDK's arguments in their order."""
    items = _without_nulls(_ANYTHING.dump_python(asked[1], mode="json", fallback=str))
    offered = {"tools": [_shape(tool) for tool in asked[3]], "handoffs": [handoff.tool_name for handoff in asked[5]]}
    plain = _without_nulls(_ANYTHING.dump_python(offered, mode="json", fallback=str))
    return Question(agent, instructions, items if isinstance(items, list) else [items], plain)


def _without_nulls(value: Any) -> Any:
    """An answer that was read back has nulls that a fresh one lacks: both have one digest."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
