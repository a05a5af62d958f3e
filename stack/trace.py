"""Follow one request through a stack: what each layer did to it, and to its answer.

>>> from lamella.stack import Layer, Stack
>>> from lamella.stack.testing import RecordingApp, environ
>>> stack = Stack([Layer("request_id")], app=RecordingApp())
>>> traced = trace(stack, environ("GET", "/"))
>>> traced.answered_by, [step.id for step in traced.walk()]
('app', ['request_id', 'app'])

The stack is built once more with a probe around each layer; the one that serves is not touched,
so tracing that is off costs nothing. Secrets are masked in all that a trace shows: credentials,
cookies, whatever is called like a secret; of objects the type is shown, never the contents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, cast

from lamella.stack.kernel.redact import redact_query
from lamella.stack.trace_steps import Change, Step, Trace, named_error, server_timing

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from lamella.stack.build import Application, Layer, Stack

__all__ = ["Change", "Step", "Trace", "Tracer", "trace"]

# A long stream is settled now and then.
_MOST_MARKS = 4096
# The end of a body; what an app yields by mistake, None too, is none.
_END = object()
_CURRENT: ContextVar[_Recorder | None] = ContextVar("lamella.trace", default=None)


def trace(stack: Stack, request: WSGIEnvironment | str | Any, *, blocks: int | None = None) -> Trace:
    """Send one request through *stack* and record what each layer does.

    Args:
        stack: The stack; it is built once more for this.
        request: An environ, an object with one (``request.environ``), or text such as ``"GET /cart?id=1"``.
        blocks: Leave after so many blocks of the answer, as a client that goes away; None for all.
    """
    return Tracer(stack).trace(request, blocks=blocks)


class Tracer:
    """A stack with a probe around every layer, built once for many requests; itself a WSGI application.

    Args:
        stack: The stack. What its layers keep in memory is not shared with the stack that serves.
        on_trace: Called with each :class:`Trace` at the end of its request.
        server_timing: Send the times so far as a ``Server-Timing`` header.
    """

    def __init__(
        self, stack: Stack, *, on_trace: Callable[[Trace], object] | None = None, server_timing: bool = False
    ) -> None:
        self._app = stack.build(_probe)
        self._on_trace = on_trace
        self._server_timing = server_timing

    def trace(self, request: WSGIEnvironment | str | Any, *, blocks: int | None = None) -> Trace:
        """Send one request; see :func:`trace`."""
        from lamella.stack.testing import call

        recorder = _Recorder(self._server_timing)
        environ = _environ(request)
        response = call(_Run(self._app, recorder), environ, blocks=blocks, keep_error=True)
        return recorder.done(response.error)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        recorder = _Recorder(self._server_timing)
        run = _Run(self._app, recorder, self._on_trace)
        return run(environ, start_response)


class _Run:
    """One request: starts the recorder, ends it with the body."""

    def __init__(self, app: WSGIApplication, recorder: _Recorder, on_trace: Callable[[Trace], object] | None = None):
        self._app = app
        self._recorder = recorder
        self._on_trace = on_trace

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        token = _CURRENT.set(self._recorder)
        try:
            self._recorder.begin(environ)
            body = self._app(environ, start_response)
        except BaseException as error:
            self._end(error)
            raise
        finally:
            _CURRENT.reset(token)
        return _RunBody(body, self._recorder, self._end)

    def _end(self, error: BaseException | None) -> None:
        if self._on_trace is not None:
            self._on_trace(self._recorder.done(error))


class _RunBody:
    """The answer's body, read with the recorder in place."""

    def __init__(self, body: Any, recorder: _Recorder, end: Callable[[BaseException | None], None]) -> None:
        self._body = body
        self._recorder = recorder
        self._end = end
        self._iterator: Iterator[bytes] | None = None
        self._error: BaseException | None = None

    def __iter__(self) -> _RunBody:
        return self

    def __next__(self) -> bytes:
        token = _CURRENT.set(self._recorder)
        try:
            if self._iterator is None:
                self._iterator = iter(self._body)
            return next(self._iterator)
        except StopIteration:
            raise
        except BaseException as error:
            self._error = error
            raise
        finally:
            _CURRENT.reset(token)

    def close(self) -> None:
        token = _CURRENT.set(self._recorder)
        try:
            closing = getattr(self._body, "close", None)
            if closing is not None:
                closing()
        finally:
            _CURRENT.reset(token)
            self._end(self._error)


# --- recording ----------------------------------------------------------------------------------


class _Recorder:
    """Knows which step runs, and gives it the time that passes."""

    def __init__(self, server_timing: bool) -> None:
        self.server_timing = server_timing
        self.root: Step | None = None
        self.current: Step | None = None
        self.reading = False
        self.method = self.target = ""
        self._started = self._since = 0
        self._running: Step | None = None
        #: When which step began to run, in nanoseconds; made into times by settle().
        self.log: list[tuple[int, Step | None]] = []
        self.mark = self.log.append

    def begin(self, environ: WSGIEnvironment) -> None:
        self.method = environ.get("REQUEST_METHOD", "")
        query = environ.get("QUERY_STRING", "")
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        self.target = path + (f"?{redact_query(query)}" if query else "")
        self._started = self._since = perf_counter_ns()

    def switch(self, step: Step | None) -> Step | None:
        """Let another step run; returns the one that ran."""
        # What each took is added up later: a fifth of all that a trace costs.
        self.mark((perf_counter_ns(), step))
        before = self.current
        self.current = step
        return before

    def settle(self) -> None:
        """Give each step the time that passed while it ran."""
        for now, step in self.log:
            if self._running is not None:
                self._running._own += now - self._since
            self._since = now
            self._running = step
        self.log.clear()

    def elapsed(self) -> float:
        return (perf_counter_ns() - self._started) / 1e9

    def enter(self, id: str, use: str, line: int, environ: WSGIEnvironment) -> Step:
        outer = self.current
        step = Step(id, use, line, environ)
        if outer is not None:
            outer.children.append(step)
        elif self.root is None:
            self.root = step
        return step

    def done(self, error: BaseException | None) -> Trace:
        self.settle()
        root = self.root if self.root is not None else Step("", "", 0, {})
        return Trace(self.method, self.target, root, (self._since - self._started) / 1e9, error)


def _full_id(node: Layer | Application) -> str:
    return f"{node.stack}/{node.id}" if node.stack else node.id


def _probe(node: Layer | Application, app: WSGIApplication) -> WSGIApplication:
    """Record what passes *app*, where a request is traced."""
    id, use, line = _full_id(node), node.use, node.line

    def probed(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        recorder = _CURRENT.get()
        if recorder is None:
            return app(environ, start_response)
        step = recorder.enter(id, use, line, environ)
        stream = environ.get("wsgi.input")
        if type(stream) is _Input:
            step._seen["wsgi.input"] = stream.stream
        elif stream is not None:
            environ["wsgi.input"] = _Input(stream, recorder)
        outer = recorder.switch(step)
        try:
            body = app(environ, _starter(recorder, step, outer, start_response))
        except BaseException as error:
            step.error = named_error(error)
            raise
        finally:
            recorder.switch(outer)
        if type(body) is list and len(body) == 1:
            # Handed on as it is: what is outside takes the same way as without a trace, and so does the clock.
            _count(recorder, step, body[0])
            return body
        step.has_close = hasattr(body, "close")
        wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(wrapper, type) and isinstance(body, wrapper):
            return body
        return _Body(body, recorder, step)

    return probed


def _starter(recorder: _Recorder, step: Step, outer: Step | None, start_response: StartResponse) -> StartResponse:
    """The ``start_response`` that one layer gets."""

    def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Callable[[bytes], object]:
        step.status, step._raw = status, list(headers)
        step._forwards = step._inner_starts
        if outer is not None:
            outer._inner_starts = True
        if outer is None and recorder.server_timing and recorder.root is step:
            recorder.switch(recorder.current)
            recorder.settle()
            headers = [*headers, ("Server-Timing", server_timing(step))]
        inner = recorder.switch(outer)
        try:
            write = start_response(status, headers) if exc_info is None else start_response(status, headers, exc_info)
        finally:
            recorder.switch(inner)
            if outer is not None:
                outer._inner_starts = False

        def counted(data: bytes, /) -> object:
            _count(recorder, step, data)
            return write(data)

        return counted

    return start


def _count(recorder: _Recorder, step: Step, block: bytes) -> None:
    step.blocks += 1
    step.bytes += len(block)
    if block and step.first_byte is None:
        step.first_byte = recorder.elapsed()


class _Body:
    """The body of one layer."""

    __slots__ = ("_body", "_recorder", "_step")

    def __init__(self, body: Any, recorder: _Recorder, step: Step) -> None:
        self._body = body
        self._recorder = recorder
        self._step = step

    def __iter__(self) -> Iterator[bytes]:
        recorder, step, iterator = self._recorder, self._step, None
        while True:
            outer = recorder.switch(step)
            try:
                if iterator is None:
                    iterator = iter(self._body)
                block: Any = next(iterator, _END)  # an exception in each layer is a tenth of what a trace costs
            except BaseException as error:
                step.error = named_error(error)
                raise
            finally:
                recorder.switch(outer)
            if block is _END:
                return
            _count(recorder, step, block)
            if len(recorder.log) > _MOST_MARKS:
                recorder.settle()
            yield block

    def close(self) -> None:
        recorder, step = self._recorder, self._step
        step.closes += 1
        outer = recorder.switch(step)
        try:
            closing = getattr(self._body, "close", None)
            if closing is not None:
                closing()
        except BaseException as error:
            step.error = named_error(error)
            raise
        finally:
            recorder.switch(outer)


class _Input:
    """``wsgi.input``; what is read is counted for the step that runs."""

    def __init__(self, stream: Any, recorder: _Recorder) -> None:
        self.stream = stream
        self._recorder = recorder

    def _counted(self, read: Callable[..., Any], *arguments: Any) -> Any:
        """Read, and count once: a stream that a layer put in place reads this one in its turn."""
        recorder = self._recorder
        if recorder.reading or recorder.current is None:
            return read(*arguments)
        recorder.reading = True
        try:
            data = read(*arguments)
        finally:
            recorder.reading = False
        recorder.current.read += sum(map(len, data)) if isinstance(data, list) else len(data)
        return data

    def read(self, *size: int) -> bytes:
        return cast("bytes", self._counted(self.stream.read, *size))

    def readline(self, *size: int) -> bytes:
        return cast("bytes", self._counted(self.stream.readline, *size))

    def readlines(self, *hint: int) -> list[bytes]:
        return cast("list[bytes]", self._counted(self.stream.readlines, *hint))

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _environ(request: Any) -> WSGIEnvironment:
    """The environ of what was given as a request."""
    if isinstance(request, str):
        from lamella.stack.testing import environ

        method, _, target = request.rpartition(" ")
        return environ(method.strip() or "GET", target)
    found: WSGIEnvironment = getattr(request, "environ", request)
    return dict(found)
