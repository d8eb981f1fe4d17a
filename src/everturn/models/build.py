"""The models of a process, from its settings. Nothing here needs a key; what is heavy is imported when it is used."""

from typing import TYPE_CHECKING

from everturn.models.endpoint import endpoint_of
from everturn.models.sdk import prepare_sdk
from everturn.models.secret_key import SecretKey
from everturn.settings import OFFLINE_MODEL_NAME, Settings

if TYPE_CHECKING:
    from agents import Model


def model_name(settings: Settings) -> str:
    """What `ChatReply.model` shows: the configured name, `offline-demo` without an endpoint."""
    endpoint = endpoint_of(settings)
    return endpoint.model_name if endpoint else OFFLINE_MODEL_NAME


def build_chat_model(settings: Settings, secret_key: SecretKey | None = None) -> "Model":
    """The model that answers chat turns, with a key of `secret_key` where the settings have none.

    `await model.close()` when the service stops.
    """
    prepare_sdk()
    if endpoint := endpoint_of(settings):
        from everturn.models.endpoint_model import EndpointModel  # noqa: PLC0415 - imported late, see prepare_sdk

        return EndpointModel(endpoint, secret_key)
    from everturn.models.offline.chat_model import OfflineChatModel  # noqa: PLC0415 - imported late, see prepare_sdk

    return OfflineChatModel()


def build_summary_model(settings: Settings, secret_key: SecretKey | None = None) -> "Model":
    """The model that refreshes summaries; as `build_chat_model`."""
    prepare_sdk()
    if endpoint := endpoint_of(settings):
        from everturn.models.endpoint_model import EndpointModel  # noqa: PLC0415 - imported late, see prepare_sdk

        return EndpointModel(endpoint, secret_key)
    from everturn.models.offline.summary_model import (  # noqa: PLC0415 - imported late, see prepare_sdk
        OfflineSummaryModel,
    )

    return OfflineSummaryModel()
