"""The offline demo as a summary model: the facts of the previous summary and of the new turns, the newer one holds."""

from collections.abc import Sequence

from agents import Tool
from agents.items import TResponseInputItem, TResponseOutputItem

from everturn.models.fence import unfence
from everturn.models.offline.facts import merge
from everturn.models.offline.model import OfflineModel, message_of, user_text
from everturn.models.offline.statements import stated
from everturn.models.offline.summaries import read, render


class OfflineSummaryModel(OfflineModel):
    """Writes one short sentence a fact. Without any fact the previous summary stays as it is."""

    def respond(
        self,
        instructions: str,  # noqa: ARG002
        items: Sequence[TResponseInputItem],
        tools: Sequence[Tool],  # noqa: ARG002
    ) -> list[TResponseOutputItem]:
        data = unfence("".join(user_text(item) or "" for item in items))
        name, previous = str(data.get("name", "")), str(data.get("previous_summary", ""))
        facts = read(previous, name)
        for turn in data.get("new_turns", ()):
            facts += stated(str(turn["user"]))
        return [message_of(render(merge(facts), name) or previous)]
