"""A service on its own, under `uvicorn everturn.chat.app:app`: what a composition root does before it makes the app."""

import sys
from collections.abc import Callable

from fastapi import FastAPI

from everturn import logs
from everturn.errors import EverturnError, SettingError
from everturn.settings import Settings, load_settings


def standalone_app(create_app: Callable[[Settings], FastAPI]) -> FastAPI:
    """The app of this process's settings, logging in our form.

    Where it cannot be made, ends the process with one line on stderr: exit code 2 for a wrong setting, 1 for the rest.
    """
    logs.configure()
    try:
        return create_app(load_settings())
    except EverturnError as error:
        sys.stderr.write(f"everturn: {error.message}\n")
        raise SystemExit(2 if isinstance(error, SettingError) else 1) from None
