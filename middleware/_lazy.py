"""An application that is imported when the first request for it comes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from lamella.stack.kernel.asgi import as_wsgi
from lamella.stack.kernel.environ import direct
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.mounts import fault_of_mount, patched_modules
from lamella.stack.kernel.options import reference, reference_parts
from lamella.stack.kernel.response import answer

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["LazyApp"]

# A module that fails is tried again, so that a repaired file needs no restart, but not by each of a
# thousand requests a second.
_RETRY_SECONDS = 1.0


class LazyApp:
    """The app behind ``"module:attribute"``, or what ``"module:attribute()"`` returns.

    A module that cannot be imported is an answer 503; why is in the log, with the module's name and
    the traceback, and never in the answer.

    Args:
        option: Name of the option, for errors.
        target: The reference.

    Raises:
        ConfigError: *target* is not of that form.
    """

    def __init__(self, option: str, target: str) -> None:
        if reference_parts(target) is None:
            raise ConfigError(option, target, 'a reference such as "package.module:application"')
        self.option = option
        self.target = target
        self._lock = threading.Lock()
        self._app: WSGIApplication | None = None
        self._retry_at = 0.0
        self._taken: dict[str, str] = {}
        self._prefix = ""
        self._claims: Callable[[object], str | None] = lambda app: None

    def share(self, taken: dict[str, str], prefix: str, claims: Callable[[object], str | None]) -> None:
        """Let at most one of several lazy apps be what *claims* names.

        Args:
            taken: Shared by all of them: claim to prefix.
            prefix: Where this one is mounted.
            claims: Takes the app; returns what only one mount may be, or None.
        """
        self._taken, self._prefix, self._claims = taken, prefix, claims

    def load(self) -> WSGIApplication:
        """Import the app now, once, whatever the number of threads that ask.

        Raises:
            ConfigError: There is no such module or attribute, or it is not callable.
            Exception: Whatever the module raised.
        """
        app = self._app
        if app is None:
            with self._lock:
                app = self._app or self._import()
        return app

    def _import(self) -> WSGIApplication:
        patched = patched_modules()
        found = reference(self.option, self.target.removesuffix("()"))
        if self.target.endswith("()") and callable(found):
            found = found()
        if new := patched_modules() - patched:
            import logging

            logging.getLogger("lamella.dispatch").warning(
                "%s: importing %s patched %s for the whole process (gevent.monkey): serve it in a process of its own,"
                " or all of them with a gevent server", self.option, self.target, ", ".join(sorted(new))
            )  # fmt: skip
        if not callable(found):
            raise ConfigError(self.option, self.target, "a reference to a WSGI application, which is callable")
        claim = self._claims(found)
        if claim is not None and self._taken.setdefault(claim, self._prefix) != self._prefix:
            raise ConfigError(self.option, self.target, f"one prefix for {claim}: {self._taken[claim]} has it already")
        fault = fault_of_mount(found, self._prefix) if self._prefix else None
        if fault is not None:
            raise ConfigError(f"{self.option} ({self.target})", fault.value, fault.expected)
        self._app = direct(as_wsgi(self.option, found))
        return self._app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        app = self._app or self._try()
        if app is None:
            return answer(
                environ,
                start_response,
                "503 Service Unavailable",
                b"This part of the site is not available.\n",
                [("Cache-Control", "no-store"), ("Retry-After", "5")],
            )
        return app(environ, start_response)

    def _try(self) -> WSGIApplication | None:
        """Import the app, or log why that fails."""
        if time.monotonic() < self._retry_at:
            return None
        with self._lock:
            if self._app is not None:
                return self._app
            if time.monotonic() < self._retry_at:  # another thread has just failed
                return None
            try:
                from importlib import invalidate_caches

                invalidate_caches()
                return self._import()
            except (Exception, SystemExit) as error:  # a module may do anything, sys.exit() too
                self._retry_at = time.monotonic() + _RETRY_SECONDS
                import logging

                logger = logging.getLogger("lamella.dispatch")
                logger.error("%s: the app %s cannot be imported: %s", self.option, self.target, error, exc_info=error)
                return None

    def __repr__(self) -> str:
        return f"<app {self.target!r}, imported on first use>"
