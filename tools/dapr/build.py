"""Build Dapr's sidecar, placement and scheduler from their Go modules, once, into a cache that `make clean` leaves.

`python tools/dapr/build.py` builds what is missing. Nothing but Go is needed: no Docker, no Dapr CLI.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# These go together (go.mod); the sidecar tells it in its metadata.
DAPR_VERSION = "1.18.0"
BINARIES = ("daprd", "placement", "scheduler")

_SOURCE = Path(__file__).parent
_FILES = ("go.mod", "go.sum", "health/health.go", *(f"{name}/main.go" for name in BINARIES))
_NO_GO = (
    "Dapr is built from its Go modules: install Go 1.26 or newer (https://go.dev/dl/) and run make again; "
    "with the Dapr CLI, `dapr run -f dapr.yaml` needs no build."
)


class BuildError(Exception):
    """The build cannot be done; the text says what to do."""


def binaries_folder() -> Path:
    """Where the binaries of these sources are, or will be: another version has another folder."""
    digest = hashlib.sha256(f"{platform.system()} {platform.machine()} {DAPR_VERSION}".encode())
    for name in _FILES:
        digest.update((_SOURCE / name).read_bytes())
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "everturn" / "dapr" / digest.hexdigest()[:16]


def are_built() -> bool:
    return all((binaries_folder() / name).is_file() for name in BINARIES)


def build() -> Path:
    """The folder of the binaries, built now if they are missing. Raises BuildError."""
    folder = binaries_folder()
    if are_built():
        return folder
    if shutil.which("go") is None:
        raise BuildError(_NO_GO)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BuildError(f"cannot write to {folder.parent}: set XDG_CACHE_HOME to a folder that is writable") from error
    _say(f"building Dapr {DAPR_VERSION} into {folder}; this takes about five minutes on two cores, once")
    began = time.monotonic()
    half_done = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        _compile(half_done)
        shutil.rmtree(folder, ignore_errors=True)
        half_done.rename(folder)  # whole or not at all: an interrupted build leaves nothing that counts
    finally:
        shutil.rmtree(half_done, ignore_errors=True)
    _say(f"built in {time.monotonic() - began:.0f} seconds")
    return folder


def _compile(into: Path) -> None:
    version = f"-s -w -X github.com/dapr/dapr/pkg/buildinfo.version={DAPR_VERSION}"
    packages = [f"./{name}" for name in BINARIES]
    command = ["go", "build", "-trimpath", "-ldflags", version, "-o", f"{into}{os.sep}", *packages]
    if subprocess.run(command, cwd=_SOURCE, check=False).returncode != 0:
        raise BuildError("Go could not build Dapr; what it said is above (a module that cannot be had: check GOPROXY)")


def _say(line: str) -> None:
    print(f"dapr: {line}", file=sys.stderr, flush=True)


def main() -> int:
    try:
        folder = build()
    except BuildError as error:
        _say(str(error))
        return 1
    _say(f"ready in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
