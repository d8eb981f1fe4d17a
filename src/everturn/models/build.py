"""The models of a process, from its settings. Nothing here needs a key; what is heavy is imported when it is used."""

from typing import TYPE_CHECKING

from everturn.models.endpoint import endpoint_of
from everturn.models.sdk import prepare_sdk
from everturn.settings import OFFLINE_MODEL_NAME, Settings

if TYPE_CHECKING:
    from agents import Model


def model_name(settings: Settings) -> str:
    """What `ChatReply.model` shows: the configured name, `offline-demo` without an endpoint."""
    endpoint = endpoint_of(settings)
    return endpoint.model_name if endpoint else OFFLINE_MODEL_NAME


def build_chat_model(settings: Settings) -> "Model":
    """The model that answers chat turns. `await model.close()` when the service stops."""
    prepare_sdk()
    if endpoint := endpoint_of(settings):
        from everturn.models.endpoint_model import EndpointModel  # noqa: PLC0415 - imported late, see prepare_sdk

        return EndpointModel(endpoint)
    from everturn.models.offline.chat_model import OfflineChatModel  # noqa: PLC0415 - imported late, see prepare_sdk

    return OfflineChatModel()


def build_summary_model(settings: Settings) -> "Model":
    """The model that refreshes summaries. `await model.close()` when the service stops."""
    prepare_sdk()
    if endpoint := endpoint_of(settings):
        from everturn.models.endpoint_model import EndpointModel  # noqa: PLC0415 - imported late, see prepare_sdk

        return EndpointModel(endpoint)
    from everturn.models.offline.summary_model import (  # noqa: PLC0415 - imported late, see prepare_sdk
        OfflineSummaryModel,
    )

    return OfflineSummaryModel()
