"""No committed file names a folder of somebody's machine: it would be wrong on every other one."""

import re
import subprocess
import sys
from pathlib import Path

_MACHINE_PATH = re.compile(r"(?<![\w.)}])/(?:root|work|Users|home/[a-z])[\w/]")
_NOT_OURS = {"uv.lock"}


def machine_paths(path: Path) -> list[str]:
    """`file:line` of each line of `path` that holds such a folder; nothing for a file that is not text."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except UnicodeDecodeError:
        return []
    return [f"{path}:{number}" for number, line in enumerate(lines, 1) if _MACHINE_PATH.search(line)]


def main() -> int:
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        print("paths: skipped, this is no git clone")
        return 0
    names = [name for name in listed.stdout.split("\0") if name and name not in _NOT_OURS]
    faults = [fault for name in names if Path(name).is_file() for fault in machine_paths(Path(name))]
    for fault in faults:
        print(f"{fault}: a path of one machine")
    print(f"paths: {len(faults)} of one machine" if faults else "paths: fine")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
