"""The errors of Dapr's API: a status, a stable code and a sentence (https://docs.dapr.io/reference/errors/)."""

from everturn.errors import EverturnError


class DaprError(EverturnError):
    """Becomes the response `{"errorCode": code, "message": message}` with `status`.

    Codes and statuses are those of dapr/dapr pkg/messages and pkg/api/errors, as seen on 1.18.
    """

    kind = "dapr_error"

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def malformed(message: str) -> DaprError:
    """400: the request is not what the API asks for."""
    return DaprError(400, "ERR_MALFORMED_REQUEST", message)
