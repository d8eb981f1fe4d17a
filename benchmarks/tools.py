"""What a turn costs with 0, 1, 5 and 10 calls of a tool, each after a model call of its own: CPU, stored bytes."""

from benchmarks.client import MESSAGE, talk
from benchmarks.flat import stored_bytes
from benchmarks.report import Figure
from benchmarks.service import Service, started

_CALLS = (0, 1, 5, 10)
_WARM_UP = 30
_ROUNDS, _TURNS_A_ROUND = 10, 10
# A call among ten may cost so much more than one among five.
_MOST_GROWTH = 1.25


def run() -> list[Figure]:
    cpu_ms, stored_kb = dict.fromkeys(_CALLS, 0.0), dict.fromkeys(_CALLS, 0.0)
    with started(BENCH_TOOLS="yes") as service:
        for calls in _CALLS:
            _talk(service, calls, "warm-up", _WARM_UP)
        # In turns, so that what other programs take is spread over all of them.
        for number in range(_ROUNDS):
            for calls in _CALLS:
                cpu, stored = service.cpu_s(), stored_bytes(service)
                _talk(service, calls, str(number), _TURNS_A_ROUND)
                cpu_ms[calls] += (service.cpu_s() - cpu) * 1e3 / (_ROUNDS * _TURNS_A_ROUND)
                stored_kb[calls] += (stored_bytes(service) - stored) / 1e3 / (_ROUNDS * _TURNS_A_ROUND)
    return [*_figures("CPU", cpu_ms, "ms"), *_figures("stored", stored_kb, "kB")]


def _talk(service: Service, calls: int, name: str, turns: int) -> None:
    """Each turn has a session of its own: none has a history."""
    for number in range(turns):
        talk(service.chat_url, f"{name}-{calls}-{number}", 1, f"{calls} calls. {MESSAGE}")


def _figures(what: str, cost: dict[int, float], unit: str) -> list[Figure]:
    first, last = (cost[5] - cost[1]) / 4, (cost[10] - cost[5]) / 5
    return [
        *(Figure("tools", f"{what} of a turn with {calls} tool calls", cost[calls], unit) for calls in _CALLS),
        Figure("tools", f"{what} of a tool call, from the 2nd to the 5th", first, unit),
        Figure("tools", f"{what} of a tool call, from the 6th to the 10th", last, unit),
        Figure.at_most("tools", f"{what} of a tool call, growth", last / first, "times", _MOST_GROWTH),
    ]
