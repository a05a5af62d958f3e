"""The current request, and the identifiers on log records."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from lamella.stack.kernel import context
from lamella.stack.kernel.errors import MissingLayerError
from lamella.stack.kernel.keys import REQUEST_ID, TRACE, Trace, record
from lamella.stack.testing import environ

TRACED = Trace("a" * 32, "b" * 16, "", True)


@pytest.fixture
def factory() -> Iterator[None]:
    """Restores the process's log record factory."""
    before = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(before)


@pytest.fixture
def request_seen() -> Iterator[dict[str, object]]:
    """A request that is current during the test."""
    request = environ("GET", "/notes?x=1")
    REQUEST_ID.set(request, "r-1")
    TRACE.set(request, TRACED)
    token = context.ENVIRON.set(request)
    yield request
    context.ENVIRON.reset(token)


def test_there_is_none_outside_of_a_request() -> None:
    """Asking for it says which layer to add; asking carefully gives None."""
    assert context.current_or_none() is None
    assert context.request_id() == "-"
    with pytest.raises(MissingLayerError, match="'context'"):
        context.current()


def test_gives_the_request_in_three_ways(request_seen: dict[str, object]) -> None:
    """As environ, as WebOb request, as identifier."""
    assert context.current() is request_seen
    assert context.current_request().path_qs == "/notes?x=1"
    assert context.request_id() == "r-1"


@pytest.mark.usefixtures("factory", "request_seen")
def test_stamps_every_record(caplog: pytest.LogCaptureFixture) -> None:
    """Any logger's record has the identifiers, also where a formatter asks for them by name."""
    context.stamp_log_records()

    logging.getLogger("app.deep").warning("hello")

    (made,) = caplog.records
    assert logging.Formatter("%(request_id)s %(trace_id)s %(message)s").format(made) == f"r-1 {'a' * 32} hello"


@pytest.mark.usefixtures("factory", "request_seen")
def test_lets_an_app_log_its_own_request_id(caplog: pytest.LogCaptureFixture) -> None:
    """``extra={"request_id": …}`` goes on working: logging would refuse to overwrite the field."""
    context.stamp_log_records()

    logging.getLogger("app").warning("hello", extra={"request_id": "mine"})

    assert caplog.records[0].request_id == "mine"  # type: ignore[attr-defined]


@pytest.mark.usefixtures("factory")
def test_stamps_once_and_keeps_the_factory_of_others() -> None:
    """Two stacks in one process do not pile up, and an earlier factory is still asked."""

    class Mine(logging.LogRecord):
        pass

    logging.setLogRecordFactory(Mine)
    context.stamp_log_records()
    first = logging.getLogRecordFactory()
    context.stamp_log_records()

    assert logging.getLogRecordFactory() is first
    made = first("n", logging.INFO, "p", 1, "m", (), None)
    assert isinstance(made, Mine)
    assert made.request_id == "-"  # type: ignore[attr-defined]


@pytest.mark.usefixtures("request_seen")
def test_filters_for_one_handler() -> None:
    """The filter stamps what passes, and leaves what is there."""
    made = logging.LogRecord("n", logging.INFO, "p", 1, "m", (), None)
    made.trace_id = "other"

    assert context.RequestLogFilter().filter(made)
    assert (made.request_id, made.trace_id) == ("r-1", "other")  # type: ignore[attr-defined]


def test_a_record_shows_outside_what_was_set_on_a_copy() -> None:
    """Dispatch copies the environ; a layer outside that keeps a record still sees the identifier."""
    outer = environ("GET", "/")
    kept = record(outer)
    inner = outer.copy()

    REQUEST_ID.set(inner, "set inside")

    assert REQUEST_ID.get(outer) is None
    assert REQUEST_ID.seen(outer) == "set inside"
    assert record(inner) is kept
    assert REQUEST_ID.seen(environ("GET", "/")) is None
