"""The OpenAI Agents SDK, imported late and kept quiet: no traces, no prompt or reply in its logs."""

import logging
import os
from functools import cache

from everturn.models.put_off import put_off

# The SDK reads these when it is imported (agents/_debug.py, agents/tracing/provider.py).
_QUIET = {
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
    "OPENAI_AGENTS_DONT_LOG_MODEL_DATA": "1",
    "OPENAI_AGENTS_DONT_LOG_TOOL_DATA": "1",
}
# The SDK takes one exception from a submodule of it (agents/mcp/_compat.py). The package itself, clients and servers of
# a protocol that no turn speaks, is 20 MB and half a second; an MCP server for an agent loads it.
_UNUSED_PACKAGE = "mcp"
# At DEBUG these write whole requests, prompt and all.
_LOGGERS = ("openai", "openai.agents", "httpx2", "httpcore2")


@cache
def prepare_sdk() -> None:
    """Import the Agents SDK, once, with its tracing off for good and its loggers at WARNING."""
    os.environ.update(_QUIET)
    put_off(_UNUSED_PACKAGE)
    import agents  # noqa: PLC0415 - takes seconds, so only where it is needed

    agents.set_tracing_disabled(True)
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(max(logging.WARNING, logger.level))
