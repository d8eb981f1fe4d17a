"""What the files of deploy/ have to agree with: ports, names, limits and versions, read from the code itself."""

import re
from dataclasses import dataclass
from pathlib import Path

from everturn.contracts.events import CHAT_APP_ID, MEMORY_APP_ID
from everturn.settings import Settings, environment_name
from tools.dapr.commands import sidecar
from tools.dapr.layout import Layout, usual_ports

LIVENESS_PATH = "/healthz"
READINESS_PATH = "/readyz"

SETTING_NAMES = frozenset(map(environment_name, Settings.model_fields))
_SECRET_NAME = re.compile(r"(PASSWORD|TOKEN|KEY|SECRET)$")


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """A service of ours: its command and container, its app id, its port."""

    name: str
    app_id: str
    port: int


SERVICES = (
    ServiceFacts("chat", CHAT_APP_ID, int(Settings.model_fields["chat_port"].default)),
    ServiceFacts("memory", MEMORY_APP_ID, int(Settings.model_fields["memory_port"].default)),
)


def is_secret(name: str) -> bool:
    """Whether the environment variable `name` holds what nobody may read."""
    return _SECRET_NAME.search(name.upper()) is not None


def sidecar_limits() -> dict[str, str]:
    """The limits that a sidecar needs for the longest messages and ids, by the flag of daprd."""
    layout = Layout(Path("system"), usual_ports(SERVICES[0].port, SERVICES[1].port), Path("bin"), Path("components"))
    arguments = sidecar(layout, "chat", {}).arguments
    flags = ("--max-body-size", "--read-buffer-size")
    return {flag: arguments[arguments.index(flag) + 1] for flag in flags}
