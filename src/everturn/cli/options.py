"""The command line of `everturn`: what there is and what it means. Reading it imports nothing heavy."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

_DESCRIPTION = """\
A chat service and an agent memory service whose every turn is durable: kill the process, start it again, and the turn
that was running finishes."""
_EXAMPLES = """\
examples:
  everturn up                            start everything on ports 8010 and 8001
  everturn chat --user junaid            talk to it (Ctrl-D ends)
  everturn chat --user junaid -m "Hi"    one message, one reply
  everturn runtime                       only the runtime; everturn chat and everturn memory are the services
  everturn runtime --app-id me --app-port 5000 -- python app.py
                                         any app of Dapr's Python SDK, with a sidecar of its own
  everturn turns show TURN_ID            where a turn stands, step by step

Settings come from the environment or a .env file; docs/reference/settings.md lists them all. The first to know:
  EVERTURN_DATA_DIR                      where conversations are kept (default .everturn)
  EVERTURN_CHAT_PORT, EVERTURN_MEMORY_PORT
  GEMINI_API_KEY                         use Gemini instead of the offline demo
  EVERTURN_MODEL_BASE_URL, EVERTURN_MODEL_NAME, EVERTURN_MODEL_API_KEY
                                         use any OpenAI-compatible endpoint"""

# As `dapr run` names them.
_LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")
_TCP_PORTS = range(1, 65536)


def parse_command_line(arguments: Sequence[str]) -> tuple[argparse.Namespace, Sequence[str]]:
    """The options, and the command after `--`. Ends the process with exit code 2 where they make no sense."""
    at = list(arguments).index("--") if "--" in arguments else len(arguments)
    app_command = arguments[at + 1 :]
    parser = _build_parser()
    options = parser.parse_args(arguments[:at])
    if app_command and options.command != "runtime":
        parser.error("only `everturn runtime` takes a command after --")
    if options.command == "chat" and options.user is None and (options.message or options.session or options.url):
        parser.error("to talk, say who you are with --user; without any option the chat service is started")
    return options, app_command


def runtime_command(make: Callable[..., T], options: argparse.Namespace, app_command: Sequence[str]) -> T:
    """The options of `everturn runtime`, as `make` takes them."""
    return make(
        app_id=options.app_id,
        app_port=options.app_port,
        app_protocol=options.app_protocol,
        http_port=options.dapr_http_port,
        grpc_port=options.dapr_grpc_port,
        resources_path=options.resources_path,
        configuration=options.config,
        log_level=options.log_level,
        command=tuple(app_command),
    )


def _build_parser() -> argparse.ArgumentParser:
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
    _add_runtime(commands)
    _add_chat(commands)
    commands.add_parser("memory", help="start the memory service alone, beside its sidecar")
    turns = commands.add_parser("turns", help="look at turns of a running service")
    show = turns.add_subparsers(dest="turns_command", required=True, metavar="COMMAND").add_parser(
        "show", help="where a turn stands, step by step"
    )
    show.add_argument("turn_id", metavar="TURN_ID")
    _add_url(show)
    commands.add_parser("version", help="print the version")
    return parser


def _add_chat(commands: Any) -> None:
    chat = commands.add_parser("chat", help="start the chat service alone; with --user, talk to a running one")
    chat.add_argument("--user", metavar="ID", help="who is talking")
    chat.add_argument("--session", metavar="ID", help="go on with this conversation (default: a new one)")
    chat.add_argument("-m", "--message", metavar="TEXT", help="send one message, print the reply, end")
    _add_url(chat)


def _add_runtime(commands: Any) -> None:
    runtime = commands.add_parser(
        "runtime",
        help="start the runtime alone, as the sidecar of both services or of one app",
        usage="everturn runtime [options] [-- COMMAND ...]",
    )
    runtime.add_argument(
        "--app-id", type=_app_id, metavar="ID", help="the app; without it, both services of this project"
    )
    runtime.add_argument("--app-port", type=_port, metavar="PORT", help="where the app listens; without it, nowhere")
    runtime.add_argument("--app-protocol", choices=("http", "grpc"), default="http", help="how the app is called")
    runtime.add_argument("--dapr-http-port", "-H", type=_port, metavar="PORT", help="of Dapr's HTTP API")
    runtime.add_argument("--dapr-grpc-port", "-G", type=_port, metavar="PORT", help="of Dapr's gRPC API")
    runtime.add_argument(
        "--resources-path", "-d", type=Path, metavar="FOLDER", help="component files (default: a store, a broker)"
    )
    runtime.add_argument("--config", "-c", type=Path, metavar="FILE", help="Dapr's; its secret scopes are used")
    runtime.add_argument("--log-level", choices=_LOG_LEVELS, default="info")


def _app_id(text: str) -> str:
    # It names the folder of the app, which must be one of its own.
    if not text.strip().strip("."):
        raise argparse.ArgumentTypeError(f"{text!r} is no app id: it must have more than dots and spaces")
    return text


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) not in _TCP_PORTS:
        raise argparse.ArgumentTypeError(f"{text!r} is no port (1 to 65535)")
    return int(text)


def _add_url(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", help="address of the chat service (default: from the settings)")
