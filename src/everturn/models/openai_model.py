"""An OpenAI-compatible endpoint as a model: the SDK's client over a transport that trusts nothing it answers.

A body is checked before the SDK sees it, which takes wrong shapes for right ones; its shape:
https://platform.openai.com/docs/api-reference/chat/object

Importing this needs the Agents SDK, see `providers.prepare_sdk`.
"""

import contextlib
import json
from dataclasses import replace
from functools import cached_property
from typing import Any

import httpx2
from agents import ModelResponse, OpenAIChatCompletionsModel
from openai import AsyncOpenAI
from openai.resources.chat import AsyncChat, AsyncCompletions

from everturn.contracts.fields import without_lone_surrogates
from everturn.dapr.client import SidecarClient
from everturn.errors import TerminalError, TransientError
from everturn.models.endpoint import Endpoint
from everturn.models.faults import (
    MAX_REPLY_BYTES,
    bad_reply,
    content_filtered,
    refused_request,
    status_fault,
    too_large,
)
from everturn.models.refusals import MAX_ERROR_BYTES, words_of
from everturn.models.streaming import ON_TEXT, OnText, assemble
from everturn.settings import USUAL_KEY_SECRET, Settings

# A reply of 1 MiB can take three times as much as JSON with `\u` escapes (two bytes of UTF-8 become six); the rest is
# for what is around it.
MAX_BODY_BYTES = 4 * MAX_REPLY_BYTES
_OPTIONS = "stream_options"
# Longest wait for a connection, in seconds; the step's own limit bounds the whole call.
_CONNECT_TIMEOUT_S = 10.0
# The SDK takes ids for OpenAI's own cloud from the environment, which are nobody else's business, and has no key.
_SDK_HEADERS = ("openai-organization", "openai-project", "authorization")
SECRET_STORE = "secretstore"  # noqa: S105 - the name of a component


class SecretKey:
    """The endpoint's key from the sidecar's secret store. It is read when a call first needs it, and kept: a sidecar
    may start after its service."""

    def __init__(self, dapr: SidecarClient, name: str | None) -> None:
        self._dapr = dapr
        self._name = name
        self._key: str | None = None
        self._is_known = False

    async def read(self) -> str | None:
        """The key, None if there is none.

        Raises TransientError if the sidecar cannot be reached; if a setting names the secret, also TransientError if
        the store does not find it and TerminalError if it will not give it.
        """
        if not self._is_known:
            self._key = await (self._usual() if self._name is None else self._named(self._name))
            self._is_known = True
        return self._key

    async def _named(self, name: str) -> str:
        key = await self._dapr.secret(SECRET_STORE, name)
        if not key:
            raise TransientError(f"the secret {name!r} of the store {SECRET_STORE!r} is empty", kind="no_key")
        return key

    async def _usual(self) -> str | None:
        """A sidecar that answers and has no such store or secret has no key: many endpoints ask for none."""
        try:
            return await self._dapr.secret(SECRET_STORE, USUAL_KEY_SECRET) or None
        except TerminalError:
            return None
        except TransientError as error:
            if error.kind != "http_500":
                raise
            return None


def secret_key_of(settings: Settings, dapr: SidecarClient) -> SecretKey | None:
    """Where the key of the settings' own endpoint comes from; None if the environment has it, or none is needed."""
    if settings.model_base_url is None or settings.model_api_key is not None:
        return None
    return SecretKey(dapr, settings.model_api_key_secret)


class _Client(AsyncOpenAI):
    """The SDK's client, which sends messages and tools as they are."""

    @cached_property
    def chat(self) -> AsyncChat:
        return _Chat(self)


class _Chat(AsyncChat):
    @cached_property
    def completions(self) -> AsyncCompletions:
        return _Completions(self._client)


class _Completions(AsyncCompletions):
    async def create(self, *, messages: Any, tools: Any, extra_body: Any, **given: Any) -> Any:  # type: ignore[override]
        """As the SDK's, with messages and tools in the extra body: the SDK walks through all others to rename fields.

        Of these it renames none, and took several milliseconds for a conversation of ten messages.
        """
        plain = {"messages": messages, **({"tools": tools} if isinstance(tools, list) else {})}
        return await super().create(messages=(), extra_body={**(extra_body or {}), **plain}, **given)


class EndpointModel(OpenAIChatCompletionsModel):
    """A model at `endpoint`, whose key may come from `secret_key`. It never retries by itself: the step's policy
    governs."""

    def __init__(self, endpoint: Endpoint, secret_key: SecretKey | None) -> None:
        self._long_lived_client = _Client(
            base_url=endpoint.base_url,
            api_key="none",  # it insists on one; the key is sent by the transport
            max_retries=0,
            http_client=_http_client(endpoint, secret_key),
        )
        super().__init__(endpoint.model_name, self._long_lived_client)

    async def stream_text(self, on_text: OnText, *asked: Any, **more: Any) -> ModelResponse:
        """As `get_response`; `on_text` gets the text as it comes, if the endpoint streams."""
        instructions, items, given, *others = asked
        body = {**(given.extra_body or {}), "stream": True, _OPTIONS: {"include_usage": True}}
        token = ON_TEXT.set(on_text)
        try:
            return await self.get_response(instructions, items, replace(given, extra_body=body), *others, **more)
        finally:
            ON_TEXT.reset(token)

    async def close(self) -> None:
        """Close the client's connections."""
        await self._long_lived_client.close()


def _http_client(endpoint: Endpoint, secret_key: SecretKey | None) -> httpx2.AsyncClient:
    """A client that follows no redirects, uses the proxy of the environment, and reads no more than MAX_BODY_BYTES.

    It sends the endpoint's key, that of `secret_key` if the endpoint has none, or no key at all.
    """
    return httpx2.AsyncClient(
        transport=_CheckedTransport(endpoint.transport(), endpoint.api_key, secret_key),
        timeout=httpx2.Timeout(endpoint.timeout_s, connect=min(endpoint.timeout_s, _CONNECT_TIMEOUT_S)),
        follow_redirects=False,
        trust_env=False,
    )


class _CheckedTransport(httpx2.AsyncBaseTransport):
    """Gives a checked completion or raises the fault. The body of an error is only read if it says what is wrong."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, key: str | None, secret_key: SecretKey | None) -> None:
        self._inner = inner
        self._key = key
        self._secret_key = secret_key
        self._refuses_options = False

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        for name in _SDK_HEADERS:
            request.headers.pop(name, None)
        if key := self._key or (await self._secret_key.read() if self._secret_key else None):
            request.headers["authorization"] = f"Bearer {key}"
        request.headers["accept-encoding"] = "identity"  # a compressed body has no bound until it is unpacked
        if self._refuses_options:
            request = _without_options(request)
        try:
            return await self._answer(request, key)
        except _OptionsRefusedError:
            answer = await self._answer(_without_options(request), key)
            self._refuses_options = True
            return answer

    async def _answer(self, request: httpx2.Request, key: str | None) -> httpx2.Response:
        response = await self._inner.handle_async_request(request)
        try:
            if not 200 <= response.status_code < 300:
                raise await _refusal(response, request.content, key)
            body = await _read(response, ON_TEXT.get())
        finally:
            await response.aclose()
        return httpx2.Response(
            response.status_code, headers={"content-type": "application/json"}, content=checked_completion(body)
        )

    async def aclose(self) -> None:
        await self._inner.aclose()


class _OptionsRefusedError(Exception):
    """The endpoint streams, but does not know `stream_options`, by which OpenAI is asked for the usage."""


def _without_options(request: httpx2.Request) -> httpx2.Request:
    asked = json.loads(request.content)
    asked.pop(_OPTIONS, None)
    headers = [(name, value) for name, value in request.headers.raw if name.lower() != b"content-length"]
    content = json.dumps(asked).encode()
    return httpx2.Request(request.method, request.url, headers=headers, content=content, extensions=request.extensions)


async def _refusal(response: httpx2.Response, asked: bytes, key: str | None) -> Exception:
    if response.status_code in (400, 422):  # the endpoint's own words say what is wrong
        words = await _beginning(response)
        if _OPTIONS.encode() in words and _OPTIONS in json.loads(asked):
            return _OptionsRefusedError()
        return refused_request(response.status_code, words_of(words, asked, key))
    return status_fault(response.status_code, response.headers)


async def _beginning(response: httpx2.Response) -> bytes:
    """Of an error's body, as much as an explanation may take, or what came of one that breaks off."""
    body = bytearray()
    with contextlib.suppress(httpx2.TransportError):
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > MAX_ERROR_BYTES:
                break
    return bytes(body)


async def _read(response: httpx2.Response, on_text: OnText | None) -> bytes:
    """The completion. An endpoint that was asked to stream may answer as a whole all the same."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise bad_reply("it is compressed although that was not asked for")
    if on_text is not None and response.headers.get("content-type", "").startswith("text/event-stream"):
        return await assemble(response.aiter_raw(), on_text)
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise too_large()
    return bytes(body)


def checked_completion(body: bytes) -> bytes:
    """`body` as valid UTF-8, if it is a chat completion whose first choice can be used.

    Broken Unicode, in bytes or as escapes of lone surrogates, is replaced by U+FFFD: a reply would otherwise fail when
    it is sent back with the result of a tool. Raises TransientError if it is no completion, TerminalError if a
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
    calls = message.get("tool_calls")
    if calls is not None and not (isinstance(calls, list) and all(map(_is_tool_call, calls))):
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
