"""The command `everturn`: reads the command line, runs one command, turns errors into one line and an exit code.

Exit codes: 0 done, or stopped by SIGTERM or Ctrl-C; 2 for a wrong setting or option; 1 for the rest. What a command
needs is imported when it runs, so that `--help` is quick.
"""

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from everturn import __version__, logs
from everturn.errors import EverturnError, SettingError
from everturn.settings import load_settings

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_WRONG_SETTING = 2

log = logging.getLogger(__name__)

_DESCRIPTION = """\
A chat service and an agent memory service whose every turn is durable: kill the process, start it again, and the turn
that was running finishes."""
_EXAMPLES = """\
examples:
  everturn up                            start everything on ports 8010 and 8001
  everturn chat --user junaid            talk to it (Ctrl-D ends)
  everturn chat --user junaid -m "Hi"    one message, one reply
  everturn turns show TURN_ID            where a turn stands, step by step

Settings come from the environment or a .env file; docs/reference/settings.md lists them all. The first to know:
  EVERTURN_DATA_DIR                      where conversations are kept (default .everturn)
  EVERTURN_CHAT_PORT, EVERTURN_MEMORY_PORT
  GEMINI_API_KEY                         use Gemini instead of the offline demo
  EVERTURN_MODEL_BASE_URL, EVERTURN_MODEL_NAME, EVERTURN_MODEL_API_KEY
                                         use any OpenAI-compatible endpoint"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` (the process's own unless given) name; its exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    options = _parser().parse_args(arguments)
    logs.configure()
    try:
        _run(options)
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
    return EXIT_DONE


def _run(options: argparse.Namespace) -> None:
    match options.command:
        case "up":
            settings = load_settings()  # a wrong one is told before the long import
            from everturn.cli.up import UpOptions, run_up  # noqa: PLC0415

            run_up(settings, UpOptions(faults=options.faults))
        case "chat":
            from everturn.cli.chat import ChatOptions, run_chat  # noqa: PLC0415

            run_chat(ChatOptions(options.user, options.session, options.message, options.url))
        case "turns":
            from everturn.cli.turns import show_turn  # noqa: PLC0415

            show_turn(options.turn_id, url=options.url)
        case "version":
            print(__version__)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="everturn",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    up = commands.add_parser("up", help="start both services and the runtime in this process")
    up.add_argument(
        "--faults",
        action="store_true",
        help='open POST /faults/memory and /faults/broker on the memory port; body {"away": true} or {"away": false}',
    )

    chat = commands.add_parser("chat", help="talk to a running service")
    chat.add_argument("--user", required=True, metavar="ID", help="who is talking")
    chat.add_argument("--session", metavar="ID", help="go on with this conversation (default: a new one)")
    chat.add_argument("-m", "--message", metavar="TEXT", help="send one message, print the reply, end")
    _add_url(chat)

    turns = commands.add_parser("turns", help="look at turns of a running service")
    show = turns.add_subparsers(dest="turns_command", required=True, metavar="COMMAND").add_parser(
        "show", help="where a turn stands, step by step"
    )
    show.add_argument("turn_id", metavar="TURN_ID")
    _add_url(show)

    commands.add_parser("version", help="print the version")
    return parser


def _add_url(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", help="address of the chat service (default: from the settings)")


def _refuse(sentence: str, code: int) -> int:
    print(f"everturn: {' '.join(sentence.split())}", file=sys.stderr)
    return code


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    # Until a command sets its own handler, SIGTERM is what Ctrl-C is: a wish to end, not a failure.
    raise KeyboardInterrupt
