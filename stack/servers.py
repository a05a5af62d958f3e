"""The servers that ``lamella run --server`` starts: how each is started, and what is known of it.

waitress, cheroot and wsgiref serve in this process. For the others this module says the command;
``lamella run`` becomes that command, so that signals, exit code and process id are the server's own.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from lamella.stack.kernel.errors import ConfigError, MissingExtraError, import_extra
from lamella.stack.problems import Problem
from lamella.stack.serve import GRACE_SECONDS, listen

if TYPE_CHECKING:
    import socket
    from wsgiref.types import WSGIApplication

    from lamella.stack.build import Stack

__all__ = ["NAMES", "Command", "Server", "command", "find", "serve_cheroot", "serve_wsgiref", "several_processes"]

_APPLICATION = "lamella.stack.wsgi:application"


class Server:
    """One server that can be asked for.

    Args:
        name: As ``--server`` has it.
        extra: The extra that brings it; empty where it is always there.
        package: What must be importable; empty where nothing is.
        processes: It has worker processes.
        binds: It listens at several addresses.
        notes: What to know of it, each a sentence; the same as in ``docs/servers.md``.
    """

    __slots__ = ("binds", "extra", "name", "notes", "package", "processes")

    def __init__(
        self, name: str, extra: str, package: str, *, processes: bool, binds: bool, notes: Sequence[str] = ()
    ) -> None:
        self.name = name
        self.extra = extra
        self.package = package
        self.processes = processes
        self.binds = binds
        self.notes = tuple(notes)


_SERVERS = {
    server.name: server
    for server in (
        Server("waitress", "", "", processes=False, binds=True),
        Server("gunicorn", "gunicorn", "gunicorn", processes=True, binds=True),
        Server(
            "gevent", "gevent", "gevent", processes=True, binds=True,
            notes=["whatever computes or waits outside of Python's own sockets holds up every request of its worker"],
        ),
        Server(
            "granian", "granian", "granian", processes=True, binds=False,
            notes=[
                "an answer that fails after its first byte ends as if it were whole: send a Content-Length",
                "a header with an underscore replaces the one with a dash: let a proxy in front drop it",
            ],
        ),
        Server(
            "uwsgi", "uwsgi", "", processes=True, binds=True,
            notes=[
                "a request without a Content-Length (chunked) gets a 411",
                "it takes headers with underscores for those with dashes, Content_Length too: put nginx in front",
            ],
        ),
        Server(
            "cheroot", "cheroot", "cheroot", processes=False, binds=False,
            notes=[
                "of two headers with one name only the last is kept",
                "a header with an underscore replaces the one with a dash: let a proxy in front drop it",
            ],
        ),
        Server(
            "wsgiref", "", "", processes=False, binds=False,
            notes=["for development: no keep-alive, no chunked requests (411), a thread for each connection"],
        ),
        Server(
            "uvicorn", "uvicorn", "uvicorn", processes=True, binds=False,
            notes=[
                "a client that leaves is not noticed: an answer runs to its end, and an endless one has none",
                "the stack runs in a2wsgi's threads: no wsgi.file_wrapper, no sendfile",
            ],
        ),
    )
}  # fmt: skip

#: Every name that ``--server`` takes.
NAMES = tuple(_SERVERS)


class Command:
    """What is started, as a person could type it.

    Args:
        words: The program and its arguments.
        variables: What is set in its environment, besides ours.
    """

    __slots__ = ("variables", "words")

    def __init__(self, words: Sequence[str], variables: Mapping[str, str]) -> None:
        self.words = tuple(words)
        self.variables = dict(variables)

    def __str__(self) -> str:
        variables = [f"{name}={shlex.quote(value)}" for name, value in self.variables.items()]
        return " ".join([*variables, shlex.join(self.words)])

    def become(self) -> NoReturn:
        """Let this process be that command from now on."""
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(self.words[0], self.words, {**os.environ, **self.variables})  # noqa: S606


def find(name: str, *, workers: int = 1, binds: Sequence[str] = ()) -> Server:
    """Return a server that is installed and can do what is asked of it.

    Raises:
        ConfigError: It has no worker processes, or listens at one address only.
        MissingExtraError: It is not installed.
    """
    server = _SERVERS[name]
    if workers > 1 and not server.processes:
        raise ConfigError("--workers", workers, f"1: {name} serves in one process; see --threads, or --server gunicorn")
    if len(binds) > 1 and not server.binds:
        raise ConfigError("--bind", " ".join(binds), f"one address: {name} listens at no more")
    for bind in binds:
        _address(bind)
    if server.package:
        import_extra(server.package, server.extra)
    if name == "gevent":
        import_extra("gunicorn", "gevent")
    if name == "uvicorn":
        import_extra("a2wsgi", "uvicorn")
    if name == "uwsgi":
        _uwsgi()
    return server


def several_processes(stack: Stack, workers: int) -> list[Problem]:
    """Say which layers and apps are wrong in several processes, each at its place in the stack file."""
    if workers < 2:
        return []
    from lamella.stack.traps import check_secrets

    found = []
    for part in stack.walk():
        for layer in part.layers:
            reason = part.single_process.get(layer.id)
            if reason is not None:
                message = f"{layer.full_id} works in one process only, not with {workers} workers: {reason}"
                found.append(Problem(layer.file, layer.line, layer.column, message, phase="build"))
    return found + check_secrets(stack, workers=workers)


# --- addresses ----------------------------------------------------------------------------------


def _address(bind: str) -> tuple[str, str, int]:
    """Return kind (``tcp``, ``unix``, ``fd``), host or path, and port or descriptor.

    Raises:
        ConfigError: Not an address.
    """
    if bind.startswith("unix:") and bind != "unix:":
        return "unix", bind[5:], 0
    if bind.startswith("fd://") and bind[5:].isdigit():
        return "fd", "", int(bind[5:])
    host, colon, port = bind.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ConfigError("bind", bind, '"host:port", "unix:/path" or "fd://N"')
    return "tcp", host.strip("[]") or "127.0.0.1", int(port)


def _one_address(name: str, bind: str, *, fd: str = "") -> list[str]:
    """Return the options of granian and uvicorn for an address."""
    kind, host, number = _address(bind)
    if kind == "unix":
        return ["--uds", host]
    if kind == "fd":
        if not fd:
            raise ConfigError("bind", bind, f'"host:port" or "unix:/path": {name} takes no descriptor')
        os.set_inheritable(number, True)
        return [fd, str(number)]
    return ["--host", host, "--port", str(number)]


def _any_address(bind: str, unix: str) -> str:
    """Return an address for gunicorn and uWSGI."""
    kind, host, number = _address(bind)
    if kind == "unix":
        return unix + host
    if kind == "fd":
        os.set_inheritable(number, True)
        return f"fd://{number}"
    return f"[{host}]:{number}" if ":" in host else f"{host}:{number}"


# --- commands -----------------------------------------------------------------------------------


def command(
    name: str,
    stack_file: str,
    *,
    profile: str | None = None,
    binds: Sequence[str] = ("127.0.0.1:8080",),
    workers: int = 1,
    threads: int = 8,
) -> Command:
    """Return the command for a server that is a program of its own.

    Args:
        name: ``gunicorn``, ``gevent``, ``granian``, ``uwsgi`` or ``uvicorn``.
        stack_file: Path of the stack file.
        profile: Name of a profile, or None.
        binds: Where to listen.
        workers: Number of processes.
        threads: Requests that each handles at a time; gunicorn with 1 uses its ``sync`` worker.

    Raises:
        ConfigError: The server cannot listen there.
        MissingExtraError: It is not installed.
    """
    variables = {"PYTHONPATH": _python_path(stack_file)}
    if name in ("gunicorn", "gevent"):
        return Command(_gunicorn(name, stack_file, profile, binds, workers, threads), variables)
    variables["LAMELLA_STACK"] = stack_file
    if profile is not None:
        variables["LAMELLA_PROFILE"] = profile
    if name == "granian":
        words = [sys.executable, "-m", "granian", "--interface", "wsgi", *_one_address(name, binds[0])]
        words += ["--workers", str(workers), "--blocking-threads", str(threads), "--no-ws", _APPLICATION]
    elif name == "uvicorn":
        variables["LAMELLA_THREADS"] = str(threads)
        words = [sys.executable, "-m", "uvicorn", *_one_address(name, binds[0], fd="--fd"), "--workers", str(workers)]
        # Who may say X-Forwarded-* is for the layer `proxy` to decide; the stack has an access log of its own.
        words += ["--interface", "asgi3", "--lifespan", "on", "--ws", "none", "--no-proxy-headers", "--no-access-log"]
        words += ["--timeout-graceful-shutdown", f"{GRACE_SECONDS:g}", "lamella.stack.wsgi:asgi"]
    else:
        words = [_uwsgi(), *(word for bind in binds for word in ("--http-socket", _any_address(bind, "")))]
        words += ["--master", "--processes", str(workers), "--threads", str(threads), "--enable-threads"]
        # Each process loads the stack itself; on SIGTERM requests in flight finish.
        words += ["--lazy-apps", "--need-app", "--hook-master-start", "unix_signal:15 gracefully_kill_them_all"]
        words += ["--worker-reload-mercy", f"{GRACE_SECONDS:g}", "--disable-logging"]
        words += ["--module", "lamella.stack.wsgi:load_application()"]
        if sys.prefix != sys.base_prefix:
            words += ["--virtualenv", sys.prefix]
    return Command(words, variables)


def _gunicorn(
    name: str, stack_file: str, profile: str | None, binds: Sequence[str], workers: int, threads: int
) -> list[str]:
    arguments = [json.dumps(stack_file, ensure_ascii=False)]
    if profile is not None:
        arguments.append(f"profile={json.dumps(profile, ensure_ascii=False)}")
    words = [sys.executable, "-m", "gunicorn", f"lamella.stack:load({', '.join(arguments)})"]
    for bind in binds:
        words += ["--bind", _any_address(bind, "unix:")]
    words += ["--workers", str(workers)]
    if name == "gevent":
        words += ["--worker-class", "gevent"]
    elif threads > 1:
        words += ["--worker-class", "gthread", "--threads", str(threads)]
    # Who may say X-Forwarded-* is for the layer `proxy` to decide. And from a trusted sender gunicorn
    # takes headers called SCRIPT_NAME and PATH_INFO for the variables.
    words += ["--forwarded-allow-ips", ""]
    if _has_control_socket():
        # One file for all the gunicorns of a user.
        words.append("--no-control-socket")
    return words


def _has_control_socket() -> bool:
    try:
        settings: Any = import_module("gunicorn.config").KNOWN_SETTINGS
    except ImportError:
        return False
    return any("--no-control-socket" in (setting.cli or ()) for setting in settings)


def _uwsgi() -> str:
    """Return the path of uWSGI: beside this Python, else on the path.

    Raises:
        MissingExtraError: It is not there.
    """
    found = shutil.which("uwsgi", path=os.path.dirname(sys.executable)) or shutil.which("uwsgi")
    if found is None:
        raise MissingExtraError("uwsgi", "uwsgi")
    return found


def _python_path(stack_file: str) -> str:
    """Return PYTHONPATH with the stack file's folder, for ``use = "app:application"``."""
    folder = str(Path(stack_file).resolve().parent)
    return os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))


# --- servers in this process ----------------------------------------------------------------------


def serve_wsgiref(
    app: WSGIApplication, bind: str, *, ready: Callable[[socket.socket], object] = lambda listening: None
) -> None:
    """Serve with the standard library's server, a thread for each connection, until SIGTERM or SIGINT.

    Requests in flight finish.

    Args:
        app: The application.
        bind: ``host:port`` or ``fd://N``.
        ready: Called with the listening socket.

    Raises:
        ConfigError: *bind* is no such address.
    """
    from socketserver import ThreadingMixIn
    from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

    if bind.startswith("unix:"):
        raise ConfigError("bind", bind, '"host:port" or "fd://N": wsgiref listens on no path')

    class Handler(WSGIRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Be silent: the stack has an access log of its own."""

    class Server(ThreadingMixIn, WSGIServer):
        def handle_error(self, *_: Any) -> None:
            """Be silent about a client that left; wsgiref has printed what the app raised."""
            if not isinstance(sys.exc_info()[1], OSError):
                super().handle_error(*_)

    listening = listen(bind)
    host, port = listening.getsockname()[:2]
    server = Server((host, port), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listening
    server.server_name, server.server_port = host, port
    server.setup_environ()
    server.set_app(app)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="wsgiref")
    _until_signal(thread, lambda: ready(listening), server.shutdown)
    server.server_close()  # waits for the threads


def serve_cheroot(
    app: WSGIApplication,
    bind: str,
    *,
    threads: int = 8,
    ready: Callable[[socket.socket], object] = lambda listening: None,
) -> None:
    """Serve with cheroot until SIGTERM or SIGINT; requests in flight finish.

    Args:
        app: The application.
        bind: ``host:port`` or ``unix:/path``.
        threads: Requests handled at a time.
        ready: Called with the listening socket.

    Raises:
        ConfigError: *bind* is no such address.
        MissingExtraError: cheroot is not installed.
    """
    wsgi = import_extra("cheroot.wsgi", "cheroot")
    kind, host, port = _address(bind)
    if kind == "fd":
        raise ConfigError("bind", bind, '"host:port" or "unix:/path": cheroot takes no descriptor')
    server = wsgi.Server(
        host if kind == "unix" else (host, port),
        app,
        numthreads=threads,
        request_queue_size=1024,
        shutdown_timeout=GRACE_SECONDS,
    )
    try:
        server.prepare()
    except OSError as error:
        raise ConfigError("bind", bind, f"an address to listen on ({error.strerror or error})") from None
    thread = threading.Thread(target=server.serve, name="cheroot")
    _until_signal(thread, lambda: ready(server.socket), server.stop)


def _until_signal(thread: threading.Thread, ready: Callable[[], object], stop: Callable[[], object]) -> None:
    """Run *thread* until SIGTERM or SIGINT, then call *stop*."""
    asked = threading.Event()
    numbers: Iterable[signal.Signals] = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda *_: asked.set()) for number in numbers}
    try:
        thread.start()
        ready()
        while thread.is_alive() and not asked.wait(0.5):
            pass
        stop()
        thread.join()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
