"""The event loop of the process, for every ASGI app in it, and the lifespan of each.

One loop, in one thread of the operating system, opened with the first request of a process and
never before: a thread made before a ``fork()`` does not exist after it. Under gevent that thread
is a real one, too; the greenlet that serves the request is woken through gevent's own hub.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures.thread  # noqa: F401  (its own exit function must be registered before ours)
import contextvars
import logging
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from importlib import import_module
from typing import Any, TypeAlias

from lamella.stack.kernel.errors import LamellaError

from ._asgi_scope import ASGI

__all__ = ["ASGIApplication", "Lifespan", "LifespanError", "Loop", "Signal", "current_loop"]

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApplication: TypeAlias = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

#: Background tasks, and each lifespan's shutdown, may take this long when the process ends.
EXIT_SECONDS = 10.0
# A startup that failed is tried again, but not by each of a thousand requests a second.
_RETRY_SECONDS = 1.0

_log = logging.getLogger("lamella.asgi")


class LifespanError(LamellaError, RuntimeError):
    """An ASGI app did not start; the message says why, in its own words."""


# --- waking the thread that serves ----------------------------------------------------------------


def _gevent() -> Any:
    """Return the package gevent where it has made threads into greenlets; else None."""
    monkey = sys.modules.get("gevent.monkey")
    return sys.modules["gevent"] if monkey is not None and monkey.is_module_patched("threading") else None


class Signal:
    """Set by the loop's thread, waited for by the one thread or greenlet that serves a request."""

    __slots__ = ("_event", "_lock", "_watcher")

    def __init__(self) -> None:
        gevent = _gevent()
        self._event: Any = None
        if gevent is None:
            # A lock that is free once the signal is set: waiting and setting are one call each.
            self._lock = threading.Lock()
            self._lock.acquire()
        else:
            # Only the hub of this very thread may wake a greenlet of it; its async watcher is the
            # one thing of the hub that other threads may touch, for as long as it is open.
            self._event = import_module("gevent.event").Event()
            self._lock = gevent.monkey.get_original("_thread", "allocate_lock")()
            self._watcher: Any = gevent.get_hub().loop.async_()
            self._watcher.start(self._event.set)

    def set(self) -> None:
        """Wake the waiting thread; it need not wait yet."""
        if self._event is not None:
            with self._lock:
                if self._watcher is not None:
                    self._watcher.send()
            return
        try:
            self._lock.release()
        except RuntimeError:
            pass  # set already

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it is set, and take it back; False where that took too long."""
        if self._event is None:
            return self._lock.acquire(timeout=-1 if seconds is None else seconds)
        was_set: bool = self._event.wait(seconds)
        self._event.clear()
        return was_set

    def close(self) -> None:
        """Give the watcher back to its hub; setting it does nothing from then on."""
        if self._event is not None:
            with self._lock:
                watcher, self._watcher = self._watcher, None
                if watcher is not None:
                    watcher.stop()
                    watcher.close()


# --- the loop -----------------------------------------------------------------------------------


class Loop:
    """An event loop in a thread of its own, and what runs in it."""

    loop: asyncio.AbstractEventLoop

    def __init__(self) -> None:
        _refuse_uwsgi_without_threads()
        _refuse_late_gevent()
        self.pid = os.getpid()
        self.tasks: set[asyncio.Task[None]] = set()
        self.lifespans: dict[int, Lifespan] = {}
        self._closed = False
        self._lock = threading.Lock()
        started, ended = Signal(), Signal()
        self._ended = ended

        def run() -> None:
            try:
                self.loop = loop = asyncio.new_event_loop()
            except BaseException:
                started.set()
                raise
            asyncio.set_event_loop(loop)
            loop.call_soon(started.set)
            try:
                while not self._closed:
                    try:
                        loop.run_forever()
                    except (SystemExit, KeyboardInterrupt) as error:  # of a task that an app made
                        _log.error("a task of an ASGI app raised %s", type(error).__name__, exc_info=error)
                loop.run_until_complete(loop.shutdown_asyncgens())
                if _gevent() is not None:
                    # Its threads are greenlets of this thread: nobody could join them after its end. Real ones are
                    # joined at exit, and this would start one more, which a Python that ends refuses (3.12).
                    loop.run_until_complete(loop.shutdown_default_executor())
            finally:
                asyncio.set_event_loop(None)
                loop.close()
                ended.set()

        _start_os_thread(run)
        started.wait()
        started.close()
        if not hasattr(self, "loop"):
            raise LamellaError("the event loop for ASGI apps cannot be opened; the traceback is in the log")

    def submit(self, work: Coroutine[Any, Any, None]) -> None:
        """Run *work* as a task, in a copy of the caller's context variables.

        Raises:
            LamellaError: The loop has ended, because the process does.
        """

        def begin() -> None:
            task = self.loop.create_task(work)
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

        try:
            self.loop.call_soon_threadsafe(begin, context=contextvars.copy_context())
        except RuntimeError:
            work.close()
            raise LamellaError("the process is ending; it runs no ASGI app any more") from None

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Call *function* in the loop's thread, soon; nothing happens once the loop has ended."""
        try:
            self.loop.call_soon_threadsafe(function, *arguments, context=contextvars.copy_context())
        except RuntimeError:
            if not self._closed:
                raise

    def lifespan(self, app: ASGIApplication, mode: str, seconds: float) -> Lifespan:
        """Return the lifespan of *app* in this process, one for however many mounts."""
        with self._lock:
            found = self.lifespans.get(id(app))
            if found is None:
                found = self.lifespans[id(app)] = Lifespan(self, app, mode, seconds)
        return found

    def close(self, seconds: float = EXIT_SECONDS) -> None:
        """Let what runs finish, shut the lifespans down, stop the loop."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        done = Signal()

        async def end() -> None:
            try:
                if self.tasks:
                    _, late = await asyncio.wait([*self.tasks], timeout=seconds)
                    for task in late:
                        task.cancel()
                for lifespan in reversed([*self.lifespans.values()]):
                    await lifespan.shut_down(seconds)
            finally:
                done.set()

        tasks: list[asyncio.Task[None]] = []
        try:
            self.loop.call_soon_threadsafe(lambda: tasks.append(self.loop.create_task(end())))
            done.wait(3 * seconds)
            self.loop.call_soon_threadsafe(self.loop.stop)
        except RuntimeError:
            return
        self._ended.wait(seconds)


def _start_os_thread(run: Callable[[], None]) -> None:
    """Start a real thread that nobody waits for at exit, also where gevent has replaced threads."""
    gevent = _gevent()
    if gevent is not None:
        gevent.monkey.get_original("_thread", "start_new_thread")(run, ())
    else:
        threading.Thread(target=run, name="lamella-asgi", daemon=True).start()


def _refuse_uwsgi_without_threads() -> None:
    """uWSGI gives Python's threads no time unless it is told to."""
    uwsgi = sys.modules.get("uwsgi")
    options = getattr(uwsgi, "opt", None)
    if isinstance(options, dict) and not {"enable-threads", "threads"} & {_text(key) for key in options}:
        raise LamellaError("an ASGI app needs Python threads: start uWSGI with --enable-threads")


def _refuse_late_gevent() -> None:
    """A framework that was imported before gevent patched keeps one set of thread-locals for all greenlets.

    anyio's worker threads (every sync endpoint of Starlette and FastAPI) then fail and hang.
    """
    locals_of_anyio = getattr(sys.modules.get("anyio._core._eventloop"), "threadlocals", None)
    if _gevent() is not None and type(locals_of_anyio).__module__ == "_thread":
        raise LamellaError(
            "gevent replaced threads after the ASGI app was imported: run gunicorn's gevent worker without --preload"
        )


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


_make_lock = threading.Lock
_lock = _make_lock()
_loop: Loop | None = None


def current_loop() -> Loop:
    """Return the loop of this process; the first call after a fork opens another."""
    found = _loop
    if found is not None and found.pid == os.getpid() and not found._closed:
        return found
    return _open_loop()


def _open_loop() -> Loop:
    global _lock, _loop, _make_lock
    if _make_lock is not threading.Lock:
        # gevent has patched since (gunicorn --preload): a lock of threads would stop every greenlet.
        _make_lock = threading.Lock
        _lock = _make_lock()
    with _lock:
        if _loop is None or _loop.pid != os.getpid() or _loop._closed:
            _loop = Loop()
            _at_exit()
        return _loop


def _forget() -> None:
    """In a forked process: its parent's thread is not there, and its parent's lock may be taken for ever."""
    global _lock, _loop
    _lock, _loop = _make_lock(), None


os.register_at_fork(after_in_child=_forget)


def close_loop() -> None:
    """End the loop of this process; called at its exit, and safe to call before."""
    found = _loop
    if found is not None and found.pid == os.getpid():
        found.close()


_registered: list[int] = []


def _at_exit() -> None:
    """Shut down when the process ends, while it still can start threads: a lifespan may need one."""
    if _registered and _registered[0] == os.getpid():
        return
    is_first = not _registered
    _registered[:] = [os.getpid()]
    multiprocessing = sys.modules.get("multiprocessing.util")
    if multiprocessing is not None and sys.modules["multiprocessing"].parent_process() is not None:
        # A process of multiprocessing leaves through os._exit() and calls only these.
        multiprocessing.Finalize(None, close_loop, exitpriority=100)
    if is_first:
        # Python ends by joining threads, and then calls what atexit holds; since 3.12 no thread can be
        # started by then. What threading itself calls comes before both.
        early = getattr(threading, "_register_atexit", None)
        try:
            if early is not None:
                early(close_loop)
        except RuntimeError:
            pass  # the process is ending already
        atexit.register(close_loop)


# --- lifespans ----------------------------------------------------------------------------------


class Lifespan:
    """Startup and shutdown of one app in one process.

    Args:
        loop: Where it runs.
        app: The app; kept, so that its identity stays its own.
        mode: ``"auto"`` (an app that raises knows no lifespan), ``"on"`` (that is a failure) or ``"off"``.
        seconds: How long the startup may take.
    """

    def __init__(self, loop: Loop, app: ASGIApplication, mode: str, seconds: float) -> None:
        self.app = app
        self.state: dict[str, Any] = {}
        self._loop = loop
        self._mode = mode
        self._seconds = seconds
        self._lock = threading.Lock()
        self._is_up = mode == "off"
        self._error: str | None = None
        self._retry_at = 0.0
        self._inbox: asyncio.Queue[Message] | None = None
        self._outcome: asyncio.Future[str | None] | None = None
        self._stopped: asyncio.Future[str | None] | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the app, once, however many threads ask.

        Raises:
            LifespanError: It failed to, or took too long.
        """
        if self._is_up:
            return
        with self._lock:
            if self.is_up():
                return
            if self._error is None or time.monotonic() >= self._retry_at:
                self._error = self._start()
                self._retry_at = time.monotonic() + _RETRY_SECONDS
                self._is_up = self._error is None
            if self._error is not None:
                raise LifespanError(f"the ASGI app {shown(self.app)} did not start: {self._error}")

    def is_up(self) -> bool:
        """Tell whether requests may come."""
        return self._is_up

    def _start(self) -> str | None:
        """Return why the app did not start, None where it did."""
        done = Signal()
        outcome: list[str | None] = []

        async def start() -> None:
            try:
                outcome.append(await self._start_up())
            finally:
                done.set()

        self._loop.submit(start())
        done.wait()
        done.close()
        return outcome[0] if outcome else "it was cancelled"

    async def _start_up(self) -> str | None:
        loop = asyncio.get_running_loop()
        self.state = {}
        self._inbox = asyncio.Queue()
        self._outcome, self._stopped = loop.create_future(), loop.create_future()
        self._inbox.put_nowait({"type": "lifespan.startup"})
        # Not in the set of the loop's tasks: it lives as long as the process.
        self._task = loop.create_task(self._run(), context=contextvars.Context())
        done, _ = await asyncio.wait([self._outcome], timeout=self._seconds)
        if not done:
            self._task.cancel()
            return f"its startup takes longer than {self._seconds:g} s"
        return self._outcome.result()

    async def _run(self) -> None:
        assert self._inbox is not None  # noqa: S101  (set by _start_up)
        assert self._outcome is not None  # noqa: S101
        assert self._stopped is not None  # noqa: S101
        error: BaseException | None = None
        try:
            await self.app({"type": "lifespan", "asgi": dict(ASGI), "state": self.state}, self._inbox.get, self._send)
        except (Exception, asyncio.CancelledError) as raised:  # noqa: BLE001  (an app may raise anything)
            error = raised
        if not self._outcome.done():
            if self._mode == "on":
                why = f"{type(error).__name__}: {error}" if error is not None else "it returned without an answer"
                self._outcome.set_result(why)
            else:
                # As uvicorn does: an app that raises at a scope it does not know has no lifespan.
                _log.debug("the ASGI app %s has no lifespan: %r", shown(self.app), error)
                self._outcome.set_result(None)
        elif error is not None and not isinstance(error, asyncio.CancelledError) and self._outcome.result() is None:
            _log.error("the lifespan of the ASGI app %s ended: %s", shown(self.app), error, exc_info=error)
        if not self._stopped.done():
            self._stopped.set_result(None)

    async def _send(self, message: Message) -> None:
        assert self._outcome is not None  # noqa: S101
        assert self._stopped is not None  # noqa: S101
        kind = message.get("type")
        if kind in ("lifespan.startup.complete", "lifespan.startup.failed"):
            if self._outcome.done():
                raise RuntimeError(f"{kind} was sent after the startup had ended")
            failed = kind.endswith("failed")
            why = str(message.get("message") or "").strip() or "it gave no reason"
            self._outcome.set_result(why if failed else None)
        elif kind in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
            if kind.endswith("failed"):
                _log.error("the ASGI app %s failed to shut down: %s", shown(self.app), message.get("message", ""))
            if not self._stopped.done():
                self._stopped.set_result(None)
        else:
            raise RuntimeError(f"a lifespan has no message {kind!r}")

    async def shut_down(self, seconds: float) -> None:
        """Tell the app that the process ends, and wait for its answer."""
        if not self._is_up or self._inbox is None or self._stopped is None or self._task is None or self._task.done():
            return
        self._inbox.put_nowait({"type": "lifespan.shutdown"})
        done, _ = await asyncio.wait([self._stopped], timeout=seconds)
        if not done:
            _log.error("the ASGI app %s takes longer than %g s to shut down", shown(self.app), seconds)
            self._task.cancel()
            return
        await asyncio.wait([self._task], timeout=seconds)


def shown(app: object) -> str:
    """Name an app for a person."""
    name = getattr(app, "__qualname__", None) or type(app).__qualname__
    return f"{getattr(app, '__module__', None) or type(app).__module__}.{name}"
