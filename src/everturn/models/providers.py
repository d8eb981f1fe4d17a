"""Which model a process talks to, from its settings: an OpenAI-compatible endpoint or the offline demo.

Another provider is a branch of `build_model` and a module with its `Model` of the Agents SDK. Importing this room is
cheap: the SDK takes seconds, so the modules that need it are imported when a model is built.
"""

import logging
import os
import sys
from functools import cache
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from everturn.dapr.client import SidecarClient
from everturn.models.endpoint import endpoint_of
from everturn.settings import Settings

if TYPE_CHECKING:
    from agents import Model

# The SDK reads these when it is imported (agents/_debug.py, agents/tracing/provider.py).
_QUIET = {
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
    "OPENAI_AGENTS_DONT_LOG_MODEL_DATA": "1",
    "OPENAI_AGENTS_DONT_LOG_TOOL_DATA": "1",
}
# At DEBUG these write whole requests, prompt and all.
_LOGGERS = ("openai", "openai.agents", "httpx2", "httpcore2")


@cache
def prepare_sdk() -> None:
    """Import the Agents SDK, once, with its tracing off for good and its loggers at WARNING."""
    os.environ.update(_QUIET)
    put_off("mcp")
    import agents  # noqa: PLC0415 - takes seconds, so only if it is needed
    from agents.tracing import set_trace_provider  # noqa: PLC0415
    from agents.tracing.provider import DefaultTraceProvider  # noqa: PLC0415

    # In the place of the one that is made otherwise, with a client for OpenAI's traces and a proxy of the environment.
    set_trace_provider(DefaultTraceProvider())
    agents.set_tracing_disabled(True)
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(max(logging.WARNING, logger.level))


def put_off(package: str) -> None:
    """Let `package` run at its first use, if it is not there yet; its submodules can be imported before.

    The SDK takes one exception out of a submodule of `mcp` (agents/mcp/_compat.py). The package itself, which only an
    agent with such servers uses, is 20 MB and a fifth of a start. `importlib.util.LazyLoader` takes the import of a
    submodule for a use.
    """
    spec = None if package in sys.modules else find_spec(package)
    if spec is not None:
        sys.modules[package] = module = module_from_spec(spec)
        module.__class__ = _LazyModule


class _LazyModule(ModuleType):
    def __getattr__(self, name: str) -> Any:
        """Something of the package is used: it runs now."""
        assert self.__spec__ is not None
        assert self.__spec__.loader is not None
        # What it uses of itself while it runs is there, or is not yet.
        self.__class__ = ModuleType  # type: ignore[assignment]
        try:
            self.__spec__.loader.exec_module(self)
        except BaseException:
            self.__class__ = _LazyModule
            raise
        return getattr(self, name)


def build_model(settings: Settings, purpose: Literal["chat", "summary"], dapr: SidecarClient | None = None) -> "Model":
    """The model that answers chat turns or refreshes summaries; `dapr` has its key if the settings have none.

    `await model.close()` when the service stops.
    """
    prepare_sdk()
    if endpoint := endpoint_of(settings):
        from everturn.models.openai_model import EndpointModel, secret_key_of  # noqa: PLC0415 - needs the SDK

        return EndpointModel(endpoint, secret_key_of(settings, dapr) if dapr else None)
    from everturn.models.offline.model import OfflineChatModel, OfflineSummaryModel  # noqa: PLC0415 - needs the SDK

    return OfflineChatModel(settings.demo_word_s) if purpose == "chat" else OfflineSummaryModel()
