"""The request that is being served, for code that is handed none: helpers, models, log records.

The layer ``context`` sets it, for the app and for every step of its body; each thread,
greenlet and task sees its own.

>>> from lamella.stack.kernel.context import current, request_id
>>> request_id()
'-'
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from contextvars import ContextVar
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from .errors import MissingLayerError
from .keys import REQUEST_ID, TRACE

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

    from webob import Request

__all__ = ["RequestLogFilter", "current", "current_or_none", "current_request", "request_id", "stamp_log_records"]

#: The environ of the request that is being served.
ENVIRON: ContextVar[WSGIEnvironment | None] = ContextVar("lamella.environ", default=None)

#: Stands in a log record where there is no request.
NONE: Final = "-"

_lock = Lock()


def current() -> WSGIEnvironment:
    """Return the environ of the request that is being served.

    Raises:
        MissingLayerError: There is none, or the layer ``context`` is not in the stack.
    """
    environ = ENVIRON.get()
    if environ is None:
        raise MissingLayerError("the current request", "context")
    return environ


def current_or_none() -> WSGIEnvironment | None:
    """Return the environ of the request that is being served, or None outside of one."""
    return ENVIRON.get()


def current_request() -> Request:
    """Return the request that is being served as a WebOb request.

    Raises:
        MissingLayerError: There is none, or the layer ``context`` is not in the stack.
    """
    from webob import Request

    request: Request = Request(current())  # type: ignore[no-untyped-call]  # webob has no types
    return request


def request_id() -> str:
    """Return the identifier of the request that is being served, ``-`` where there is none."""
    environ = ENVIRON.get()
    return (REQUEST_ID.seen(environ) or NONE) if environ is not None else NONE


def _stamp(fields: dict[str, Any], given: Any) -> None:
    """Add ``request_id`` and ``trace_id`` to a record's fields, except what the caller gave himself."""
    environ = ENVIRON.get()
    if "request_id" not in given:
        fields["request_id"] = request_id()
    if "trace_id" not in given:
        trace = TRACE.seen(environ) if environ is not None else None
        fields["trace_id"] = trace.trace_id if trace is not None else NONE


class RequestLogFilter(logging.Filter):
    """Puts ``request_id`` and ``trace_id`` on the log records that pass one handler or logger.

    For those who configure logging themselves (``dictConfig``) and want it on one handler only;
    otherwise the layer ``context`` stamps every record. Lets every record pass, and leaves a
    field that is there already.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        _stamp(record.__dict__, record.__dict__)
        return True


class _Factory:
    """Makes the record as before, then stamps it."""

    def __init__(self, inner: Callable[..., logging.LogRecord]) -> None:
        self._inner = inner

    def __call__(self, *arguments: Any, **more: Any) -> logging.LogRecord:
        record = self._inner(*arguments, **more)
        # Logger.makeRecord refuses an `extra` whose names the record has already; an app that logs its
        # own request_id must go on working, so what it is about to add is looked up in its frame.
        frame = sys._getframe(1)
        extra = frame.f_locals.get("extra") if frame.f_code.co_name == "makeRecord" else None
        _stamp(record.__dict__, extra or ())
        return record


def stamp_log_records() -> None:
    """Put ``request_id`` and ``trace_id`` on every log record of the process, from now on.

    A second call does nothing. A record factory that was set before goes on working inside.
    """
    with _lock:
        factory = logging.getLogRecordFactory()
        if not isinstance(factory, _Factory):
            logging.setLogRecordFactory(_Factory(factory))
