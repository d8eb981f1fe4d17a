import subprocess
import sys

import pytest

from everturn.models.endpoint import endpoint_of, model_name
from everturn.models.providers import build_model
from everturn.settings import GEMINI_BASE_URL, GEMINI_MODEL_NAME, Settings


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GEMINI_API_KEY", "EVERTURN_MODEL_BASE_URL", "EVERTURN_MODEL_NAME", "EVERTURN_MODEL_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def settings(**given: str) -> Settings:
    return Settings.model_validate(given)


OWN = {"model_base_url": "http://127.0.0.1:9/v1", "model_name": "llama"}


def test_without_a_key_the_model_is_the_offline_demo() -> None:
    assert model_name(settings()) == "offline-demo"


@pytest.mark.parametrize(
    ("beside", "base_url", "name", "key"),
    [
        pytest.param({}, GEMINI_BASE_URL, GEMINI_MODEL_NAME, "k", id="the key alone means Gemini"),
        pytest.param({"model_name": "gemini-3"}, GEMINI_BASE_URL, "gemini-3", "k", id="a name is that of its model"),
        pytest.param(OWN, OWN["model_base_url"], OWN["model_name"], None, id="one's own wins and gets no key of it"),
    ],
)
def test_a_key_of_gemini_is_for_gemini(beside: dict[str, str], base_url: str, name: str, key: str | None) -> None:
    endpoint = endpoint_of(settings(gemini_api_key="k", **beside))

    assert endpoint is not None
    assert (endpoint.base_url, endpoint.model_name, endpoint.api_key) == (base_url, name, key)


def test_the_name_of_the_model_is_the_configured_one() -> None:
    assert model_name(settings(**OWN)) == "llama"


def test_a_key_does_not_show_when_an_endpoint_is_printed() -> None:
    assert "canary" not in repr(endpoint_of(settings(gemini_api_key="canary")))


@pytest.mark.parametrize("given", [{}, OWN, {"gemini_api_key": "k"}])
async def test_models_are_built_and_closed_without_a_network(given: dict[str, str]) -> None:
    for model in (build_model(settings(**given), "chat"), build_model(settings(**given), "summary")):
        await model.close()


def test_importing_the_rooms_imports_neither_sdk() -> None:
    modules = (
        "everturn.models.providers, everturn.models.summarizer, everturn.models.faults, everturn.chat.assistant.agent"
    )
    program = f"import sys, {modules}; print([name for name in ('agents', 'openai') if name in sys.modules])"

    assert run(program) == "[]"


def run(program: str) -> str:
    """What a program prints, in an interpreter of its own: what is imported here must not count."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_without_servers_of_tools_their_package_is_never_run() -> None:
    program = """
import sys
from everturn.chat.assistant.agent import Assistant
from everturn.models.providers import build_model
from everturn.settings import Settings
Assistant(build_model(Settings(), "chat"))
print("agents" in sys.modules, "mcp.client" in sys.modules)
"""

    assert run(program) == "True False"


def test_servers_of_tools_have_all_of_their_package() -> None:
    program = """
from everturn.models.providers import prepare_sdk
prepare_sdk()
import mcp.client.session
from agents.mcp import MCPServerStdio
import mcp
print(MCPServerStdio.__name__, mcp.ClientSession is mcp.client.session.ClientSession, mcp.shared.exceptions.__name__)
try:
    mcp.unknown
except AttributeError as error:
    print(error)
"""

    assert run(program).splitlines() == [
        "MCPServerStdio True mcp.shared.exceptions",
        "module 'mcp' has no attribute 'unknown'",
    ]
