"""Check the files of deploy/: each by a validator made for it, and all of them against one another and the code.

Run as `python -m tools.check_deploy` in the project's folder.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from tools.deploy.components import component_faults
from tools.deploy.compose import compose_faults
from tools.deploy.image import image_faults
from tools.deploy.kubernetes import kubernetes_faults


def deploy_faults(root: Path) -> Iterator[str]:
    """A sentence for each fault in the deploy/ of the project in `root`."""
    for check in (image_faults, compose_faults, kubernetes_faults, component_faults):
        yield from check(root)


def main() -> int:
    faults = list(deploy_faults(Path.cwd()))
    for fault in faults:
        print(fault)
    print(f"deploy: {len(faults)} faults" if faults else "deploy: fine")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
