"""Files for browsers, and `/docs`: Swagger UI over the service's OpenAPI document, with nothing from elsewhere.

The files of Swagger UI are those of the package `fastapi-swagger`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "mjs": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
    "LICENSE": "text/plain; charset=utf-8",
}
# Nothing but our own files runs or is shown (https://www.w3.org/TR/CSP3/).
OWN_FILES = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
_HEADERS = {
    # Looked up again each time, by ETag: a page and the scripts of another release do not fit together.
    "cache-control": "no-cache",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}

DOCS_PATH = "/docs"
_SCRIPT, _STYLE, _ICON, _START = (
    f"{DOCS_PATH}/{name}" for name in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png", "start.js")
)
DOCS_PATHS = frozenset({DOCS_PATH, _SCRIPT, _STYLE, _ICON, _START})
# The icons in Swagger UI's style sheet are data.
_DOCS_POLICY = f"{OWN_FILES}; img-src 'self' data:"
_DOCS_PAGE = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{title}}</title>
<link rel="icon" href="{_ICON}">
<link rel="stylesheet" href="{_STYLE}">
<div id="swagger-ui"></div>
<script src="{_SCRIPT}"></script>
<script src="{_START}"></script>
</html>
"""


def is_served(name: str) -> bool:
    """Whether files by that name have a type to be served with."""
    return _ending(name) in _TYPES


@dataclass(frozen=True, slots=True)
class BrowserFile:
    body: bytes
    headers: Mapping[str, str]

    @classmethod
    def of(cls, body: bytes, name: str, policy: str = OWN_FILES) -> "BrowserFile":
        """A file by that name, of which `policy` says what it may load (Content-Security-Policy)."""
        etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        own = {"content-type": _TYPES[_ending(name)], "content-security-policy": policy, "etag": etag}
        return cls(body, {**_HEADERS, **own})

    def answer(self, request: Request) -> Response:
        """The file, or 304 if the browser has it."""
        known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
        is_known = self.headers["etag"] in known
        return Response(b"" if is_known else self.body, 304 if is_known else 200, dict(self.headers))


def add_docs_routes(router: APIRouter, title: str, openapi_url: str) -> None:
    """`/docs` and its files."""
    start = {"url": openapi_url, "dom_id": "#swagger-ui", "deepLinking": True}
    own = {
        DOCS_PATH: BrowserFile.of(_DOCS_PAGE.format(title=escape(title)).encode(), "docs.html", _DOCS_POLICY),
        _START: BrowserFile.of(f"SwaggerUIBundle({json.dumps(start)})\n".encode(), _START),
    }

    async def docs(request: Request) -> Response:
        path = request.url.path
        return (own[path] if path in own else _swagger_file(path)).answer(request)

    for path in sorted(DOCS_PATHS):
        router.add_api_route(path, docs, methods=["GET"], include_in_schema=False)


@cache
def _swagger_file(path: str) -> BrowserFile:
    """Read when it is first asked for: few starts see it."""
    name = path.rpartition("/")[2]
    return BrowserFile.of(files("fastapi_swagger.resources").joinpath(name).read_bytes(), name)


def _ending(name: str) -> str:
    return name.rpartition(".")[2]
