"""The HTTP applications of the services, made once: their parts are new in every life of the machine.

To make an application's routes takes longer than a life does, and they remember nothing.
"""

from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

from fastapi import FastAPI

from everturn.settings import Settings

P = TypeVar("P")


class Shell(Generic[P]):
    """`app` is built by `app_over` and answers by the `parts` that are in it now."""

    def __init__(self, settings: Settings, app_over: Callable[[Settings, P], FastAPI]) -> None:
        self.parts: P | None = None
        self.app = app_over(settings, cast("P", _Late(lambda: self.parts)))

    def fill(self, _: Settings, parts: P) -> FastAPI:
        """The application, which answers by `parts` from now on."""
        self.parts = parts
        return self.app


class _Late:
    """Stands for what `found` gives when it is used."""

    def __init__(self, found: Callable[[], Any]) -> None:
        self._found = found

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Late(lambda: getattr(self._found(), name))

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._found()(*arguments, **named)
