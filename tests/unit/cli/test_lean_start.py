import subprocess
import sys

_START = """
import sys
from everturn.cli.lean_start import leave_out
from everturn.settings import Settings
settings = Settings({given})
leave_out(settings)
import everturn.cli.up
from everturn.chat.assistant.agent import Assistant
from everturn.models.providers import build_model
Assistant(build_model(settings, "chat"))
"""


def after_start(program: str, **given: str) -> list[str]:
    """What `program` prints behind the imports of a start with these settings, in an interpreter of its own."""
    start = _START.format(given=", ".join(f"{name}={value!r}" for name, value in given.items()))
    done = subprocess.run([sys.executable, "-c", start + program], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_start_imports_nothing_that_only_an_assistant_of_ones_own_can_use() -> None:
    loaded = 'print([name for name in ("aiohttp.client", "mcp_types", "mcp.client") if name in sys.modules])'

    assert after_start(loaded) == ["[]"]
    assert after_start(loaded, model_base_url="http://127.0.0.1:9/v1", model_name="llama") == ["[]"]


def test_what_a_start_puts_off_is_there_for_a_sidecar(unused_tcp_port: int) -> None:
    program = f"""
import asyncio
from everturn.dapr.http_transport import HttpTransport
from everturn.dapr.wire import Request
from everturn.errors import TransientError
async def ask():
    transport = HttpTransport("http://127.0.0.1:{unused_tcp_port}")
    try:
        await transport.send(Request("GET", "/"))
    except TransientError as error:
        print(error.kind)
    await transport.close()
asyncio.run(ask())
"""

    assert after_start(program) == ["unreachable"]


def test_an_assistant_of_ones_own_has_the_whole_of_every_package() -> None:
    program = """
from aiohttp import ClientResponse
import mcp.shared.exceptions
import mcp_types
from openai import DefaultAioHttpClient
print(ClientResponse.__module__, "aiohttp.client" in sys.modules)
print(mcp.shared.exceptions.MCPError(1, "away").error == mcp_types.ErrorData(code=1, message="away"))
print(DefaultAioHttpClient.__mro__[1].__name__)
"""

    lines = after_start(program, assistant="agents_of_mine:agent")

    assert lines == ["aiohttp.client_reqrep True", "True", "Httpx2AiohttpClient"]


def test_a_wrong_model_of_an_assistant_of_ones_own_fails_the_start_not_a_turn() -> None:
    program = """
from pydantic import BaseModel, PydanticSchemaGenerationError
class Place: ...
try:
    class Wish(BaseModel):
        place: Place
except PydanticSchemaGenerationError:
    print("refused")
"""

    assert after_start(program, assistant="agents_of_mine:agent") == ["refused"]


def test_models_are_built_when_they_are_used_and_check_as_before() -> None:
    program = """
from pydantic import ValidationError
from everturn.contracts.chat import Message
try:
    Message.model_validate({"user_id": "a"})
except ValidationError as error:
    print(error.errors()[0]["loc"])
from fastapi.openapi.models import OpenAPI
print(OpenAPI.__pydantic_complete__)
"""

    assert after_start(program) == ["('text',)", "False"]
