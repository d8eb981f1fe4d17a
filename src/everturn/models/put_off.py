"""A package whose own code runs only when something of it is used, while its submodules can be imported before.

What `lazy import` does in later Pythons (PEP 810). `importlib.util.LazyLoader` cannot do it for a package: it takes the
look for `__path__`, with which the import of a submodule begins, for a use.
"""

import sys
import threading
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any

_BEGUN = "begun"
# Held while a package is loaded: who else wants something of it then waits, as with any import.
_lock = threading.RLock()


def put_off(package: str) -> None:
    """Let `package`, a top-level one, load at its first use. Nothing happens where it is loaded or not installed."""
    if package in sys.modules:
        return
    spec = find_spec(package)
    if spec is None or spec.loader is None:
        return
    module = module_from_spec(spec)
    module.__class__ = _PutOff
    sys.modules[package] = module


class _PutOff(ModuleType):
    """A package that was found and not run. Its spec's `loader_state` says whether that has been made good."""

    def __getattr__(self, name: str) -> Any:
        """Called for what is not there, so also for what is not there yet."""
        with _lock:
            if self.__spec__ is not None and self.__spec__.loader_state is None:
                self._load(self.__spec__)
        return ModuleType.__getattribute__(self, name)

    def _load(self, spec: ModuleSpec) -> None:
        assert spec.loader is not None
        spec.loader_state = _BEGUN  # the package itself, which uses it while it is loaded, finds what there is
        try:
            spec.loader.exec_module(self)
        except BaseException:
            spec.loader_state = None
            raise
