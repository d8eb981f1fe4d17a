"""The apps that the runtime can reach, each by a transport."""

from collections.abc import Callable
from dataclasses import dataclass, field

from everturn.dapr.wire import Request, Response, Transport


@dataclass(slots=True)
class AppChannel:
    """The way to one app.

    `app_token` goes with every request, so that the app can tell its sidecar from others (APP_API_TOKEN,
    https://docs.dapr.io/operations/security/app-api-token/).
    """

    app_id: str
    transport: Transport
    app_token: str | None = None

    async def send(self, request: Request) -> Response:
        """The app's answer. Raises TransientError if none came."""
        if self.app_token is not None:
            request = Request(
                request.method, request.target, {**request.headers, "dapr-api-token": self.app_token}, request.body
            )
        return await self.transport.send(request)


@dataclass(slots=True)
class AppChannels:
    """By app id. `elsewhere` finds apps of other runtimes, if there are any."""

    by_id: dict[str, AppChannel] = field(default_factory=dict)
    elsewhere: Callable[[str], AppChannel | None] | None = None

    def add(self, channel: AppChannel) -> None:
        self.by_id[channel.app_id] = channel

    def find(self, app_id: str) -> AppChannel | None:
        channel = self.by_id.get(app_id)
        return self.elsewhere(app_id) if channel is None and self.elsewhere is not None else channel
