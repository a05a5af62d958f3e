"""One request and its answer, between the thread that serves it and the loop that runs the app.

What the app sends waits in a queue that the server's thread empties; what it receives is read by
that same thread, when the app asks for it: a request's ``wsgi.input`` belongs to its own thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from io import BufferedReader
from typing import TYPE_CHECKING, Any

from lamella.stack.kernel.body import body_length
from lamella.stack.kernel.errors import BadRequestError
from lamella.stack.kernel.response import has_body

from ._asgi_loop import Signal, shown
from ._asgi_scope import response_headers, status_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from wsgiref.types import WSGIEnvironment

    from lamella.stack.kernel.response import Headers

    from ._asgi_loop import ASGIApplication, Loop, Message

__all__ = ["ClientDisconnectedError", "Exchange"]

#: Asked for at once. A server waits until it has that much, or the end; so a slow upload arrives in such pieces.
_READ_BYTES = 16 * 1024
#: An app that was told of the disconnect, or is about to be, may take this long to end by itself.
_GRACE_SECONDS = 1.0
#: How often a server that can tell is asked whether the client is still there.
_POLL_SECONDS = 0.5

_log = logging.getLogger("lamella.asgi")


class ClientDisconnectedError(OSError):
    """The client has gone; raised by ``send()``, as ASGI 2.4 asks."""


class Exchange:
    """One request, and its answer.

    Everything is changed in the loop's thread, except where a comment says otherwise.

    Args:
        loop: The process's loop.
        app: The ASGI app.
        scope: Of the request.
        environ: The request.
        buffer_bytes: How much of the answer may wait to be taken before ``send()`` waits.

    Raises:
        BadRequestError: The Content-Length is malformed.
    """

    def __init__(
        self, loop: Loop, app: ASGIApplication, scope: dict[str, Any], environ: WSGIEnvironment, buffer_bytes: int
    ) -> None:
        self._loop = loop
        self._app = app
        self._scope = scope
        self._buffer_bytes = buffer_bytes
        self._left = body_length(environ)
        self._signal = Signal()
        self._task: asyncio.Task[None] | None = None

        # The request's body. The server's thread reads while `_is_asked`.
        self._input: Any = environ.get("wsgi.input")
        self._is_asked = False
        self._is_read = self._left == 0
        self._inbox: deque[Message] = deque()
        if self._is_read:
            self._inbox.append({"type": "http.request", "body": b"", "more_body": False})
        self._gone_check: Callable[[], bool] | None = environ.get("waitress.client_disconnected")
        #: The client stopped in the middle of its body.
        self.was_cut_short = False

        # The answer.
        self.status = ""
        self.headers: Headers = []
        self._length: int | None = None
        self._sent = 0
        self._method: str = environ["REQUEST_METHOD"].upper()
        self.is_bodiless = False
        #: Appended to by the loop's thread, taken from by the server's.
        self.blocks: deque[bytes] = deque()
        self._queued = 0
        #: Counted by the server's thread.
        self._taken = 0
        #: The app may send no more: its answer is whole.
        self.is_whole = False
        self.failure: BaseException | None = None
        #: The first part of the body was sent, so status and headers are the answer's.
        self.has_begun = False
        #: The app sends nothing more, because its answer is whole or because it ended.
        self.is_over = False

        # The client.
        self._is_gone = False
        self._listeners: set[asyncio.Future[None]] = set()
        self._senders: set[asyncio.Future[None]] = set()

    # -- the server's thread --

    def begin(self) -> None:
        """Start the app."""
        self._loop.submit(self._run())

    def wait_for_answer(self) -> None:
        """Return once there are a status and headers, or there will be none.

        Raises:
            Exception: What reading the request's body raised.
        """
        while not (self.has_begun or self.is_over):
            self._wait()

    def next_block(self) -> bytes | None:
        """Wait for the next block, and take it; None where the app ended.

        Raises:
            Exception: What reading the request's body raised.
        """
        while True:
            is_over = self.is_over  # looked at first: the last block is queued before it is set
            if self.blocks:
                return self._take()
            if is_over:
                return None
            self._wait()

    def _wait(self) -> None:
        """Wait for something to happen in the loop; read the body meanwhile, where the app asks for it."""
        if self._is_asked and not self._is_read:
            self._read()
        elif self._gone_check is None:
            self._signal.wait()
        elif not self._signal.wait(_POLL_SECONDS) and self._gone_check():
            self._loop.call(self._disconnect)

    def _take(self) -> bytes:
        block = self.blocks.popleft()
        self._taken += len(block)
        # A sender queues up before it looks at what was taken, so one of the two sees the other.
        if self._senders:
            self._loop.call(self._wake, self._senders)
        return block

    def close(self) -> None:
        """Say that nothing more is taken; whatever of the answer is still missing is not wanted."""
        self._loop.call(self._disconnect)
        self._signal.close()

    def _read(self) -> None:
        """Read one piece of the request's body, and hand it to the app."""
        left = self._left
        size = _READ_BYTES if left is None else min(left, _READ_BYTES)
        # The one reader known to give what is there; read() waits for all of it (wsgiref).
        read = self._input.read1 if type(self._input) is BufferedReader else self._input.read
        cut = False
        try:
            data = read(size)
        except BadRequestError:
            raise
        except OSError:  # gevent and uWSGI, where the client has gone
            data, cut = b"", True
        if left is not None:
            self._left = left - len(data)
            cut = cut or not data
        is_last = not data or self._left == 0
        self._is_asked = False
        self._is_read = is_last
        self._loop.call(self._received, data, is_last, cut)

    # -- the loop's thread --

    def _received(self, data: bytes, is_last: bool, cut: bool) -> None:
        if cut:
            self.was_cut_short = True
            self._disconnect()
        else:
            self._inbox.append({"type": "http.request", "body": data, "more_body": not is_last})
            self._wake(self._listeners)

    async def _receive(self) -> Message:
        while True:
            if self._is_gone or self.is_whole:
                return {"type": "http.disconnect"}
            if self._inbox:
                return self._inbox.popleft()
            if not self._is_read and not self._is_asked:
                self._is_asked = True
                self._signal.set()
            await self._pause(self._listeners)

    async def _send(self, message: Message) -> None:
        kind = message.get("type")
        if kind == "http.response.start":
            self._start(message)
        elif kind == "http.response.body":
            await self._add(bytes(message.get("body", b"")), bool(message.get("more_body", False)))
        else:
            raise RuntimeError(f"an answer has no message {kind!r}")

    def _start(self, message: Message) -> None:
        if self.status:
            raise RuntimeError("http.response.start was sent twice")
        status = status_line(message.get("status"))
        headers, self._length = response_headers(message.get("headers", ()))
        self.is_bodiless = not has_body(status, self._method)
        if self._length is not None and not has_body(status):
            # RFC 9110 section 8.6: none in a 204; a 304's would have to be that of the 200, which nobody checks.
            headers = [header for header in headers if header[0].lower() != "content-length"]
            self._length = None
        self.status, self.headers = status, headers

    async def _add(self, block: bytes, more: bool) -> None:
        if not self.status:
            raise RuntimeError("http.response.body was sent before http.response.start")
        if self.is_whole:
            raise RuntimeError("http.response.body was sent after the answer's end")
        if self._is_gone:
            raise ClientDisconnectedError("the client has disconnected")
        length = self._length
        self._sent += len(block)
        if length is not None and not self.is_bodiless and (self._sent > length or (not more and self._sent < length)):
            word = "longer" if self._sent > length else "shorter"
            self.failure = RuntimeError(f"the answer's body is {word} than its Content-Length of {length}")
            self._end()
            raise self.failure
        if block and not self.is_bodiless:
            self._queued += len(block)
            self.blocks.append(block)
        self.has_begun = True
        if not more:
            self.is_whole = self.is_over = True
            self._wake(self._listeners)
        self._signal.set()
        while more and self._queued - self._taken > self._buffer_bytes:
            await self._pause(self._senders, lambda: self._queued - self._taken > self._buffer_bytes)
            if self._is_gone:
                raise ClientDisconnectedError("the client has disconnected")

    async def _pause(self, waiting: set[asyncio.Future[None]], still: Callable[[], bool] = lambda: True) -> None:
        """Wait to be woken, if after queueing for it there is *still* a reason to."""
        future = asyncio.get_running_loop().create_future()
        waiting.add(future)
        try:
            if still():
                await future
        finally:
            waiting.discard(future)

    @staticmethod
    def _wake(waiting: set[asyncio.Future[None]]) -> None:
        for future in [*waiting]:
            if not future.done():
                future.set_result(None)

    def _disconnect(self) -> None:
        """The client has gone, or wants no more."""
        if self._is_gone:
            return
        self._is_gone = True
        task = self._task
        if self.is_whole or task is None or task.done():
            return  # what still runs is a background task
        if self._listeners or self._senders or self.is_bodiless:
            # It hears of it from what it waits for, or has nothing to send anyway: it may end by itself.
            self._wake(self._listeners)
            self._wake(self._senders)
            asyncio.get_running_loop().call_later(_GRACE_SECONDS, self._cancel, task)
        else:
            self._cancel(task)

    def _cancel(self, task: asyncio.Task[None]) -> None:
        if not (task.done() or self.is_whole):
            task.cancel()

    async def _run(self) -> None:
        self._task = asyncio.current_task()
        try:
            if not self._is_gone:
                await self._app(self._scope, self._receive, self._send)
        except BaseException as error:  # noqa: BLE001  (SystemExit, too, would end the loop of every app)
            self._failed(error)
        else:
            if not self.is_over and not self._is_gone:
                what = "without the end of its answer" if self.status else "without an answer"
                self.failure = RuntimeError(f"the ASGI app {shown(self._app)} returned {what}")
        finally:
            self._end()

    def _failed(self, error: BaseException) -> None:
        """Keep what the app raised for the server's thread; what nobody waits for any more is logged."""
        is_cancelled = isinstance(error, asyncio.CancelledError)
        if self._is_gone and (is_cancelled or not self.status or _is_disconnect(error)):
            return  # the end of an answer that nobody wants
        if self.is_whole or self._is_gone:
            if not is_cancelled:
                _log.error("%s raised after its answer: %s", shown(self._app), error, exc_info=error)
        elif self.failure is None:
            if not isinstance(error, Exception):
                what = f"the ASGI app {shown(self._app)} raised {type(error).__name__}"
                self.failure = RuntimeError(what)
                self.failure.__cause__ = error
            else:
                self.failure = error

    def _end(self) -> None:
        self.is_over = True
        self._signal.set()


def _is_disconnect(error: BaseException | None) -> bool:
    """Tell whether an exception came of our own; Starlette raises another one instead of it."""
    for _ in range(20):
        if error is None or isinstance(error, ClientDisconnectedError):
            break
        error = error.__cause__ or error.__context__
    return isinstance(error, ClientDisconnectedError)
