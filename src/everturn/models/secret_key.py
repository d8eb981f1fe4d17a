"""The endpoint's key from the sidecar's secret store, by name."""

from everturn.errors import TerminalError, TransientError
from everturn.settings import Settings
from everturn.sidecar.client import DaprClient

SECRET_STORE = "secretstore"  # noqa: S105 - the name of a component
# Looked for where no setting names a secret.
_USUAL_NAME = "EVERTURN_MODEL_API_KEY"


class SecretKey:
    """Reads the key when a call first needs it, and keeps it: a sidecar may start after its service."""

    def __init__(self, dapr: DaprClient, name: str | None) -> None:
        self._dapr = dapr
        self._name = name
        self._key: str | None = None
        self._is_known = False

    async def read(self) -> str | None:
        """The key, None where there is none.

        Raises TransientError where the sidecar cannot be reached; where a setting names the secret, also TransientError
        where the store does not find it and TerminalError where it will not give it.
        """
        if not self._is_known:
            self._key = await (self._usual() if self._name is None else self._named(self._name))
            self._is_known = True
        return self._key

    async def _named(self, name: str) -> str:
        key = await self._dapr.secret(SECRET_STORE, name)
        if not key:
            raise TransientError(f"the secret {name!r} of the store {SECRET_STORE!r} is empty", kind="no_key")
        return key

    async def _usual(self) -> str | None:
        """A sidecar that answers and has no such store or secret has no key: many endpoints ask for none."""
        try:
            return await self._dapr.secret(SECRET_STORE, _USUAL_NAME) or None
        except TerminalError:
            return None
        except TransientError as error:
            if error.kind != "http_500":
                raise
            return None


def secret_key_of(settings: Settings, dapr: DaprClient) -> SecretKey | None:
    """Where the key of the settings' own endpoint comes from; None where the environment has it, or none is needed."""
    if settings.model_base_url is None or settings.model_api_key is not None:
        return None
    return SecretKey(dapr, settings.model_api_key_secret)
