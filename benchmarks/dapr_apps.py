"""Both services with a scripted model, and the floor's routes beside the chat service's, for each way to run.

`uvicorn benchmarks.dapr_apps:chat` and `:memory` stand beside a sidecar; `python -m benchmarks.dapr_apps` is
`everturn up`. Settings come from the environment.
"""

from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from everturn import logs
from everturn.models.sdk import prepare_sdk
from everturn.settings import Settings, load_settings
from everturn.sidecar.dapr import DaprSidecar
from everturn.sidecar.workflows import Sidecar
from everturn.web.standalone import standalone_app

if TYPE_CHECKING:
    from agents import Model


def create_chat(settings: Settings, sidecar: Sidecar | None = None, _model: "Model | None" = None) -> FastAPI:
    """The chat service with the scripted model, and the floor beside it."""
    prepare_sdk()
    from benchmarks.dapr_floor import WithFloor, add_floor_routes  # noqa: PLC0415 - see prepare_sdk
    from benchmarks.scripted import ScriptedModel  # noqa: PLC0415 - see prepare_sdk
    from everturn.chat.app import create_app  # noqa: PLC0415 - see prepare_sdk

    with_floor = WithFloor(sidecar or DaprSidecar(settings))
    app = create_app(settings, with_floor, ScriptedModel())
    add_floor_routes(app, with_floor)
    return app


def create_memory(settings: Settings) -> FastAPI:
    """The memory service with the scripted model."""
    prepare_sdk()
    from benchmarks.scripted import ScriptedModel  # noqa: PLC0415 - see prepare_sdk
    from everturn.memory.app import create_app  # noqa: PLC0415 - see prepare_sdk

    return create_app(settings, None, ScriptedModel())


def __getattr__(name: str) -> Any:
    """The app that uvicorn asks for."""
    if name == "chat":
        return standalone_app(create_chat)
    if name == "memory":
        return standalone_app(create_memory)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if __name__ == "__main__":
    logs.configure()
    prepare_sdk()
    from benchmarks.scripted import ScriptedModel
    from everturn.cli.up import UpOptions, run_up

    run_up(load_settings(), UpOptions(summary_model=ScriptedModel(), create_chat=create_chat))
