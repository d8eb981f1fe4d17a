from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import to_json as dumped

from everturn.memory.domain import (
    FANOUT,
    PAGE_CHARS,
    PAGE_TURNS,
    Arrival,
    Conversation,
    Node,
    StoredTurn,
    in_order,
    last_turns,
    with_room,
    with_turn,
)
from everturn.memory.store import conversation_from_json, node_from_json, to_json
from tests.unit.memory.arrivals import placeless, turn


class Log:
    """A conversation and its sealed nodes, without a store."""

    def __init__(self) -> None:
        self.index = Conversation(owner="u")
        self.nodes: dict[int, Node] = {}

    def add(self, arrival: Arrival) -> tuple[Node, ...]:
        roomy, sealed = with_room(self.index)
        self.nodes |= {node.number: node for node in sealed}
        self.index = with_turn(roomy, arrival)
        return sealed

    def turns(self) -> list[StoredTurn]:
        return [*self._below(tuple(self.index.roots)), *self.index.tail]

    def _below(self, refs: tuple[object, ...]) -> list[StoredTurn]:
        found: list[StoredTurn] = []
        for ref in refs:
            node = self.nodes[ref.number]  # type: ignore[attr-defined]
            found += [*node.turns, *self._below(node.refs)]
        return found


@given(st.permutations(range(1, 40)))
def test_turns_read_in_order_of_sequence_whatever_the_order_of_arrival(sequences: list[int]) -> None:
    log = Log()

    for sequence in sequences:
        log.add(turn(sequence))

    assert [stored.sequence for stored in in_order(log.turns())] == list(range(1, 40))


@given(st.permutations(range(1, 40)))
def test_turns_are_kept_in_order_of_arrival(sequences: list[int]) -> None:
    log = Log()

    for sequence in sequences:
        log.add(turn(sequence))

    assert [stored.sequence for stored in log.turns()] == sequences
    assert [stored.arrival for stored in log.turns()] == list(range(39))


def test_a_turn_whose_number_is_taken_goes_behind_it() -> None:
    log = Log()

    for arrival in (turn(1, turn_id="first"), turn(2), turn(1, turn_id="second")):
        log.add(arrival)

    assert [stored.turn_id for stored in in_order(log.turns())] == ["first", "second", "t2"]


def test_an_event_without_a_sequence_goes_to_the_end_and_takes_the_next_number() -> None:
    log = Log()

    for arrival in (turn(5), placeless("e"), turn(2)):
        log.add(arrival)

    assert [(stored.sequence, stored.event_id) for stored in in_order(log.turns())] == [(2, None), (5, None), (6, "e")]


def test_a_full_tail_is_sealed_before_the_next_turn() -> None:
    log = Log()

    sealed = [len(log.add(turn(sequence))) for sequence in range(1, PAGE_TURNS + 2)]

    assert sealed == [0] * PAGE_TURNS + [1]
    assert len(log.index.tail) == 1


def test_a_tail_of_long_turns_is_sealed_early() -> None:
    log = Log()
    log.add(turn(1, text="x" * PAGE_CHARS))

    (page,) = log.add(turn(2))

    assert [stored.sequence for stored in page.turns] == [1]


def test_two_writers_seal_the_same_tail_into_the_same_node() -> None:
    log = Log()
    for sequence in range(1, PAGE_TURNS + 1):
        log.add(turn(sequence))

    assert with_room(log.index)[1] == with_room(conversation_from_json(to_json(log.index)))[1]


def test_a_long_conversation_keeps_its_turns_and_a_small_index() -> None:
    log = Log()
    many = PAGE_TURNS * FANOUT * (FANOUT + 2) + 5

    for sequence in range(1, many + 1):
        log.add(turn(sequence))

    assert [stored.sequence for stored in log.turns()] == list(range(1, many + 1))
    assert all(len(level) <= FANOUT for level in log.index.levels)
    assert len(log.index.levels) == 3


def test_an_event_costs_as_many_bytes_at_turn_10_000_as_at_turn_1() -> None:
    log = Log()
    block = PAGE_TURNS * FANOUT
    costs = []

    for sequence in range(1, 10_001):
        sealed = log.add(turn(sequence, text="x" * 200))
        written = [to_json(log.index), *(to_json(node) for node in sealed)]
        costs.append(len(dumped(written)))

    assert sum(costs[-block:]) <= 1.2 * sum(costs[:block])


@given(st.lists(st.integers(1, 60), max_size=60))
def test_a_conversation_is_the_same_after_the_store(sequences: list[int]) -> None:
    log = Log()
    for place, sequence in enumerate(sequences):
        log.add(turn(sequence, turn_id=f"t{place}"))

    assert conversation_from_json(to_json(log.index)) == log.index
    assert {number: node_from_json(to_json(node)) for number, node in log.nodes.items()} == log.nodes


def test_the_last_turns_that_fit_are_whole() -> None:
    log = Log()
    for sequence in range(1, 5):
        log.add(turn(sequence))
    size = log.turns()[0].chars

    fitting = last_turns(log.turns(), 2 * size + size // 2)

    assert [stored.sequence for stored in fitting] == [3, 4]


def test_the_very_last_turn_is_among_them_even_where_it_is_too_long() -> None:
    log = Log()
    log.add(turn(1))
    log.add(turn(2, text="x" * 1_000))

    assert [stored.sequence for stored in last_turns(log.turns(), 10)] == [2]
    assert last_turns([], 10) == []
