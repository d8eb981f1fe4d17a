"""What a failed call of the task hub answers: a gRPC status and Dapr's words for it."""

import grpc


class RpcFault(Exception):
    """`details` is what a client sees; clients of the SDK look for some of Dapr's phrases in it."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


NO_SUCH_INSTANCE = "no such instance exists"


def unknown(details: str) -> RpcFault:
    """What daprd answers for most errors of its workflow engine."""
    return RpcFault(grpc.StatusCode.UNKNOWN, details)


def not_found(details: str) -> RpcFault:
    return RpcFault(grpc.StatusCode.NOT_FOUND, details)


def invalid_argument(details: str) -> RpcFault:
    return RpcFault(grpc.StatusCode.INVALID_ARGUMENT, details)


def already_exists(details: str) -> RpcFault:
    return RpcFault(grpc.StatusCode.ALREADY_EXISTS, details)


def unavailable(details: str) -> RpcFault:
    return RpcFault(grpc.StatusCode.UNAVAILABLE, details)


def cancelled(details: str) -> RpcFault:
    return RpcFault(grpc.StatusCode.CANCELLED, details)
