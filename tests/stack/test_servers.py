"""lamella run --server: the commands, what is refused, and what several processes would break."""

from __future__ import annotations

import asyncio
import importlib
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lamella.stack import Stack, StackFileError, load, servers
from lamella.stack.check import check
from lamella.stack.cli.check import command_check
from lamella.stack.cli.run import SERVERS, command_run
from lamella.stack.kernel.errors import ConfigError, MissingExtraError
from lamella.stack.servers import NAMES, command, find, several_processes

PROGRAMS = ("gunicorn", "gevent", "granian", "uwsgi", "uvicorn")
STACK = """lamella = 1

[app]
use = "wsgiref.simple_server:demo_app"

[[layer]]
use = "edge"
"""
SESSION = """
[[layer]]
use    = "session"
secret = { env = "SERVERS_TEST_KEY" }
store  = "memory:"
secure = false
"""


@pytest.fixture
def stack_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stack file; the secret of a session is there."""
    monkeypatch.setenv("SERVERS_TEST_KEY", "0123456789abcdef0123456789abcdef")
    path = tmp_path / "stack.toml"
    path.write_text(STACK)
    return path


def words(name: str, **options: object) -> list[str]:
    """The command of an installed server; a test of one that is not installed is skipped."""
    try:
        made = command(name, "stack.toml", **options)  # type: ignore[arg-type]
    except MissingExtraError as error:
        pytest.skip(str(error))
    return list(made.words)


def test_the_names_are_those_of_the_option() -> None:
    """``--server`` offers what there is."""
    assert NAMES == SERVERS


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_command_says_where_how_many_and_what(name: str) -> None:
    """In the words of that server."""
    made = " ".join(words(name, binds=["127.0.0.1:8099"], workers=3, threads=5))

    assert "8099" in made
    assert " 3 " in made
    assert "lamella.stack" in made
    assert made.startswith(os.path.dirname(sys.executable) + "/") or name == "uwsgi"


def test_gunicorn_gets_the_promised_reference() -> None:
    """With the profile, quoted for gunicorn; the sync worker where there is one thread."""
    made = words("gunicorn", profile='a"b', threads=1)
    assert made[3] == r'lamella.stack:load("stack.toml", profile="a\"b")'
    assert "--worker-class" not in made
    assert "gthread" in words("gunicorn")
    assert "gevent" in words("gevent")


def test_gunicorn_opens_no_control_socket() -> None:
    """Version 25 and later share one file among all gunicorns of a user."""
    config = pytest.importorskip("gunicorn.config")
    knows = any("--no-control-socket" in (setting.cli or ()) for setting in config.KNOWN_SETTINGS)

    assert ("--no-control-socket" in words("gunicorn")) == knows


def test_a_command_can_be_typed() -> None:
    """Quoted for a shell, with what is set in its environment."""
    made = servers.Command(["/bin/x", "a b", "c'd"], {"PYTHONPATH": "/a b"})

    assert str(made) == "PYTHONPATH='/a b' /bin/x 'a b' 'c'\"'\"'d'"
    assert shlex.split(str(made)) == ["PYTHONPATH=/a b", "/bin/x", "a b", "c'd"]


def test_the_folder_of_the_stack_file_can_be_imported_by_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before whatever was on PYTHONPATH."""
    monkeypatch.setenv("PYTHONPATH", "/other")
    pytest.importorskip("gunicorn")

    made = command("gunicorn", "/srv/shop/stack.toml")

    assert made.variables == {"PYTHONPATH": f"/srv/shop{os.pathsep}/other"}


@pytest.mark.parametrize(
    ("name", "bind", "expected"),
    [
        ("gunicorn", "unix:/run/x.sock", "--bind unix:/run/x.sock"),
        ("gunicorn", "[::1]:80", "--bind [::1]:80"),
        ("gunicorn", ":80", "--bind 127.0.0.1:80"),
        ("uwsgi", "unix:/run/x.sock", "--http-socket /run/x.sock"),
        ("granian", "unix:/run/x.sock", "--uds /run/x.sock"),
        ("granian", "[::1]:80", "--host ::1 --port 80"),
        ("uvicorn", "unix:/run/x.sock", "--uds /run/x.sock"),
    ],
)
def test_an_address_in_the_words_of_the_server(name: str, bind: str, expected: str) -> None:
    """One spelling for all of them."""
    assert expected in " ".join(words(name, binds=[bind]))


def test_several_addresses() -> None:
    """Where the server can listen at several."""
    made = words("gunicorn", binds=["127.0.0.1:1", "unix:/x"])

    assert made.count("--bind") == 2


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("waitress", {"workers": 2}, "serves in one process"),
        ("cheroot", {"workers": 2}, "serves in one process"),
        ("wsgiref", {"binds": ["127.0.0.1:1", "127.0.0.1:2"]}, "one address"),
        ("granian", {"binds": ["127.0.0.1:1", "127.0.0.1:2"]}, "one address"),
        ("waitress", {"binds": ["nonsense"]}, "host:port"),
        ("waitress", {"binds": ["host:99999"]}, "host:port"),
        ("waitress", {"binds": ["unix:"]}, "host:port"),
    ],
)
def test_what_a_server_cannot_do_is_refused(name: str, options: dict[str, object], said: str) -> None:
    """Before anything is built."""
    with pytest.raises(ConfigError, match=said):
        find(name, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["granian", "cheroot"])
def test_a_descriptor_is_refused_where_none_is_taken(name: str) -> None:
    """Instead of another socket than the one that was meant."""
    with pytest.raises((ConfigError, MissingExtraError), match=r"descriptor|pip install"):
        if name == "cheroot":
            servers.serve_cheroot(lambda environ, start_response: [], "fd://3")
        else:
            command(name, "stack.toml", binds=["fd://3"])


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [("gunicorn", "gunicorn", "gunicorn"), ("gevent", "gevent", "gevent"), ("granian", "granian", "granian")],
)
def test_a_missing_server_names_its_extra(name: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that says what to install."""
    monkeypatch.setattr(sys, "meta_path", [_Blocker(module), *sys.meta_path])
    for loaded in [key for key in sys.modules if key == module or key.startswith(module + ".")]:
        monkeypatch.delitem(sys.modules, loaded)

    with pytest.raises(MissingExtraError, match=rf"pip install 'lamella\[{extra}\]'"):
        find(name)


class _Blocker:
    """Lets one package be missing."""

    def __init__(self, name: str) -> None:
        self._name = name

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == self._name:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_a_missing_uwsgi_names_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is a program, not a module."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))

    with pytest.raises(MissingExtraError, match=r"lamella\[uwsgi\]"):
        find("uwsgi")


def test_what_is_known_of_a_server_stands_in_the_manual() -> None:
    """The lines that ``lamella run`` says are those of docs/servers.md."""
    manual = (Path(__file__).parents[2] / "docs" / "servers.md").read_text(encoding="utf-8")

    for name in NAMES:
        for note in servers._SERVERS[name].notes:
            assert f"- `{name}`: {note}." in manual


# --- several processes --------------------------------------------------------------------------


def test_a_session_in_memory_is_refused_with_several_workers(stack_file: Path) -> None:
    """At its line; with one worker it is right."""
    stack_file.write_text(STACK + SESSION)
    stack = load(stack_file)

    assert several_processes(stack, 1) == []
    problems = several_processes(stack, 2)
    assert [(one.line, one.exit_code, one.warning) for one in problems] == [(9, 6, False)]
    assert "session works in one process only, not with 2 workers" in problems[0].message
    assert check(stack_file).exit_code == 0
    assert check(stack_file, workers=4).exit_code == 6


def test_a_secret_that_only_this_file_has_is_refused_with_several_workers(stack_file: Path) -> None:
    """``{ insecure = … }`` is for development."""
    insecure = '{ insecure = "0123456789abcdef0123456789abcdef" }'
    cookie = SESSION.replace('"memory:"', '"cookie"')
    stack_file.write_text(STACK + cookie.replace('{ env = "SERVERS_TEST_KEY" }', insecure))
    assert [one.phase for one in several_processes(load(stack_file), 2)] == ["build"]
    stack_file.write_text(STACK + cookie)
    assert several_processes(load(stack_file), 2) == []


def test_a_layer_in_a_sub_stack_and_with_a_scope_is_found(stack_file: Path) -> None:
    """Wherever it stands."""
    scoped = SESSION.replace("[[layer]]", "[[stack.inner.layer]]") + 'when = { paths = ["/x/*"] }\n'
    app = '[app]\nuse = "@inner"\n[stack.inner]\napp = { use = "wsgiref.simple_server:demo_app" }\n'
    stack_file.write_text(f"lamella = 1\n{app}{scoped}")

    assert ["inner/session" in one.message for one in several_processes(load(stack_file), 2)] == [True]


def test_any_layer_can_say_that_it_works_in_one_process_only() -> None:
    """By an attribute of what its factory makes; another stack made of it says the same."""

    class Counting:
        single_process = "it counts in memory"

        def __init__(self, app: object) -> None: ...

        def __call__(self, environ: object, start_response: object) -> list[bytes]:
            return []

    stack = Stack([Counting, "edge"], app=lambda environ, start_response: [])

    assert stack.single_process == {"Counting": "it counts in memory"}
    assert stack.without("edge").single_process == {"Counting": "it counts in memory"}
    assert stack.without("Counting").single_process == {}


# --- for servers that take no arguments ---------------------------------------------------------


@pytest.fixture
def module(stack_file: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``lamella.stack.wsgi``, imported anew, with a stack file in its variable."""
    monkeypatch.setenv("LAMELLA_STACK", str(stack_file))
    monkeypatch.delitem(sys.modules, "lamella.stack.wsgi", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return importlib.import_module("lamella.stack.wsgi")


def test_the_stack_of_the_variable(module: Any, stack_file: Path) -> None:
    """It is loaded when it is asked for, once, and what is beside it can be imported."""
    assert "application" not in vars(module)

    stack = module.application

    assert stack is module.application
    assert [layer.id for layer in stack] == ["edge"]
    assert sys.path[0] == str(stack_file.parent)
    with pytest.raises(AttributeError, match="nothing"):
        _ = module.nothing


def test_the_profile_of_the_variable(module: Any, stack_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is none is an error, as everywhere."""
    monkeypatch.setenv("LAMELLA_PROFILE", "nowhere")

    with pytest.raises(StackFileError, match="nowhere"):
        module.load_application()


def test_the_stack_as_an_asgi_application(module: Any) -> None:
    """It answers, takes part in the server's lifespan, and closes a websocket."""
    pytest.importorskip("a2wsgi")

    def talk(scope: dict[str, Any], *messages: dict[str, Any]) -> list[dict[str, Any]]:
        waiting, sent = list(messages), []

        async def receive() -> dict[str, Any]:
            return waiting.pop(0) if waiting else {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        asyncio.run(module.asgi(scope, receive, send))
        return sent

    http = {
        "type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "root_path": "",
        "http_version": "1.1", "scheme": "http", "headers": [(b"host", b"x.example")],
        "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 1),
    }  # fmt: skip
    answer = talk(http, {"type": "http.request", "body": b"", "more_body": False})
    life = talk({"type": "lifespan"}, {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
    socket = talk({"type": "websocket"}, {"type": "websocket.connect"})

    assert answer[0]["status"] == 200
    assert b"Hello world!" in b"".join(message.get("body", b"") for message in answer)
    assert [message["type"] for message in life] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert socket == [{"type": "websocket.close", "code": 1000}]


# --- the command line ---------------------------------------------------------------------------


def test_run_and_check_refuse_what_needs_one_process(stack_file: Path) -> None:
    """With the place, and nothing is started."""
    stack_file.write_text(STACK + SESSION)
    run = CliRunner().invoke(command_run, [str(stack_file), "--server", "gunicorn", "--workers", "2"])
    checked = CliRunner().invoke(command_check, [str(stack_file), "--workers", "2"])

    assert (run.exit_code, checked.exit_code) == (6, 6)
    assert "stack.toml:9:1: session works in one process only" in run.output
    assert "stack.toml:9:1: session works in one process only" in checked.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--reload", "--server", "gunicorn"], "--reload works with waitress"),
        (["--server", "apache"], "apache"),
        (["--workers", "0"], "0 is not in the range"),
    ],
)
def test_run_says_what_does_not_go_together(stack_file: Path, arguments: list[str], said: str) -> None:
    """One line, exit code 2."""
    done = CliRunner().invoke(command_run, [str(stack_file), *arguments])

    assert done.exit_code == 2
    assert said in done.output


def test_wsgiref_listens_on_no_path() -> None:
    """It wants a host and a port for its environ."""
    with pytest.raises(ConfigError, match="wsgiref"):
        servers.serve_wsgiref(lambda environ, start_response: [], "unix:/tmp/x")
