"""Reads conversations from the nodes that their index names, no more of them than a question needs."""

from collections.abc import Sequence

from everturn.errors import TransientError
from everturn.memory.domain import Conversation, Node, NodeRef, StoredTurn, in_order, last_turns, settled
from everturn.memory.encoding import node_from_json, node_key
from everturn.sidecar.client import DaprClient

# Nodes in one request to the store: about a megabyte where every page is full.
_BULK = 32
# Pages that a window reads at a time: most windows need no more.
_WINDOW_BULK = 4


class Reader:
    """Raises TransientError where the store cannot be read, or does not (yet) have what an index names."""

    def __init__(self, dapr: DaprClient) -> None:
        self._dapr = dapr

    async def history(self, session_id: str, conversation: Conversation) -> list[StoredTurn]:
        """The whole conversation, in order of `sequence`."""
        return in_order([*await self._below(session_id, conversation.roots), *conversation.tail])

    async def window(self, session_id: str, conversation: Conversation, chars: int) -> list[StoredTurn]:
        """The last turns that fit into `chars` characters, the very last in any case, in order of `sequence`."""
        turns, unread = list(conversation.tail), list(conversation.roots)
        while unread and sum(turn.chars for turn in settled(turns, unread)) <= chars:
            unread.sort(key=lambda ref: ref.high)
            nodes = await self._nodes(session_id, unread[-_WINDOW_BULK:])
            del unread[-_WINDOW_BULK:]
            turns.extend(turn for node in nodes for turn in node.turns)
            unread.extend(ref for node in nodes for ref in node.refs)
        return last_turns(settled(turns, unread), chars)

    async def arrived(self, session_id: str, conversation: Conversation, start: int, stop: int) -> list[StoredTurn]:
        """The turns that arrived as number `start` up to `stop` (from 0, without `stop`), in order of arrival."""
        before, refs = 0, list(conversation.roots)
        turns: list[StoredTurn] = []
        while refs:
            ref = refs.pop(0)
            if before + ref.count <= start or before >= stop:
                before += ref.count
                continue
            node = await self.node(session_id, ref.number)
            refs[:0] = node.refs
            turns.extend(node.turns[max(0, start - before) : max(0, stop - before)])
            before += len(node.turns)
        turns.extend(conversation.tail[max(0, start - before) : max(0, stop - before)])
        return turns

    async def at_sequence(self, session_id: str, conversation: Conversation, sequence: int) -> list[StoredTurn]:
        """The sealed turns among which those with that `sequence` are."""
        refs = [ref for ref in conversation.roots if ref.low <= sequence <= ref.high]
        turns: list[StoredTurn] = []
        while refs:
            nodes = await self._nodes(session_id, refs)
            turns.extend(turn for node in nodes for turn in node.turns)
            refs = [ref for node in nodes for ref in node.refs if ref.low <= sequence <= ref.high]
        return turns

    async def node(self, session_id: str, number: int) -> Node:
        return (await self._by_number(session_id, [number]))[0]

    async def _below(self, session_id: str, refs: Sequence[NodeRef]) -> list[StoredTurn]:
        """All turns below `refs`, in order of arrival."""
        turns: list[StoredTurn] = []
        for node in await self._nodes(session_id, refs):
            turns.extend(node.turns)
            turns.extend(await self._below(session_id, node.refs))
        return turns

    async def _nodes(self, session_id: str, refs: Sequence[NodeRef]) -> list[Node]:
        return await self._by_number(session_id, [ref.number for ref in refs])

    async def _by_number(self, session_id: str, numbers: Sequence[int]) -> list[Node]:
        nodes: list[Node] = []
        for start in range(0, len(numbers), _BULK):
            keys = [node_key(session_id, number) for number in numbers[start : start + _BULK]]
            found = await self._dapr.get_states(keys)
            for key in keys:
                if key not in found:
                    raise TransientError(f"state {key!r} is missing", kind="missing_page")
                nodes.append(node_from_json(found[key].value))
        return nodes
