"""What is put off is not loaded until it is used, and is then what it would have been."""

import subprocess
import sys
from pathlib import Path

_SLOW = """
from . import part
from .part import LOADED
import slow
assert slow.LOADED is LOADED
VALUE = "value"
def __getattr__(name):
    if name == "computed":
        return "computed"
    raise AttributeError(name)
"""


def _run(program: str, *, folder: Path) -> str:
    """What `program` prints, in an interpreter of its own: what is imported here must not count."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\nsys.path.insert(0, {str(folder)!r})\n{program}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _package(folder: Path, code: str = _SLOW) -> Path:
    package = folder / "slow"
    package.mkdir()
    (package / "__init__.py").write_text(code)
    (package / "part.py").write_text("LOADED = []")
    (package / "small.py").write_text("ONLY = 1")
    return folder


def test_the_agents_sdk_is_there_without_the_package_that_no_turn_needs(tmp_path: Path) -> None:
    program = """
from everturn.models.sdk import prepare_sdk
prepare_sdk()
import agents
print(agents.Agent.__name__, "mcp.client" in sys.modules, "mcp.server" in sys.modules)
"""

    printed = _run(program, folder=tmp_path)

    assert printed == "Agent False False"


def test_an_mcp_server_for_an_agent_loads_the_package(tmp_path: Path) -> None:
    program = """
from everturn.models.sdk import prepare_sdk
prepare_sdk()
from agents.mcp import MCPServerStdio
import mcp
print(MCPServerStdio.__name__, mcp.ClientSession.__name__, mcp.types.Tool.__name__)
"""

    printed = _run(program, folder=tmp_path)

    assert printed == "MCPServerStdio ClientSession Tool"


def test_a_submodule_is_imported_without_its_package(tmp_path: Path) -> None:
    program = """
from everturn.models.put_off import put_off
put_off("slow")
import slow.small
print(slow.small.ONLY, "slow.part" in sys.modules)
"""

    printed = _run(program, folder=_package(tmp_path))

    assert printed == "1 False"


def test_its_first_use_loads_it_as_any_import_does(tmp_path: Path) -> None:
    program = """
from everturn.models.put_off import put_off
put_off("slow")
from slow import VALUE
import slow
print(VALUE, slow.computed, slow is sys.modules["slow"], slow.part.LOADED, hasattr(slow, "missing"))
"""

    printed = _run(program, folder=_package(tmp_path))

    assert printed == "value computed True [] False"


def test_a_package_that_cannot_be_loaded_says_so_at_each_use(tmp_path: Path) -> None:
    program = """
from everturn.models.put_off import put_off
put_off("slow")
import slow
for _ in range(2):
    try:
        slow.VALUE
    except ZeroDivisionError:
        print("failed")
"""

    printed = _run(program, folder=_package(tmp_path, "1 / 0"))

    assert printed.split() == ["failed", "failed"]


def test_threads_that_use_it_at_once_all_wait_until_it_is_loaded(tmp_path: Path) -> None:
    code = "begun.set()\nmay_end.wait()\nVALUE = 1"
    program = """
import threading, builtins
from concurrent.futures import ThreadPoolExecutor
from everturn.models.put_off import put_off
builtins.begun, builtins.may_end, trying = threading.Event(), threading.Event(), threading.Event()
put_off("slow")
import slow
with ThreadPoolExecutor(2) as threads:
    first = threads.submit(lambda: slow.VALUE)
    begun.wait()
    second = threads.submit(lambda: trying.set() or slow.VALUE)
    trying.wait()
    may_end.set()
    print(first.result(), second.result())
"""

    printed = _run(program, folder=_package(tmp_path, code))

    assert printed == "1 1"


def test_what_is_not_installed_or_loaded_already_is_left_alone(tmp_path: Path) -> None:
    program = """
import json
from everturn.models.put_off import put_off
put_off("json")
put_off("no_such_package_here")
print(sys.modules["json"] is json, "no_such_package_here" in sys.modules)
"""

    printed = _run(program, folder=tmp_path)

    assert printed == "True False"
