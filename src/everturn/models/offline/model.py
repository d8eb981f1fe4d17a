"""The offline demo's models. They know what is in their instructions and their input, like any other model."""

import asyncio
import json
import re
import uuid
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import cache, partial
from typing import Any, TypeVar
from zoneinfo import available_timezones

from agents import Model, ModelResponse, Tool, Usage
from agents.items import TResponseInputItem, TResponseOutputItem, TResponseStreamEvent
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

from everturn.models.offline import language
from everturn.models.offline.language import KINDS, REPLIES, Fact, clauses, courtesies, merge, same_subject, stated
from everturn.models.streaming import OnText
from everturn.models.texts import unfence

_Items = Sequence[TResponseInputItem]
T = TypeVar("T")

_TIME_TOOL = "get_current_time"
_ABILITIES = REPLIES["abilities"][0]
_NOW = re.compile(r"\s(?:now|right now|please|today)$")
# Places whose time is looked up for one message.
_MOST_TIMES = 8
# With the white space before each. After "\s*" a long gap at the end would be read again from each of its places.
_WORDS = re.compile(r"\s+\S*|\S+")
# So many characters are read within 3 ms. What is more is read in a thread, one at a time: however many users send long
# texts at once, the loop waits for a few milliseconds of one of them.
_MOST_IN_LOOP_CHARS = 4_000
_READER = ThreadPoolExecutor(1, "offline-demo")
_FORMAL = ("formal", "polite", "professional", "business", "respectful")
_OUT_OF_REACH = {"memory": "what I remember of you", "history": "our conversation"}


class OfflineModel(Model):
    """Answers by rules: `respond` makes the output of the instructions, the input and the tools on offer."""

    @abstractmethod
    async def respond(self, instructions: str, items: _Items, tools: Sequence[Tool]) -> list[TResponseOutputItem]:
        """The output for one call."""

    async def get_response(  # the signature is the SDK's
        self,
        system_instructions: str | None,
        input: str | list[TResponseInputItem],  # noqa: A002
        model_settings: object,  # noqa: ARG002
        tools: list[Tool],
        *_: object,
        **__: object,
    ) -> ModelResponse:
        items: _Items = [{"role": "user", "content": input}] if isinstance(input, str) else input
        output = await self.respond(system_instructions or "", items, tools)
        return ModelResponse(output=output, usage=Usage(requests=1), response_id=None)

    def stream_response(self, *_: object, **__: object) -> AsyncIterator[TResponseStreamEvent]:
        """Not offered: `stream_text` is."""
        raise NotImplementedError("the offline demo has no events of the SDK: use stream_text")


class OfflineSummaryModel(OfflineModel):
    """Writes one short sentence a fact; the newer one holds. Without any fact the previous summary stays as it is."""

    async def respond(self, _: str, items: _Items, __: Sequence[Tool]) -> list[TResponseOutputItem]:
        asked = "".join(_texts(items, "user"))
        return [message_of(await _read(len(asked), partial(_summary_of, asked)))]


class OfflineChatModel(OfflineModel):
    """Greets by name and style, remembers and recalls, tells the time through the tool; says so if it cannot."""

    def __init__(self, word_s: float = 0.0) -> None:
        """`word_s`: seconds that it takes for a word."""
        self._word_s = word_s

    async def stream_text(self, on_text: OnText, *asked: Any, **more: Any) -> ModelResponse:
        """As `get_response`; `on_text` gets word after word."""
        response = await super().get_response(*asked, **more)
        for word in _WORDS.findall("".join(map(_text_of, response.output))):
            if self._word_s:
                await asyncio.sleep(self._word_s)
            on_text(word)
        return response

    async def get_response(self, *asked: Any, **more: Any) -> ModelResponse:
        return await self.stream_text(lambda _: None, *asked, **more)

    async def respond(self, instructions: str, items: _Items, tools: Sequence[Tool]) -> list[TResponseOutputItem]:
        chars = len(instructions) + sum(len(text) for role in ("user", "assistant") for text in _texts(items, role))
        return await _read(chars, partial(_answer_to, instructions, items, tools))


async def _read(chars: int, reading: Callable[[], T]) -> T:
    """What `reading` returns, which reads `chars` characters."""
    if chars <= _MOST_IN_LOOP_CHARS:
        return reading()
    return await asyncio.get_running_loop().run_in_executor(_READER, reading)


def _summary_of(asked: str) -> str:
    """The new summary of a user, from the data in what is asked."""
    data = unfence(asked)
    name, previous = str(data.get("name", "")), str(data.get("previous_summary", ""))
    told = [fact for turn in data.get("new_turns", ()) for fact in stated(str(turn["user"]))]
    return language.render(merge([*language.read(previous, name), *told]), name) or previous


def _answer_to(instructions: str, items: _Items, tools: Sequence[Tool]) -> list[TResponseOutputItem]:
    talk = _Talk(unfence(instructions), items)
    times = dict.fromkeys(_arguments(about) for topic, about in talk.questions if topic == "time")
    if times and not talk.clock and any(tool.name == _TIME_TOOL for tool in tools):
        calls = [{"call_id": f"call_{uuid.uuid4().hex}", "arguments": each} for each in list(times)[:_MOST_TIMES]]
        return [ResponseFunctionToolCall(type="function_call", name=_TIME_TOOL, **call) for call in calls]
    return [message_of(" ".join(talk.parts()))]


class _Talk:
    """A conversation as the demo reads it from the data in its instructions and from its input, up to `text`."""

    def __init__(self, memory: dict[str, Any], items: Sequence[Any]) -> None:
        said, missing = _texts(items, "user"), memory.get("unavailable") or ()
        self.name = str(memory.get("name", "")).strip() or "friend"
        self.text = said[-1] if said else ""
        told = [stated(text) for text in said]
        self.new, self.clauses = merge(told[-1] if told else ()), clauses(self.text)
        self.questions = [("", "") if stated(clause) else language.asked_in(clause) for clause in self.clauses]
        known = language.read(str(memory.get("user_summary", "")), self.name)
        self.facts = merge([*known, *(fact for facts in told for fact in facts)])
        style = str(memory.get("preferred_style", "")).casefold().replace("informal", "")
        self.casual = not any(word in style for word in _FORMAL)
        self.excused = any(_ABILITIES in text for text in _texts(items, "assistant"))
        self.unavailable = _listed([words for what, words in _OUT_OF_REACH.items() if what in missing])
        calls = {part["call_id"]: part["arguments"] for part in items if part.get("name") == _TIME_TOOL}
        outputs = [part for part in items if part.get("call_id") in calls and "output" in part]
        self.clock = {calls[part["call_id"]]: str(part["output"]) for part in outputs}

    def parts(self) -> list[str]:
        """What to say: a courtesy, what was noted, the answers; or that the demo did not understand."""
        said = [self._say(topic) for topic in courtesies(self.text)]
        if self.new:
            said.append(self._say("noted") + _listed([fact.to_the_user() for fact in self.new]) + ".")
        return [*said, *dict.fromkeys(self._answers())] or [self._say("sorry")]

    def _answers(self) -> Iterator[str]:
        for clause, (topic, about) in zip(self.clauses, self.questions, strict=True):
            if topic:
                yield self._answer(topic, about)
            elif language.is_question(clause) and not courtesies(clause):
                yield self._say("sorry")

    def _answer(self, topic: str, about: str) -> str:
        if topic == "time":
            return _time(self.clock.get(_arguments(about), ""), about)
        if topic in ("attribute", "thing"):
            known, unknown = self._about(about), f"I do not know {'your' if topic == 'attribute' else 'the'} {about}."
        elif topic == "everything":
            facts = [*([] if self._of("name") else [Fact("name", self.name)]), *self.facts] if self.facts else []
            known = ["this is what I know: " + "; ".join(fact.to_the_user() for fact in facts)] if facts else []
            unknown = f"I have you down as {self.name}; I know nothing else about you yet."
        elif topic in KINDS:
            kinds = ("work", "being") if topic == "work" else (topic,)
            known = [fact.to_the_user() for kind in kinds for fact in self._of(kind)]
            unknown = KINDS[topic][2] or f"You have not told me your name; I have you down as {self.name}."
        else:
            return self._say(topic)
        said = f"{known[0][:1].upper()}{_listed(known)[1:].rstrip('.')}." if known else ""
        if self.unavailable and (not known or topic == "everything"):
            said += f" I could not reach {self.unavailable} just now: there may be more. Please ask again."
        return said.lstrip() or unknown

    def _about(self, about: str) -> list[str]:
        """The newest fact about `about`: an attribute of that name, else a note that has all its words."""
        subject = same_subject(about)
        words = set(subject.split())
        named = [fact for fact in self._of("attribute") if same_subject(fact.subject) == subject]
        noted = [fact for fact in self._of("note", "other") if words <= set(same_subject(fact.value).split())]
        return [fact.to_the_user() for fact in (named or noted)[-1:]]

    def _of(self, *kinds: str) -> list[Fact]:
        return [fact for fact in self.facts if fact.kind in kinds]

    def _say(self, topic: str) -> str:
        name = self._of("name")
        said = REPLIES[topic][-self.casual].format(name[0].value if name else self.name)
        return f"{said} {_ABILITIES}" if topic == "sorry" and not self.excused else said


def message_of(text: str) -> ResponseOutputMessage:
    """`text` as a model's output."""
    content = ResponseOutputText(text=text, type="output_text", annotations=[], logprobs=[])
    return ResponseOutputMessage(
        id=f"msg_{uuid.uuid4().hex}", content=[content], role="assistant", type="message", status="completed"
    )


def _texts(items: Sequence[Any], role: str) -> list[str]:
    """The texts of the messages of `role` in a model's input."""
    messages = [part for part in items if part.get("role") == role and part.get("type", "message") == "message"]
    contents = [message.get("content") or "" for message in messages]
    return [text if isinstance(text, str) else "".join(part.get("text", "") for part in text) for text in contents]


def _text_of(item: TResponseOutputItem) -> str:
    content = item.content if isinstance(item, ResponseOutputMessage) else ()
    return "".join(part.text for part in content if isinstance(part, ResponseOutputText))


def _listed(things: Sequence[str]) -> str:
    return f"{', '.join(things[:-1])} and {things[-1]}" if len(things) > 1 else "".join(things)


def _arguments(place: str) -> str:
    zone = _zones().get(_NOW.sub("", place).replace(" ", "_").casefold())
    return json.dumps({"timezone": zone} if zone else {})


@cache
def _zones() -> dict[str, str]:
    """IANA time zones by their name and by the city in it, in lower case."""
    zones = sorted(available_timezones())
    by_city = {zone.rsplit("/", 1)[-1].casefold(): zone for zone in zones if "/" in zone}
    return by_city | {zone.casefold(): zone for zone in zones}


def _time(result: str, place: str) -> str:
    """The answer to the question for the time, from the tool's own answer."""
    try:
        moment = datetime.fromisoformat(result)
    except ValueError:
        return "I could not read the clock."
    zone = f"UTC{result[-6:]}" if moment.utcoffset() else "UTC"
    unknown = f"I do not know the time zone of {place}. " if place and _arguments(place) == "{}" else ""
    return f"{unknown}It is {moment:%H:%M} on {moment:%A}, {moment:%Y-%m-%d} ({zone})."
