"""The summary of a user, refreshed by a model from the previous one and the new turns."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from everturn.contracts.memory import MAX_FIELD_CHARS
from everturn.models.faults import refused, sorted_faults
from everturn.models.replies import checked_reply
from everturn.models.sdk import prepare_sdk
from everturn.models.summary_prompt import SummaryTurn, summary_input, summary_instructions

if TYPE_CHECKING:
    from agents import Model

__all__ = ["SummaryTurn", "summarise"]


async def summarise(model: "Model", user_name: str, previous_summary: str, turns: Sequence[SummaryTurn]) -> str:
    """The new summary: plain text of at most 2,000 characters. One call of the model, without tools.

    Raises TransientError where trying again may help and TerminalError where it will not, both without any text of
    the prompt or the reply.
    """
    prepare_sdk()
    from agents import ItemHelpers, ModelSettings, ModelTracing  # noqa: PLC0415 - imported late, see prepare_sdk

    with sorted_faults():
        response = await model.get_response(
            summary_instructions(),
            summary_input(user_name, previous_summary, turns),
            ModelSettings(),
            tools=[],
            output_schema=None,
            handoffs=[],
            tracing=ModelTracing.DISABLED,
            previous_response_id=None,
            conversation_id=None,
            prompt=None,
        )
    if any(ItemHelpers.extract_refusal(item) for item in response.output):
        raise refused()
    text = "".join(ItemHelpers.extract_text(item) or "" for item in response.output)
    return _within_limit(checked_reply(text).strip())


def _within_limit(summary: str) -> str:
    """`summary` without its last lines or sentences where it is longer than a memory field may be."""
    if len(summary) <= MAX_FIELD_CHARS:
        return summary
    cut = summary[:MAX_FIELD_CHARS]
    end = max(cut.rfind("\n"), cut.rfind(". ") + 1)
    return cut[:end].rstrip() if end > 0 else cut
