"""What is made of the workflow engine's errors."""

import grpc
import pytest

from everturn.sidecar.workflow_errors import read_whole

TORN = "workflow 'x': inbox key 'inbox-000000' declared in metadata (inboxLength=1) but missing from state store"


class EngineError(grpc.RpcError):
    def __init__(self, details: str) -> None:
        super().__init__(details)
        self._details = details

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNKNOWN

    def details(self) -> str:
        return self._details


class Reads:
    """A read that fails with each of `errors` in turn, then gives "whole"."""

    def __init__(self, *errors: str) -> None:
        self.errors = list(errors)

    async def __call__(self) -> str:
        if self.errors:
            raise EngineError(self.errors.pop(0))
        return "whole"


async def test_a_read_that_fell_into_a_write_is_done_again() -> None:
    reads = Reads(TORN, TORN)

    assert await read_whole(reads) == "whole"


async def test_an_instance_that_stays_torn_is_an_error() -> None:
    reads = Reads(*[TORN] * 1_000)

    with pytest.raises(EngineError):
        await read_whole(reads)


async def test_any_other_error_of_a_read_is_told_at_once() -> None:
    reads = Reads("something else", TORN)

    with pytest.raises(EngineError, match="something else"):
        await read_whole(reads)
    assert reads.errors == [TORN]
