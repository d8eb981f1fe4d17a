"""What becomes of an invocation's path. The answers are those of Dapr 1.18.0, asked."""

import pytest

from everturn.runtime.method_path import onward_path


@pytest.mark.parametrize(
    ("sent", "arrives"),
    [
        ("/conversations/a", "/conversations/a"),
        ("/conversations/a%20b", "/conversations/a%20b"),
        ("/conversations/%C3%A9", "/conversations/%C3%A9"),
        ("/conversations/a%252Fb", "/conversations/a%2Fb"),
        ("/conversations/a%2Fb", "/conversations/a/b"),
        ("/conversations/a%2525b", "/conversations/a%25b"),
        ("/conversations/%252E%252E", "/conversations/%2E%2E"),
        ("/conversations/%2E%2E", "/"),
        ("/../../x", "/x"),
        ("/a//b", "/a/b"),
        ("/chat/", "/chat"),
        ("/", "/"),
    ],
)
def test_a_path_is_decoded_once_and_cleaned(sent: str, arrives: str) -> None:
    assert onward_path(sent) == arrives


@pytest.mark.parametrize("sent", ["/a%3Fb", "/a%23b", "/a%00", "/a%0A", "/a%7F", "/a%25b", "/a%25"])
def test_a_path_that_cannot_be_handed_on_is_refused(sent: str) -> None:
    with pytest.raises(ValueError, match=r"method|escape"):
        onward_path(sent)
