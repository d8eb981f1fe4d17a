"""`make bench`, or `python -m benchmarks engine chat` for some of them."""

import argparse
import random
import sys
from collections.abc import Callable

from benchmarks import chat, chat_http, engine, flat, listeners, recovery, sdk_worker, start, tools
from benchmarks.load import NoWrkError
from benchmarks.report import Figure, Report


def main() -> int:
    options = _options()
    random.seed(options.seed)
    benchmarks: dict[str, Callable[[], list[Figure]]] = {
        "engine": lambda: [*engine.run(), *sdk_worker.run()],
        "chat": lambda: chat.run(options.seconds),
        "chat-http": lambda: chat_http.run(options.seconds),
        "tools": tools.run,
        "start": start.run,
        "recovery": recovery.run,
        "flat": flat.run,
        "listeners": listeners.run,
    }
    unknown = [name for name in options.names if name not in benchmarks]
    if unknown:
        print(f"no benchmark {unknown[0]!r}; there are: {', '.join(benchmarks)}", file=sys.stderr)
        return 2
    report = Report(options.seed)
    report.begin()
    try:
        for name in options.names or benchmarks:
            report.add(benchmarks[name]())
    except NoWrkError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"\nwritten to {report.save()}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure Everturn.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which to run (default: all)")
    parser.add_argument("--seconds", type=float, default=10, help="length of each load by wrk")
    parser.add_argument("--seed", type=int, default=4, help="where random choices begin")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
