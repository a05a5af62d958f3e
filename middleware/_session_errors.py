"""What a session raises."""

from __future__ import annotations

from lamella.stack.kernel.errors import LamellaError

__all__ = ["SessionError", "SessionTooLargeError", "SessionUnavailableError", "SessionWriteError"]


class SessionError(LamellaError):
    """Base of what a session raises."""


class SessionWriteError(SessionError, RuntimeError):
    """The session was changed, or first used, when the headers were already on their way."""


class SessionTooLargeError(SessionError, ValueError):
    """The session does not fit into cookies; keep it in a server-side store, or keep less."""


class SessionUnavailableError(SessionError, ConnectionError):
    """The store does not answer, or the session is locked by another request for too long."""
