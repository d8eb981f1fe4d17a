"""The Agents SDK's chat completions model over one long-lived client. Importing this takes seconds: do it late."""

from agents import OpenAIChatCompletionsModel
from openai import AsyncOpenAI, Omit

from everturn.models.endpoint import Endpoint, http_client


class EndpointModel(OpenAIChatCompletionsModel):
    """A model at `endpoint`. It never retries by itself: the step's policy governs."""

    def __init__(self, endpoint: Endpoint) -> None:
        # The client insists on some key, and takes keys and ids for OpenAI's own cloud from the environment.
        headers: dict[str, str | Omit] = {"OpenAI-Organization": Omit(), "OpenAI-Project": Omit()}
        if endpoint.api_key is None:
            headers["Authorization"] = Omit()
        client = AsyncOpenAI(
            base_url=endpoint.base_url,
            api_key=endpoint.api_key or "none",
            max_retries=0,
            default_headers=headers,  # type: ignore[arg-type] # Omit works, and is the documented way to leave one out
            http_client=http_client(endpoint),
        )
        super().__init__(endpoint.model_name, client)
        self._long_lived_client = client

    async def close(self) -> None:
        """Close the client's connections."""
        await self._long_lived_client.close()
