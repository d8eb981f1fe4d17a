"""Is this body a chat completion? Checked before the SDK sees it, which takes wrong shapes for right ones.

Shape: https://platform.openai.com/docs/api-reference/chat/object
"""

import json
from typing import Any

from everturn.contracts.text import without_lone_surrogates
from everturn.models.faults import bad_reply, content_filtered


def checked_completion(body: bytes) -> bytes:
    """`body` as valid UTF-8, if it is a chat completion whose first choice can be used.

    Broken Unicode, in bytes or as escapes of lone surrogates, is replaced by U+FFFD: a reply would otherwise fail when
    it is sent back with the result of a tool. Raises TransientError where it is no completion, TerminalError where a
    content filter withheld it.
    """
    text = body.decode("utf-8", "replace")
    try:
        completion = json.loads(text)
    except (ValueError, RecursionError):
        raise bad_reply("it is not JSON") from None
    _check(completion)
    if "\\ud" in text or "\\uD" in text:
        text = without_lone_surrogates(json.dumps(completion, ensure_ascii=False))
    return text.encode()


def _check(completion: Any) -> None:
    if not isinstance(completion, dict):
        raise bad_reply("it is not a JSON object")
    if completion.get("error"):
        raise bad_reply("it holds an error")
    choices = completion.get("choices")
    if not isinstance(choices, list) or not choices:
        raise bad_reply("it has no choices")
    choice = choices[0]
    if not isinstance(choice, dict):
        raise bad_reply("its choice is not an object")
    if choice.get("finish_reason") == "content_filter":
        raise content_filtered()
    message = choice.get("message")
    if not isinstance(message, dict):
        raise bad_reply("it has no message")
    if not isinstance(message.get("content"), str | None) or not isinstance(message.get("refusal"), str | None):
        raise bad_reply("its content is not text")
    _check_tool_calls(message.get("tool_calls"))


def _check_tool_calls(calls: Any) -> None:
    if calls is None:
        return
    if not isinstance(calls, list) or not all(_is_tool_call(call) for call in calls):
        raise bad_reply("its tool calls have a wrong shape")


def _is_tool_call(call: Any) -> bool:
    if not isinstance(call, dict) or call.get("type") != "function" or not isinstance(call.get("id"), str):
        return False
    function = call.get("function")
    return (
        isinstance(function, dict)
        and isinstance(function.get("name"), str)
        and isinstance(function.get("arguments"), str)
    )
