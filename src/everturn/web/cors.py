"""Calls from browsers (https://fetch.spec.whatwg.org/#http-cors-protocol)."""

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from everturn.web.problems import Problem, problem_response


class Cors(CORSMiddleware):
    """Starlette's, with a refused preflight answered as every other error is."""

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        headers = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
        return problem_response(Problem(response.status_code, "This origin may not make such calls.", headers=headers))
