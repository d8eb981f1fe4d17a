"""The Agents SDK's chat completions model over one long-lived client. Importing this takes seconds: do it late."""

from agents import OpenAIChatCompletionsModel
from openai import AsyncOpenAI

from everturn.models.endpoint import Endpoint, http_client
from everturn.models.secret_key import SecretKey


class EndpointModel(OpenAIChatCompletionsModel):
    """A model at `endpoint`, whose key may come from `secret_key`. It never retries by itself: the step's policy
    governs."""

    def __init__(self, endpoint: Endpoint, secret_key: SecretKey | None = None) -> None:
        client = AsyncOpenAI(
            base_url=endpoint.base_url,
            api_key="none",  # it insists on one; the key is sent by http_client
            max_retries=0,
            http_client=http_client(endpoint, secret_key),
        )
        super().__init__(endpoint.model_name, client)
        self._long_lived_client = client

    async def close(self) -> None:
        """Close the client's connections."""
        await self._long_lived_client.close()
