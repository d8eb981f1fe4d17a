"""What a start leaves out, 17 MB: packages that others import and few processes use (docs/reference/benchmarks.md).

An assistant of one's own may use any of them, so nothing is left out of its process.
"""

import sys
from types import ModuleType

from pydantic import BaseModel

from everturn.models.providers import put_off
from everturn.settings import Settings


def leave_out(settings: Settings) -> None:
    """Call it once, before the services and the SDKs are imported."""
    if settings.assistant is not None:
        return
    # Most models of FastAPI, AG-UI and the SDKs are never used: each is built at its first use.
    BaseModel.model_config["defer_build"] = True
    if "aiohttp" not in sys.modules:
        _import_dapr_without_aiohttp()
    _leave_out_of_agents()


def _import_dapr_without_aiohttp() -> None:
    """Dapr's SDK uses it in clients that nothing here makes; when it is imported, in an annotation alone."""
    put_off("aiohttp")
    names = vars(sys.modules["aiohttp"])
    names["ClientResponse"] = object
    import dapr.ext.workflow  # noqa: F401, PLC0415 - it must find the name

    del names["ClientResponse"]


def _leave_out_of_agents() -> None:
    """Another HTTP client, and MCP servers."""
    # The OpenAI SDK does without it (openai/_base_client.py).
    sys.modules.setdefault("openai._vendor.httpx_aiohttp", None)  # type: ignore[arg-type]
    # All that the Agents SDK takes of MCP when it is imported is the class of an error (agents/mcp/_compat.py).
    errors = ModuleType("mcp.shared.exceptions")
    errors.MCPError = type("MCPError", (Exception,), {})  # type: ignore[attr-defined]
    sys.modules.setdefault(errors.__name__, errors)
