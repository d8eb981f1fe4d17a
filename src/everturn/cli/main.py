"""The command `everturn`: every verb with its options and what it runs. A new verb is a function here.

Exit codes: 0 done, or stopped by SIGTERM or Ctrl-C; 2 for a wrong setting or option; 1 for the rest. A refusal is one
line on stderr. What a verb needs is imported when it runs, so that `--help` is quick.
"""

import gc
import logging
import os
import signal
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup
from typer.main import get_command

from everturn import __version__, logs
from everturn.errors import EverturnError, SettingError
from everturn.settings import Settings, load_settings, warn_of_settings

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_WRONG_SETTING = 2

log = logging.getLogger(__name__)

_HELP = """\
A chat service and an agent memory service whose every turn is durable: kill the process, start it again, and the turn
that was running finishes.

\b
everturn up                            start everything on {ports}
everturn chat --user junaid            talk to it (Ctrl-D ends)
everturn chat --user junaid -m "Hi"    one message, one reply
everturn turns list --user junaid      the turns of a user; --status failed for some of them
everturn turns show TURN_ID            where a turn is, step by step; also: cancel, pause, resume, rerun
everturn turns approve TURN_ID CALL_ID  allow a call that a turn asks for; also: reject
everturn turns replay TURN_ID          run a turn again offline, and see where it departs; also: export
everturn doctor                        what is wrong on this machine or with the settings, and what to do about it
everturn backup FILE                   a copy of everything, also while it runs; docs/how-to/back-up.md
everturn runtime                       the runtime alone; everturn serve chat and everturn serve memory are the services
everturn runtime --app-id me --app-port 5000 -- python app.py
                                       any app of Dapr's Python SDK, with a sidecar of its own

Settings come from the environment or a .env file; docs/reference/settings.md lists them all. The first to know:

\b
EVERTURN_DATA_DIR                      where conversations are kept (default .everturn)
EVERTURN_CHAT_PORT, EVERTURN_MEMORY_PORT
GEMINI_API_KEY                         use Gemini instead of the offline demo
EVERTURN_MODEL_BASE_URL, EVERTURN_MODEL_NAME, EVERTURN_MODEL_API_KEY
                                       use any OpenAI-compatible endpoint"""
_COMPONENTS = Path("components")
# What people say is in the files: nobody else on the machine reads them.
_OWNER_ONLY = 0o077
_TCP_PORTS = range(1, 65536)


class _Verbs(TyperGroup):
    """To be ended by a signal is no failure. The help names the ports of the settings."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self.help = _HELP.format(ports=_ports())
        super().format_help(ctx, formatter)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            return EXIT_DONE


app = typer.Typer(cls=_Verbs, help=_HELP, add_completion=False, rich_markup_mode=None)
turns = typer.Typer(help="Look at turns of a running service, and steer them.", rich_markup_mode=None)
app.add_typer(turns, name="turns")


def _ports() -> str:
    try:
        settings = load_settings()
    except SettingError:  # said by the verb that needs them; help is there all the same
        return "two ports"
    return f"ports {settings.chat_port} and {settings.memory_port}"


def _app_id(text: str) -> str:
    # It names the folder of the app, which must be one of its own.
    if not text.strip().strip("."):
        raise typer.BadParameter(f"{text!r} is no app id: it must have more than dots and spaces")
    return text


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) not in _TCP_PORTS:
        raise typer.BadParameter(f"{text!r} is no port (1 to 65535)")
    return int(text)


Url = Annotated[
    str | None, typer.Option(metavar="URL", help="Address of the chat service (default: from the settings).")
]
TurnId = Annotated[str, typer.Argument(metavar="TURN_ID")]
CallId = Annotated[str, typer.Argument(metavar="CALL_ID")]
Reason = Annotated[str | None, typer.Option(metavar="TEXT", help="What the model reads.")]
AppId = Annotated[
    str | None, typer.Option(parser=_app_id, metavar="ID", help="The app; without it, both services of this project.")
]
AppPort = Annotated[
    int | None, typer.Option(parser=_port, metavar="PORT", help="Where the app listens; without it, nowhere.")
]
HttpPort = Annotated[
    int | None, typer.Option("--dapr-http-port", "-H", parser=_port, metavar="PORT", help="Of Dapr's HTTP API.")
]
GrpcPort = Annotated[
    int | None, typer.Option("--dapr-grpc-port", "-G", parser=_port, metavar="PORT", help="Of Dapr's gRPC API.")
]
MetricsPort = Annotated[
    int | None, typer.Option("--metrics-port", parser=_port, metavar="PORT", help="Gives /metrics (default: nowhere).")
]


class Ignorable(StrEnum):
    """Kinds of departures for which a replay need not fail."""

    INSTRUCTIONS = "instructions"
    TOOLS = "tools"


# Seconds: long enough to kill the process within a sentence.
_SLOW_WORD_S = 0.4

LogLevel = Annotated[
    Literal["debug", "info", "warn", "error", "fatal"] | None,
    typer.Option(help="Least important events to log (default: EVERTURN_LOG_LEVEL)."),
]


@app.callback(invoke_without_command=True)
def everturn(
    ctx: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    if ctx.obj and ctx.invoked_subcommand != "runtime":
        raise SettingError("only `everturn runtime` takes a command after --")
    if version:
        print(__version__)
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


@app.command()
def up(
    faults: Annotated[
        bool,
        typer.Option(
            "--faults",
            help="Open POST /faults/memory and /faults/broker on the memory port; body "
            '{"away": true} or {"away": false}.',
        ),
    ] = False,
    slow_demo: Annotated[
        bool,
        typer.Option("--slow-demo", help="Let the offline demo speak slowly, to be stopped in an answer."),
    ] = False,
    resources_path: Annotated[
        Path | None,
        typer.Option(
            "--resources-path",
            "-d",
            metavar="FOLDER",
            help="Dapr's component files (default: the folder components, if there is one; else built-in ones).",
        ),
    ] = None,
) -> None:
    """Start both services and the runtime in this process."""
    settings = _settings_of_service()
    if slow_demo:
        settings = settings.model_copy(update={"demo_word_s": _SLOW_WORD_S})
    from everturn.cli.up import run_up  # noqa: PLC0415
    from everturn.compose import Faults, Wiring  # noqa: PLC0415

    os.umask(_OWNER_ONLY)
    # Not by `glob`, which takes a folder that it may not read for an empty one: other stores would be used.
    found = _COMPONENTS.iterdir() if resources_path is None and _COMPONENTS.is_dir() else ()
    if any(path.suffix in (".yaml", ".yml") for path in found):
        resources_path = _COMPONENTS
    run_up(settings, Wiring(components_dir=resources_path, faults=Faults() if faults else None))


@app.command()
def serve(service: Annotated[Literal["chat", "memory"], typer.Argument(help="Which service.")]) -> None:
    """Start one service alone, beside its sidecar."""
    settings = _settings_of_service()
    from everturn.cli.serve import run_chat_service, run_memory_service  # noqa: PLC0415

    match service:
        case "chat":
            run_chat_service(settings)
        case "memory":
            run_memory_service(settings)


@app.command(options_metavar="[OPTIONS] [-- COMMAND ...]")
def runtime(  # noqa: PLR0913 - the flags of `dapr run`
    ctx: typer.Context,
    *,
    app_id: AppId = None,
    app_port: AppPort = None,
    app_protocol: Annotated[Literal["http", "grpc"], typer.Option(help="How the app is called.")] = "http",
    dapr_http_port: HttpPort = None,
    dapr_grpc_port: GrpcPort = None,
    metrics_port: MetricsPort = None,
    resources_path: Annotated[
        Path | None,
        typer.Option(
            "--resources-path", "-d", metavar="FOLDER", help="Dapr's component files (default: built-in ones)."
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", metavar="FILE", help="Dapr's; its secret scopes are used.")
    ] = None,
    log_level: LogLevel = None,
) -> int:
    """Start the runtime alone, as a sidecar.

    It is that of both services, or of the one app that --app-id names; COMMAND starts that app and ends with it.
    """
    # Read when gRPC is imported. It starts commands and never forks otherwise: nothing is to be prepared for that.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    # A port that it cannot have is reported by us, in one line.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    settings = _settings_of_service()
    from everturn.cli.runtime import RuntimeCommand, run_runtime  # noqa: PLC0415

    command = RuntimeCommand(
        app_id=app_id,
        app_port=app_port,
        app_protocol=app_protocol,
        http_port=dapr_http_port,
        grpc_port=dapr_grpc_port,
        resources_path=resources_path,
        configuration=config,
        metrics_port=metrics_port,
        log_level=log_level,
        command=ctx.obj or (),
    )
    return run_runtime(settings, command)


@app.command(short_help="Copy the data folder to a file, also while it is used.")
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The new file; one that exists is left alone.")],
    app_id: Annotated[
        str | None,
        typer.Option(
            parser=_app_id, metavar="ID", help="The app of `everturn runtime --app-id`; without it, the services."
        ),
    ] = None,
) -> None:
    """Copy what the data folder keeps to a file, also while a runtime uses it."""
    from everturn.cli.backup import run_backup  # noqa: PLC0415

    run_backup(load_settings(), file, app_id)


@app.command(short_help="Say what is wrong here, and what to do about it.")
def doctor(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> int:
    """Look at settings, ports, folder, disk, model, sidecar and clock; exit code 1 if there is a problem."""
    from everturn.cli.doctor import run_doctor  # noqa: PLC0415

    return EXIT_DONE if run_doctor(as_json=as_json) else EXIT_FAILED


@app.command()
def chat(
    user: Annotated[
        str | None, typer.Option(metavar="ID", help="Who is talking; with EVERTURN_TOKEN, the user whose token it is.")
    ] = None,
    session: Annotated[
        str | None, typer.Option(metavar="ID", help="Continue this conversation (default: a new one).")
    ] = None,
    message: Annotated[
        str | None, typer.Option("--message", "-m", metavar="TEXT", help="Send one message, print the reply, end.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print a line of JSON for each turn: its reply, or the turn.")
    ] = False,
    url: Url = None,
) -> None:
    """Talk to a running chat service."""
    _check_user(user)
    from everturn.cli.chat import ChatOptions, run_chat  # noqa: PLC0415

    run_chat(ChatOptions(user, session, message, url, as_json=json))


@turns.callback(invoke_without_command=True)
def _turns(ctx: typer.Context) -> None:
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


@turns.command("list", short_help="The turns of a user, newest first.")
def list_(
    user: Annotated[str | None, typer.Option(metavar="ID", help="Whose; with a user's EVERTURN_TOKEN, theirs.")] = None,
    status: Annotated[
        str | None, typer.Option(metavar="STATUS", help="Only those that are running, queued, failed, …")
    ] = None,
    session: Annotated[str | None, typer.Option(metavar="ID", help="Only those of this conversation.")] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="How many at most.")] = 20,
    cursor: Annotated[
        str | None, typer.Option(metavar="CURSOR", help="Continue after an earlier list, which names it.")
    ] = None,
    url: Url = None,
) -> None:
    """The turns of a user, newest first: id, status, when it was accepted, session."""
    _check_user(user)
    from everturn.cli.turns import list_turns  # noqa: PLC0415

    wanted = {"user_id": user, "status": status, "session_id": session, "limit": limit, "cursor": cursor}
    list_turns(wanted, url=url)


@turns.command()
def show(turn_id: TurnId, url: Url = None) -> None:
    """Where a turn is, step by step."""
    from everturn.cli.turns import show_turn  # noqa: PLC0415

    show_turn(turn_id, url=url)


# From the last to the first, as decorators are applied: the help lists them the other way round.
@turns.command("rerun", help="Try a failed turn again.")
@turns.command("resume", help="Let a held turn run again.")
@turns.command("pause", help="Hold a turn, and its session behind it.")
@turns.command("cancel", help="End a turn without a reply.")
def steer(ctx: typer.Context, turn_id: TurnId, url: Url = None) -> None:
    from everturn.cli.turns import show_turn  # noqa: PLC0415

    show_turn(turn_id, str(ctx.info_name), url=url)


@turns.command()
def approve(turn_id: TurnId, call_id: CallId, url: Url = None) -> None:
    """Allow a call that a turn asks for."""
    from everturn.cli.turns import show_turn  # noqa: PLC0415

    show_turn(turn_id, "approvals", call_id, body={"decision": "approve"}, url=url)


@turns.command()
def reject(turn_id: TurnId, call_id: CallId, reason: Reason = None, url: Url = None) -> None:
    """Forbid a call that a turn asks for."""
    from everturn.cli.turns import show_turn  # noqa: PLC0415

    show_turn(turn_id, "approvals", call_id, body={"decision": "reject", "reason": reason}, url=url)


@turns.command()
def export(turn_id: TurnId, url: Url = None) -> None:
    """Print a turn with all that a replay of it needs, as JSON."""
    from everturn.cli.replay import export_turn  # noqa: PLC0415

    export_turn(turn_id, url=url)


@turns.command(short_help="Run a turn again offline, and see where it departs.")
def replay(
    turn: Annotated[str, typer.Argument(metavar="TURN_ID|FILE", help="A turn, or a file that `export` has made.")],
    ignore: Annotated[
        list[Ignorable] | None,
        typer.Option(metavar="instructions|tools", help="Show how these depart, and do not fail for it."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the departures as JSON.")] = False,
    url: Url = None,
) -> int:
    """Run a turn again offline, with the assistant of today: exit code 0 if it is the same, 1 if it departs.

    Each call of a model or tool is answered as it was; none is made, and nothing is written.
    """
    from everturn.cli.replay import replay_turn  # noqa: PLC0415

    is_same = replay_turn(turn, ignored=ignore or (), as_json=as_json, url=url)
    return EXIT_DONE if is_same else EXIT_FAILED


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the verb that `arguments` (the process's own unless given) name; its exit code."""
    # Until a verb sets its own handler, SIGTERM is what Ctrl-C is: a wish to end, not a failure.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logs.configure()
    given = list(sys.argv[1:] if arguments is None else arguments)
    at = given.index("--") if "--" in given else len(given)
    try:
        code = get_command(app).main(
            given[:at], prog_name="everturn", standalone_mode=False, obj=tuple(given[at + 1 :])
        )
        return EXIT_DONE if code is None else int(code)
    except typer.TyperException as error:
        return _refuse(error.format_message().replace("Value error, ", ""), error.exit_code)
    except SettingError as error:
        return _refuse(error.message, EXIT_WRONG_SETTING)
    except EverturnError as error:
        return _refuse(error.message, EXIT_FAILED)
    except Exception as error:  # the edge of the process
        log.exception("command_failed", extra={"command": given[:1]})
        return _refuse(f"unexpected {type(error).__name__}; the log says where", EXIT_FAILED)
    finally:
        gc.enable()


def _check_user(user: str | None) -> None:
    if user is None and load_settings().token is None:
        raise SettingError("--user: name the user, or sign in with EVERTURN_TOKEN")


def _settings_of_service() -> Settings:
    """A wrong one is reported before the long import, of which nothing is garbage: `freeze_gc` ends the pause."""
    settings = load_settings()
    logs.set_level(settings.log_level)
    warn_of_settings()
    gc.disable()
    from everturn.cli.lean_start import leave_out  # noqa: PLC0415

    leave_out(settings)
    return settings


def _refuse(sentence: str, code: int) -> int:
    print(f"everturn: {' '.join(sentence.split())}", file=sys.stderr)
    return code
