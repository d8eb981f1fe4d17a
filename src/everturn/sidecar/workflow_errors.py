"""What the workflow engine's gRPC errors mean: the one place that knows their codes and texts.

Source: durabletask-go's backend, and what Dapr 1.18.0 was seen to answer.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import grpc

from everturn.errors import TransientError

T = TypeVar("T")

# A read takes about as long as the write that it falls into.
_READS = 10


@contextmanager
def sorted_workflow_errors() -> Iterator[None]:
    """Around calls of a `WorkflowClient`: any gRPC error becomes a TransientError (kind `workflow_engine`)."""
    try:
        yield
    except grpc.RpcError as error:
        code = error.code()
        raise TransientError(
            f"the workflow engine answered {code.name if code else 'nothing'}", kind="workflow_engine"
        ) from error


def already_runs(error: grpc.RpcError) -> bool:
    """Whether a start was refused because the instance is active: ALREADY_EXISTS, or UNKNOWN with this text."""
    return error.code() == grpc.StatusCode.ALREADY_EXISTS or "already exists" in (error.details() or "")


def is_missing(error: grpc.RpcError) -> bool:
    """Whether there is no such instance: NOT_FOUND, or UNKNOWN with this text."""
    return error.code() == grpc.StatusCode.NOT_FOUND or "no such instance" in (error.details() or "")


async def read_whole(read: Callable[[], Awaitable[T]]) -> T:
    """What `read` gives, read again where it fell into a write of its instance.

    Dapr reads the keys of an instance one after the other, without the workflow's lock, and where they do not fit
    together it says UNKNOWN (pkg/runtime/wfengine/state/state.go of 1.18.0; seen on Redis).
    """
    for _ in range(_READS - 1):
        try:
            return await read()
        except grpc.RpcError as error:
            if not _is_torn(error):
                raise
    return await read()


def _is_torn(error: grpc.RpcError) -> bool:
    return "missing from state store" in (error.details() or "")
