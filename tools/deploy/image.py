"""The Dockerfile: hadolint's rules, and what it has to agree with. It is read, not built: that needs its base image."""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.deploy.facts import SERVICES, SETTING_NAMES, is_secret

DOCKERFILE = "deploy/Dockerfile"
_IGNORE = "deploy/Dockerfile.dockerignore"
_ASSIGNED = re.compile(r"(\w+)=")


@dataclass(frozen=True, slots=True)
class Instruction:
    name: str
    text: str


def image_faults(root: Path) -> Iterator[str]:
    """A sentence for each fault of the Dockerfile and of what is sent to its builder."""
    yield from _lint(root / DOCKERFILE)
    instructions = list(_instructions((root / DOCKERFILE).read_text("utf-8")))
    stages = [at for at, each in enumerate(instructions) if each.name == "FROM"]
    if len(stages) < 2:
        yield f"{DOCKERFILE}: one stage: what builds the image would stay in it"
    yield from _last_stage_faults(instructions[stages[-1] :])
    yield from _copy_faults(root, instructions)
    for each in instructions:
        if each.name in ("ARG", "ENV"):
            yield from _variable_faults(each)
    installed = re.search(r"UV_VERSION=(\S+)", (root / DOCKERFILE).read_text("utf-8"))
    pinned = re.search(r"^UV_VERSION=(\S+)", (root / "tools/setup.sh").read_text("utf-8"), re.MULTILINE)
    if installed is None or pinned is None or installed[1] != pinned[1]:
        yield f"{DOCKERFILE}: its uv is not the one of tools/setup.sh"


def _lint(dockerfile: Path) -> Iterator[str]:
    hadolint = Path(sys.executable).parent / "hadolint"
    if not hadolint.is_file():
        yield "hadolint is missing: run make check, which installs it"
        return
    done = subprocess.run([str(hadolint), "--no-color", str(dockerfile)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        # With the path of this machine's folder taken off.
        lines = (done.stdout + done.stderr).splitlines()
        yield from (line.replace(str(dockerfile), DOCKERFILE) for line in lines if line)


def _instructions(text: str) -> Iterator[Instruction]:
    """https://docs.docker.com/reference/dockerfile/#format; hadolint has found it well formed."""
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        name, _, rest = line.strip().partition(" ")
        if name:
            yield Instruction(name.upper(), rest.strip())


def _last_stage_faults(stage: list[Instruction]) -> Iterator[str]:
    users = [each.text for each in stage if each.name == "USER"]
    # A number, because Kubernetes' runAsNonRoot cannot look a name up.
    if not users or not re.fullmatch(r"[1-9]\d*(:[1-9]\d*)?", users[-1]):
        yield f"{DOCKERFILE}: USER must be the number of a user other than root"
    for needed in ("HEALTHCHECK", "ENTRYPOINT", "CMD"):
        if not any(each.name == needed for each in stage):
            yield f"{DOCKERFILE}: {needed} is missing in the last stage"
    exposed = {port for each in stage if each.name == "EXPOSE" for port in each.text.split()}
    for service in SERVICES:
        if str(service.port) not in exposed:
            yield f"{DOCKERFILE}: EXPOSE lacks {service.port}, the port of {service.name}"


def _copy_faults(root: Path, instructions: list[Instruction]) -> Iterator[str]:
    ignore = (root / _IGNORE).read_text("utf-8").splitlines()
    if "*" not in ignore:
        yield f"{_IGNORE}: must begin with *, so that only what is named reaches the builder"
    for each in instructions:
        if each.name not in ("COPY", "ADD") or "--from=" in each.text:
            continue
        for source in each.text.split()[:-1]:
            if not (root / source).exists():
                yield f"{DOCKERFILE}: there is no {source} to copy"
            if f"!{source}" not in ignore:
                yield f"{_IGNORE}: keeps {source} from the builder"


def _variable_faults(instruction: Instruction) -> Iterator[str]:
    names = _ASSIGNED.findall(instruction.text) or [instruction.text]
    for name in names:
        if is_secret(name):
            yield f"{DOCKERFILE}: {instruction.name} {name} would bake a secret into the image"
        if name.startswith("EVERTURN_") and name not in SETTING_NAMES:
            yield f"{DOCKERFILE}: {name} is no setting"
