"""The command `everturn`: reads the command line, runs one command, turns errors into one line and an exit code.

Exit codes: 0 done, or stopped by SIGTERM or Ctrl-C; 2 for a wrong setting or option; 1 for the rest. What a command
needs is imported when it runs, so that `--help` is quick.
"""

import argparse
import gc
import logging
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from everturn import __version__, logs
from everturn.cli.options import parse_command_line, runtime_command
from everturn.errors import EverturnError, SettingError
from everturn.settings import Settings, load_settings

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_WRONG_SETTING = 2

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` (the process's own unless given) name; its exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    options, app_command = parse_command_line(sys.argv[1:] if arguments is None else arguments)
    logs.configure()
    try:
        return _run(options, app_command)
    except KeyboardInterrupt:
        return EXIT_DONE
    except BrokenPipeError:
        sys.stderr.close()  # whoever read the output has left; there is nobody to tell
        return EXIT_FAILED
    except SettingError as error:
        return _refuse(error.message, EXIT_WRONG_SETTING)
    except EverturnError as error:
        return _refuse(error.message, EXIT_FAILED)
    except Exception as error:  # the edge of the process
        log.exception("command_failed", extra={"command": options.command})
        return _refuse(f"unexpected {type(error).__name__}; the log says where", EXIT_FAILED)
    finally:
        gc.enable()


def _run(options: argparse.Namespace, app_command: Sequence[str]) -> int:
    match options.command:
        case "up":
            settings = _settings_of_service()
            from everturn.cli.up import UpOptions, run_up  # noqa: PLC0415

            run_up(settings, UpOptions(faults=options.faults))
        case "runtime":
            settings = _settings_of_service()
            # It starts commands and never forks otherwise: gRPC need not prepare for that, nor complain of it.
            os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
            # A port that it cannot have is told by us, in one line.
            os.environ.setdefault("GRPC_VERBOSITY", "NONE")
            from everturn.cli.runtime import RuntimeCommand, run_runtime  # noqa: PLC0415

            return run_runtime(settings, runtime_command(RuntimeCommand, options, app_command))
        case "chat" if options.user is None:
            settings = _settings_of_service()
            from everturn.cli.apart import run_chat_service  # noqa: PLC0415

            run_chat_service(settings)
        case "memory":
            settings = _settings_of_service()
            from everturn.cli.apart import run_memory_service  # noqa: PLC0415

            run_memory_service(settings)
        case "chat":
            from everturn.cli.chat import ChatOptions, run_chat  # noqa: PLC0415

            run_chat(ChatOptions(options.user, options.session, options.message, options.url))
        case "turns":
            from everturn.cli.turns import show_turn  # noqa: PLC0415

            show_turn(options.turn_id, url=options.url)
        case "version":
            print(__version__)
    return EXIT_DONE


def _settings_of_service() -> Settings:
    """A wrong one is told before the long import, of which nothing is garbage: `spare_collector` goes on from there."""
    settings = load_settings()
    gc.disable()
    return settings


def _refuse(sentence: str, code: int) -> int:
    print(f"everturn: {' '.join(sentence.split())}", file=sys.stderr)
    return code


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    # Until a command sets its own handler, SIGTERM is what Ctrl-C is: a wish to end, not a failure.
    raise KeyboardInterrupt
