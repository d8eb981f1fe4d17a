"""Both services with a scripted model, and the floor's routes beside the chat service's, for each way to run.

`uvicorn benchmarks.dapr_apps:chat` and `:memory` stand beside a sidecar; `python -m benchmarks.dapr_apps` is
`everturn up`. Settings come from the environment.
"""

from fastapi import FastAPI

from everturn import logs
from everturn.dapr.sidecar import DaprSidecar
from everturn.models.providers import prepare_sdk
from everturn.settings import Settings, load_settings
from everturn.web.app import standalone_apps


def create_chat(settings: Settings) -> FastAPI:
    """The chat service with the scripted model, and the floor beside it."""
    prepare_sdk()
    from benchmarks.dapr_floor import WithFloor, chat_app_with_floor  # noqa: PLC0415 - see prepare_sdk
    from benchmarks.scripted import ScriptedModel  # noqa: PLC0415 - see prepare_sdk
    from everturn.chat.app import ChatParts  # noqa: PLC0415 - see prepare_sdk

    parts = ChatParts.create(settings, WithFloor(DaprSidecar(settings)), ScriptedModel())
    return chat_app_with_floor(settings, parts)


def create_memory(settings: Settings) -> FastAPI:
    """The memory service with the scripted model."""
    prepare_sdk()
    from benchmarks.scripted import ScriptedModel  # noqa: PLC0415 - see prepare_sdk
    from everturn.memory.app import create_app  # noqa: PLC0415 - see prepare_sdk

    return create_app(settings, None, ScriptedModel())


__getattr__ = standalone_apps(__name__, chat=create_chat, memory=create_memory)


if __name__ == "__main__":
    logs.configure()
    prepare_sdk()
    from benchmarks.dapr_floor import WithFloor, chat_app_with_floor
    from benchmarks.scripted import ScriptedModel
    from everturn.cli.up import run_up
    from everturn.compose import Wiring

    wiring = Wiring(
        chat_model=ScriptedModel(),
        summary_model=ScriptedModel(),
        chat_sidecar=WithFloor,
        chat_app=chat_app_with_floor,
    )
    run_up(load_settings(), wiring)
