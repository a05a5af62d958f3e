"""Measure what each layer of a stack costs, and compare it with the stack file's budget.

>>> from lamella.stack import Layer, Stack
>>> from lamella.stack.testing import RecordingApp, environ
>>> timing = bench(Stack([Layer("request_id")], app=RecordingApp()), environ("GET", "/"), seconds=0.01)
>>> [one.id for one in timing.layers], timing.status
(['request_id', 'app'], '200 OK')

The stack is built once more with a clock around each layer, which notes every change between a layer and
its neighbours: on the way in, at ``start_response``, at each block of a body and at ``close()``. What
the clock itself takes is found with an empty layer and subtracted. In the same run a bare
application is measured: ratios to it say more than microseconds, which depend on the machine.
"""

from __future__ import annotations

import gc
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from lamella.stack.kernel.response import close
from lamella.stack.problems import Problem

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from lamella.stack.build import Application, Layer, Stack

__all__ = ["REFERENCE_BARE", "LayerTiming", "Timing", "bench", "check_budget"]

#: Seconds that the bare application takes on the machine that budgets are written for (CPython 3.11, 2026).
REFERENCE_BARE = 0.17e-6

# Short ones, of which the quickest counts, as in timeit: others use the machine, too, and that only ever adds.
_ROUNDS = 25
# A budget is exceeded where the layer takes this much more: what a measurement on a busy machine may be wrong by.
_TOLERANCE = 1.1
_BODY = b"hello"
_HEADERS = (("Content-Type", "text/plain"), ("Content-Length", "5"))


class LayerTiming:
    """What one layer, or the app, takes.

    Args:
        id: The layer's, ``sub-stack/id`` in a sub-stack; or ``app``.
        use: As in the stack file.
        seconds: For one request, without what is inside of it.
        ratio: The same, by the time of the bare application.
    """

    __slots__ = ("id", "ratio", "seconds", "use")

    def __init__(self, id: str, use: str, seconds: float, ratio: float) -> None:
        self.id = id
        self.use = use
        self.seconds = seconds
        self.ratio = ratio

    def __repr__(self) -> str:
        return f"<LayerTiming {self.id} {self.seconds * 1e6:.2f} us>"


class Timing:
    """What a request takes, layer by layer.

    Args:
        status: The status line of the answer.
        bare: Seconds of a bare application, in the same run.
        total: Seconds of the whole stack, without any clock in it.
        layers: From the outermost to the app; only what the request has come through.
    """

    __slots__ = ("bare", "layers", "status", "total")

    def __init__(self, status: str, bare: float, total: float, layers: Iterable[LayerTiming]) -> None:
        self.status = status
        self.bare = bare
        self.total = total
        self.layers = tuple(layers)

    def as_dict(self) -> dict[str, Any]:
        """Return the times for ``--json``, in microseconds."""
        return {
            "status": self.status,
            "bare_us": round(self.bare * 1e6, 3),
            "total_us": round(self.total * 1e6, 3),
            "ratio": round(self.total / self.bare, 2),
            "layers": [
                {"id": one.id, "use": one.use, "us": round(one.seconds * 1e6, 3), "ratio": round(one.ratio, 2)}
                for one in self.layers
            ],
        }

    def __repr__(self) -> str:
        return f"<Timing {self.total * 1e6:.2f} us, {self.total / self.bare:.1f} times bare>"


class _Meter:
    """Adds the time since the last change to whom it belongs."""

    __slots__ = ("last", "now", "spent")

    def __init__(self) -> None:
        #: By number; 0 is the server.
        self.spent: list[int] = [0]
        self.now = 0
        self.last = 0

    def add(self) -> int:
        """Return the number of one more."""
        self.spent.append(0)
        return len(self.spent) - 1

    def to(self, number: int) -> int:
        """Let the time that begins now belong to *number*; return whose it was."""
        now = perf_counter_ns()
        before = self.now
        self.spent[before] += now - self.last
        self.last = now
        self.now = number
        return before

    def probe(self, app: WSGIApplication, number: int) -> WSGIApplication:
        """Return *app* with a clock around it."""
        to = self.to

        def probed(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            outer = to(number)

            def start(*arguments: Any) -> Any:
                inner = to(outer)
                try:
                    return start_response(*arguments)
                finally:
                    to(inner)

            try:
                body = app(environ, start)
            finally:
                to(outer)
            # A list does nothing when it is iterated, and layers have a short way for it.
            return body if isinstance(body, (list, tuple)) else _Timed(body, to, number)

        return probed


class _Timed:
    """A body, timed block by block."""

    __slots__ = ("_body", "_iterator", "_number", "_to")

    def __init__(self, body: Iterable[bytes], to: Callable[[int], int], number: int) -> None:
        self._body = body
        self._to = to
        self._number = number
        self._iterator: Iterator[bytes] | None = None

    def __iter__(self) -> _Timed:
        return self

    def __next__(self) -> bytes:
        outer = self._to(self._number)
        try:
            if self._iterator is None:
                self._iterator = iter(self._body)
            return next(self._iterator)
        finally:
            self._to(outer)

    def close(self) -> None:
        outer = self._to(self._number)
        try:
            close(self._body)
        finally:
            self._to(outer)


def bench(stack: Stack, request: Mapping[str, Any], *, seconds: float = 1.0) -> Timing:
    """Send a request again and again, and return what each layer takes.

    The application does each time what it does: a request that orders something orders it thousands of times.

    Args:
        stack: A built stack.
        request: The environ; copied for each request, with its body read anew.
        seconds: About how long to measure.

    Raises:
        Exception: Whatever the stack raises.
    """
    sent = _Request(request)
    status = sent.status(stack)
    meter = _Meter()
    numbers: dict[int, tuple[str, str]] = {}

    def around(part: Layer | Application, app: WSGIApplication) -> WSGIApplication:
        number = meter.add()
        identifier = getattr(part, "full_id", None)
        if identifier is None:
            identifier = f"{part.stack}/app" if part.stack else "app"
        numbers[number] = (identifier, part.use)
        return meter.probe(app, number)

    probed = stack.build(around)
    empty = _Meter()
    layered: WSGIApplication = _bare
    for _ in range(3):
        layered = empty.probe(_passing(layered), empty.add())

    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        each = seconds / _ROUNDS / 4
        subjects: list[tuple[Callable[..., Any], _Meter | None]] = [
            (_bare, None), (stack, None), (probed, meter), (layered, empty)
        ]  # fmt: skip
        counts = [sent.calibrated(app, each) for app, _ in subjects]
        rounds: list[list[list[float]]] = [[] for _ in subjects]
        for _ in range(_ROUNDS):
            for (app, clock), count, found in zip(subjects, counts, rounds, strict=True):
                found.append(sent.round(app, count, clock))
    finally:
        if enabled:
            gc.enable()
    bare, total = (min(one[0] for one in rounds[index]) for index in (0, 1))
    clock_time = min(one[2] for one in rounds[3])
    spent = [min(values) for values in zip(*rounds[2], strict=True)]
    layers = []
    for number, (identifier, use) in reversed(numbers.items()):
        if spent[number] > 0:
            own = max(spent[number] - clock_time, 0.0)
            layers.append(LayerTiming(identifier, use, own, own / bare))
    return Timing(status, bare, total, layers)


def _bare(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [*_HEADERS])
    return [_BODY]


def _passing(app: WSGIApplication) -> WSGIApplication:
    """A layer that does nothing."""

    def layer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return app(environ, start_response)

    return layer


class _Request:
    """A request that is sent again and again."""

    __slots__ = ("_content", "_copy")

    def __init__(self, request: Mapping[str, Any]) -> None:
        environ = dict(request)
        self._content: bytes = environ["wsgi.input"].read() if "wsgi.input" in environ else b""
        environ["wsgi.input"] = io.BytesIO()
        self._copy = environ.copy

    def status(self, app: Any) -> str:
        """Send it once; return the status line."""
        found = ""

        def start_response(status: str, headers: Any, exc_info: Any = None, /) -> Callable[[bytes], object]:
            nonlocal found
            found = status
            return _ignore

        self._send(app, 1, start_response)
        return found

    def round(self, app: Any, count: int, meter: _Meter | None) -> list[float]:
        """Return seconds for one request: as a whole, or by number where there is a meter."""
        if meter is not None:
            meter.spent[:] = [0] * len(meter.spent)
            meter.now, meter.last = 0, perf_counter_ns()
        begun = perf_counter_ns()
        self._send(app, count, _start_response)
        took = perf_counter_ns() - begun
        return [took / count / 1e9] if meter is None else [spent / count / 1e9 for spent in meter.spent]

    def calibrated(self, app: Any, seconds: float) -> int:
        """Return how many requests take about *seconds*."""
        count = 1
        while True:
            took = self.round(app, count, None)[0] * count
            if took > seconds / 4 or count > 1_000_000:
                return max(1, int(count * seconds / max(took, 1e-9)))
            count *= 4

    def _send(self, app: Any, count: int, start_response: Any) -> None:
        """Do what a server does, and no more: the bare application is to stay bare."""
        copy, content = self._copy, self._content
        for _ in range(count):
            environ = copy()
            if content:
                environ["wsgi.input"] = io.BytesIO(content)
            body = app(environ, start_response)
            try:
                for _block in body:
                    pass
            finally:
                close = getattr(body, "close", None)
                if close is not None:
                    close()


def _start_response(status: str, headers: Any, exc_info: Any = None, /) -> Callable[[bytes], object]:
    return _ignore


def _ignore(data: bytes, /) -> None:
    return None


def check_budget(stack: Stack, *, seconds: float = 0.5) -> list[Problem]:
    """Return a problem for each layer that takes more than ``[budget]`` allows.

    A budget is written for a machine on which the bare application takes :data:`REFERENCE_BARE`; here
    it is stretched, or shrunk, by what the bare application takes in the same run. So ``"5us"`` means: 29 times bare.
    Measured are the requests of ``[[expect]]``, or ``GET /`` where there are none; the slowest one counts.

    Args:
        stack: A built stack.
        seconds: About how long to measure each request.
    """
    if not stack.budget:
        return []
    from lamella.stack.expect import expectation_environ
    from lamella.stack.testing import environ

    requests = [expectation_environ(one) for one in stack.expects] or [environ("GET", "/")]
    worst: dict[str, tuple[float, float]] = {}
    for request in requests:
        try:
            timing = bench(stack, request, seconds=seconds)
        except Exception:  # noqa: BLE001, S112 - an expectation tells of it
            continue
        for one in timing.layers:
            if one.id in stack.budget and one.ratio >= worst.get(one.id, (0.0, 0.0))[0]:
                worst[one.id] = (one.ratio, timing.bare)
    problems = []
    for name, allowed in stack.budget.items():
        ratio, bare = worst.get(name, (0.0, 0.0))
        bound = allowed / REFERENCE_BARE
        if ratio > bound * _TOLERANCE:
            owner, identifier = stack._locate(name)
            layer = next(one for one in owner.layers if one.id == identifier)
            message = (
                f"{name} takes {ratio:.1f} times what a bare application takes ({ratio * bare * 1e6:.2f} us here), "
                f"and its budget of {_shown(allowed)} is {bound:.1f} times; see `lamella bench`"
            )
            problems.append(Problem(layer.file, layer.line, layer.column, message, phase="expectations"))
    return problems


def _shown(seconds: float) -> str:
    """A duration as it stands in a stack file."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:g}us"
    return f"{seconds * 1e3:g}ms" if seconds < 1 else f"{seconds:g}s"
