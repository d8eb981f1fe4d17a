"""A model of the Agents SDK that needs no network. Importing this takes seconds: do it late."""

import uuid
from abc import abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import Any

from agents import AgentOutputSchemaBase, Handoff, Model, ModelResponse, ModelSettings, ModelTracing, Tool, Usage
from agents.items import TResponseInputItem, TResponseOutputItem, TResponseStreamEvent
from openai.types.responses import ResponseOutputMessage, ResponseOutputText
from openai.types.responses.response_prompt_param import ResponsePromptParam


class OfflineModel(Model):
    """Answers by rules: `respond` makes the output of the instructions, the input and the tools on offer."""

    @abstractmethod
    def respond(
        self, instructions: str, items: Sequence[TResponseInputItem], tools: Sequence[Tool]
    ) -> list[TResponseOutputItem]:
        """The output for one call."""

    async def get_response(  # noqa: PLR0913, PLR0917 - the signature is the SDK's
        self,
        system_instructions: str | None,
        input: str | list[TResponseInputItem],  # noqa: A002
        model_settings: ModelSettings,  # noqa: ARG002
        tools: list[Tool],
        output_schema: AgentOutputSchemaBase | None,  # noqa: ARG002
        handoffs: list[Handoff],  # noqa: ARG002
        tracing: ModelTracing,  # noqa: ARG002
        *,
        previous_response_id: str | None,  # noqa: ARG002
        conversation_id: str | None,  # noqa: ARG002
        prompt: ResponsePromptParam | None,  # noqa: ARG002
    ) -> ModelResponse:
        items: list[TResponseInputItem] = [{"role": "user", "content": input}] if isinstance(input, str) else input
        output = self.respond(system_instructions or "", items, tools)
        return ModelResponse(output=output, usage=Usage(requests=1), response_id=None)

    def stream_response(self, *_: Any, **__: Any) -> AsyncIterator[TResponseStreamEvent]:
        """Not offered: Everturn does not stream."""
        raise NotImplementedError("the offline demo does not stream")


def message_of(text: str) -> ResponseOutputMessage:
    """`text` as a model's output."""
    content = ResponseOutputText(text=text, type="output_text", annotations=[], logprobs=[])
    return ResponseOutputMessage(
        id=f"msg_{uuid.uuid4().hex}", content=[content], role="assistant", type="message", status="completed"
    )


def user_text(item: TResponseInputItem) -> str | None:
    """The text of an input item that is a message of the user; None for everything else."""
    parts: Any = item
    if parts.get("role") != "user" or parts.get("type", "message") != "message":
        return None
    content = parts.get("content")
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content or ())
