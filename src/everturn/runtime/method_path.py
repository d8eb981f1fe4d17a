"""The path of an invocation on its way to the app, as Dapr 1.18 hands it on.

Its sources: pkg/api/http/directmessaging.go and pkg/messaging/method/normalize.go of github.com/dapr/dapr.
It is decoded once, cleaned, and made into a URL again: what is to arrive percent-encoded is sent encoded twice.
"""

import posixpath
import re
from urllib.parse import quote_from_bytes, unquote_to_bytes

_FORBIDDEN = re.compile(rb"[#?\x00-\x1f\x7f]")
_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
# What stands in a path as it is (RFC 3986 section 3.3), and the escapes that are left.
_AS_IT_IS = "/%-._~!$&'()*+,;=:@"


def onward_path(path: str) -> str:
    """The path that the app gets, for the path of the method as it was sent. Raises ValueError, which says why not."""
    method = unquote_to_bytes(path)
    if _FORBIDDEN.search(method):
        raise ValueError("method contains a forbidden character")
    # Rooted, so that dot segments end at the root; without the slash at the end.
    cleaned = posixpath.normpath(b"/" + method.lstrip(b"/"))
    if _BROKEN_ESCAPE.search(cleaned):
        raise ValueError("invalid URL escape")
    return quote_from_bytes(cleaned, safe=_AS_IT_IS)
