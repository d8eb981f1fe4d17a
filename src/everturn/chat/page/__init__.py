"""The page that browsers get at `/`: its files, and what it needs besides the API.

Plain files in this folder, served as they are: no build step, nothing from outside. They are public; the calls that the
page makes sign in as those of every other client do.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from everturn.contracts.fields import Id
from everturn.contracts.memory import UserMemory
from everturn.errors import TerminalError
from everturn.web.callers import CallerOf
from everturn.web.files import OWN_FILES, BrowserFile, is_served
from everturn.web.problems import problem_responses

# Besides what all files of a service may do: no text becomes markup without being sanitised
# (https://www.w3.org/TR/trusted-types/).
_POLICY = f"{OWN_FILES}; require-trusted-types-for 'script'; trusted-types dompurify"
_INDEX = "/page/index.html"


@dataclass(frozen=True, slots=True)
class Page:
    """The files by their paths."""

    files: Mapping[str, BrowserFile]

    @property
    def paths(self) -> frozenset[str]:
        return frozenset(self.files)

    def index(self, request: Request) -> Response:
        """The page itself."""
        answer = self.files[_INDEX].answer(request)
        answer.headers["vary"] = "accept"  # the same address has the welcome for programs
        return answer

    async def file(self, request: Request) -> Response:
        """The file of a request's path. Raises TerminalError (kind `not_found`)."""
        found = self.files.get(request.url.path)
        if found is None:
            raise TerminalError(f"no file {request.url.path!r}", kind="not_found")
        return found.answer(request)


@cache
def page_for(auth: str) -> Page:
    """The page of a service whose users sign in by `auth` (`EVERTURN_AUTH`), which its markup names."""
    folder = Path(__file__).parent
    files = [file for file in folder.rglob("*") if is_served(file.name)]
    found = {f"/page/{file.relative_to(folder).as_posix()}": file.read_bytes() for file in files}
    found[_INDEX] = found[_INDEX].replace(b'data-auth=""', f'data-auth="{auth}"'.encode())
    return Page({path: BrowserFile.of(body, path, _POLICY) for path, body in found.items()})


class SignedIn(BaseModel):
    """Who calls: a user, an operator, or anybody where nobody signs in."""

    user_id: str | None
    operator: bool


class Remembered(UserMemory):
    """What is remembered of a user, and which user that is."""

    user_id: str


def add_page_routes(router: APIRouter, page: Page, memory_of: Callable[[str], Awaitable[Mapping[str, str]]]) -> None:
    """`/page/…`, `GET /caller` and `GET /memory`, so that the page needs no other origin than its own."""

    async def get_caller(caller: CallerOf) -> SignedIn:
        return SignedIn(user_id=caller.user_id, operator=caller.operator)

    async def get_memory(
        caller: CallerOf,
        user_id: Annotated[Id | None, Query(description="Needed if nobody signs in; else the caller.")] = None,
    ) -> Remembered:
        user = caller.acts_for(user_id, "query.user_id")
        return Remembered(user_id=user, **await memory_of(user))

    router.add_api_route("/page/{path:path}", page.file, methods=["GET"], include_in_schema=False)
    router.add_api_route("/caller", get_caller, methods=["GET"], tags=["memory"], summary="Who is signed in")
    router.add_api_route(
        "/memory",
        get_memory,
        methods=["GET"],
        tags=["memory"],
        summary="What is remembered of the caller",
        responses=problem_responses(403, 503),
    )
