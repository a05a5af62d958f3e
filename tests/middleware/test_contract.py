"""The layer contract: every module in ``middleware/`` keeps it, found by listing the folder.

A layer is built from the TOML sample in its own module docstring. Where a plain
``GET /`` would not reach the app inside, the layer's test file has a ``CONTRACT``
dictionary: ``options`` (instead of the sample's), ``headers``, ``path``.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import io
import tomllib
from pathlib import Path
from typing import Any

import pytest

import lamella.middleware
from lamella.stack.testing import RecordingApp, call, environ, lint

TESTS = Path(__file__).parent
FOLDER = Path(lamella.middleware.__path__[0])
MODULES = sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("_"))


class Subject:
    """One layer, and the request that passes through it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.module = importlib.import_module(f"lamella.middleware.{name}")
        (class_name,) = [public for public in self.module.__all__ if public.endswith("Middleware")]
        self.factory = getattr(self.module, class_name)
        contract = _contract(name)
        self.options = contract["options"] if "options" in contract else _sample(self.module.__doc__ or "")
        self.path = contract.get("path", "/")
        self.headers = contract.get("headers", {})

    def build(self, app: Any) -> Any:
        options = self.options() if callable(self.options) else self.options
        return self.factory(app, **options)

    def request(self, method: str = "GET", **more: Any) -> dict[str, Any]:
        return environ(method, self.path, **{**self.headers, **more})


def _contract(name: str) -> dict[str, Any]:
    """The ``CONTRACT`` of the layer's own test file, which must exist."""
    path = TESTS / f"test_{name}.py"
    spec = importlib.util.spec_from_file_location(f"_contract_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, Any] = getattr(module, "CONTRACT", {})
    return found


def _sample(docstring: str) -> dict[str, Any]:
    """The options of the first ``[[layer]]`` in the docstring's TOML sample."""
    _, marker, rest = docstring.partition(".. code-block:: toml\n")
    assert marker, "the module docstring has no stack-file sample"
    block = []
    for line in rest.splitlines():
        if line and not line.startswith("    "):
            break
        block.append(line[4:])
    layer = tomllib.loads("\n".join(block))["layer"][0]
    return {key: _value(value) for key, value in layer.items() if key not in ("use", "id", "when")}


def _value(value: Any) -> Any:
    """Resolve ``{ env = … }`` as the loader does."""
    if isinstance(value, dict) and set(value) <= {"env", "file", "default", "insecure"}:
        return "0123456789abcdefghijklmnopqrstuvwxyzABCDEF"
    if isinstance(value, list):
        return [_value(item) for item in value]
    return value


@pytest.fixture(params=MODULES)
def subject(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Subject:
    """Each layer in turn; relative paths of its sample are in ``tests/data``."""
    monkeypatch.chdir(TESTS.parent / "data")
    return Subject(request.param)


def test_passes_the_linter_on_both_sides(subject: Subject) -> None:
    """An ordinary answer goes through unharmed and reaches its end."""
    app = RecordingApp()

    response = call(lint(subject.build(lint(app))), subject.request())

    assert (response.code, response.body) == (200, b"hello")
    assert app.closed == 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_closes_the_inner_body_once(subject: Subject, method: str) -> None:
    """``close()`` of the inner iterable comes exactly once, whatever the method."""
    app = RecordingApp(body=[] if method == "HEAD" else [b"a", b"b"])

    call(subject.build(app), subject.request(method))

    assert app.closed == app.called


@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_closes_when_the_client_leaves(subject: Subject, blocks: int) -> None:
    """A client that goes away after some blocks still gets the inner body closed, once."""
    app = RecordingApp(body=[b"a", b"b", b"c"])

    call(subject.build(app), subject.request(), blocks=blocks)

    assert app.closed == 1


def test_closes_when_the_body_raises(subject: Subject) -> None:
    """An exception in the middle of the body closes it, once."""
    app = RecordingApp(body=[b"a"], raises_after=RuntimeError("boom"))

    call(subject.build(app), subject.request(), keep_error=True)

    assert app.closed == 1


def test_supports_an_app_that_starts_late(subject: Subject) -> None:
    """``start_response`` may come inside the first ``next()``."""
    app = RecordingApp(late=True, body=[b"late", b"r"])

    response = call(lint(subject.build(lint(app))), subject.request())

    assert (response.code, response.body) == (200, b"later")
    assert app.closed == 1


def test_supports_write(subject: Subject) -> None:
    """What goes through ``write()`` arrives, before the body."""
    app = RecordingApp(write=[b"wr", b"itten "], body=[b"yielded"])

    response = call(lint(subject.build(lint(app))), subject.request())

    assert response.body == b"written yielded"


def test_supports_an_empty_body(subject: Subject) -> None:
    """An iterable without blocks is an answer too."""
    app = RecordingApp(body=[])

    response = call(lint(subject.build(lint(app))), subject.request())

    assert (response.code, response.body) == (200, b"")


def test_keeps_block_boundaries(subject: Subject) -> None:
    """It yields at least as often as the app inside does, and never reads ahead (PEP 3333)."""
    app = RecordingApp(body=[b"one ", b"two ", b"three"])
    body = iter(subject.build(app)(subject.request(), _ignore))

    for asked in (1, 2, 3):
        next(body)
        assert app.yielded <= asked


def test_hands_exc_info_on(subject: Subject) -> None:
    """A second ``start_response`` with ``exc_info`` replaces the first answer."""
    import sys

    def app(request: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        try:
            raise ValueError("too late to be good")
        except ValueError:
            start_response("500 Internal Server Error", [("Content-Type", "text/plain")], sys.exc_info())
        return [b"error page"]

    response = call(lint(subject.build(app)), subject.request())

    assert response.code == 500


def test_works_mounted_under_a_prefix(subject: Subject) -> None:
    """With ``SCRIPT_NAME`` set, all is as before."""
    app = RecordingApp()

    response = call(lint(subject.build(lint(app))), subject.request(SCRIPT_NAME="/mounted/here"))

    assert (response.code, response.body) == (200, b"hello")
    assert app.environ["SCRIPT_NAME"].startswith("/mounted/here")


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_leaves_bodiless_answers_bodiless(subject: Subject, status: str) -> None:
    """204 and 304 stay without content."""
    app = RecordingApp(status=status, headers=[], body=[])

    response = call(lint(subject.build(lint(app))), subject.request())

    assert (response.status[:3], response.body) == (status[:3], b"")


def test_keeps_no_request_on_self(subject: Subject) -> None:
    """Nothing on the instance changes with a request, so that threads cannot mix them up."""
    layer = subject.build(RecordingApp())
    before = {name: id(value) for name, value in vars(layer).items()}

    call(layer, subject.request())

    assert {name: id(value) for name, value in vars(layer).items()} == before


@pytest.mark.parametrize("kind", [list, iter])
@pytest.mark.parametrize("used", [False, True])
def test_leaves_no_reference_cycle(subject: Subject, kind: Any, used: bool) -> None:
    """When a request is over nothing of it waits for the garbage collector, which a busy server would have to run.

    As in most servers, ``start_response`` knows the environ; the app inside looks at what the layer offers.
    """

    def app(request: dict[str, Any], start_response: Any) -> Any:
        if used and "lamella.session" in request:
            request["lamella.session"]["seen"] = request["lamella.session"].get("seen", 0) + 1
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
        return kind([b"hello"])

    layer = subject.build(app)

    def serve() -> None:
        request = subject.request()

        def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
            request["status"] = status

        body = layer(request, start_response)
        for _ in body:
            pass
        close = getattr(body, "close", None)
        if close is not None:
            close()

    for _ in range(3):
        serve()
    gc.collect()
    gc.disable()
    try:
        serve()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = [type(found).__qualname__ for found in gc.garbage]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    # The token of csrf is for whoever is signed in when it is asked for: it has to know the environ that it stands in.
    assert set(left) <= ({"BytesIO", "dict", "_Token"} if subject.name == "csrf" else set())


def test_does_not_keep_the_app_s_header_list(subject: Subject) -> None:
    """The list that the app handed over is never changed in place."""
    mine = [("Content-Type", "text/plain")]

    def app(request: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", mine)
        return [b"x"]

    call(subject.build(app), subject.request())

    assert mine == [("Content-Type", "text/plain")]


def test_keeps_file_wrapper_identity(subject: Subject) -> None:
    """A ``wsgi.file_wrapper`` whose content is not changed reaches the server as it is (sendfile)."""
    from wsgiref.util import FileWrapper

    if getattr(subject.module, "REPLACES_FILES", False):
        pytest.skip("the layer changes the content of files by design")
    given = []

    def app(request: dict[str, Any], start_response: Any) -> FileWrapper:
        start_response("200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", "4")])
        given.append(FileWrapper(io.BytesIO(b"file")))
        return given[0]

    request = {**subject.request(), "wsgi.file_wrapper": FileWrapper}
    body = subject.build(app)(request, _ignore)

    assert body is given[0]
    body.close()
    assert given[0].filelike.closed


def test_declares_its_place(subject: Subject) -> None:
    """The class says what it provides, requires, where it belongs and what it holds back."""
    assert isinstance(subject.factory.provides, tuple)
    assert isinstance(subject.factory.requires, tuple)
    assert isinstance(subject.factory.order, tuple)
    assert subject.factory.streams is True or isinstance(subject.factory.streams, int)


def test_options_are_keyword_only(subject: Subject) -> None:
    """``app`` is positional, every option has a name; an unknown one is a ``TypeError``."""
    import inspect

    parameters = list(inspect.signature(subject.factory).parameters.values())
    assert parameters[0].name == "app"
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters[1:])
    with pytest.raises(TypeError):
        subject.factory(RecordingApp(), no_such_option=1)


def test_imports_no_other_layer() -> None:
    """A layer imports the standard library, third parties and the kernel: never a layer, never the loader."""
    import ast

    allowed = ("lamella.stack.kernel",)
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            for name in names:
                private = name.rpartition(".")[2].startswith("_") and name.startswith("lamella.middleware._")
                assert not name.startswith("lamella") or name.startswith(allowed) or private, f"{path.name}: {name}"
            if isinstance(node, ast.ImportFrom) and node.level:
                assert (node.module or "").startswith("_"), f"{path.name} imports a layer"


def _ignore(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
    return lambda data: None
