"""Test one layer, or a stack of them, in isolation.

>>> from lamella.stack.testing import RecordingApp, call, environ, lint
>>> from lamella.middleware.request_id import RequestIdMiddleware
>>> app = RecordingApp(body=[b"hello"])
>>> response = call(lint(RequestIdMiddleware(lint(app))), environ("GET", "/"))
>>> response.status, response.body
('200 OK', b'hello')
"""

from __future__ import annotations

from .apps import RecordingApp
from .client import Response, call, environ
from .clients import BrokenInput, Reader, SlowInput, chunked, hang_up, slow
from .conformance import Probe, Report, assert_conforms, conformance
from .fakes import FakeClock, FakeRandom, FakeSession, FakeStore
from .lint import LintError, lint

__all__ = [
    "BrokenInput",
    "FakeClock",
    "FakeRandom",
    "FakeSession",
    "FakeStore",
    "LintError",
    "Probe",
    "Reader",
    "RecordingApp",
    "Report",
    "Response",
    "SlowInput",
    "assert_conforms",
    "call",
    "chunked",
    "conformance",
    "environ",
    "hang_up",
    "lint",
    "slow",
]
