"""Stack and Layer in Python: composing, serving, looking, changing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

import pytest

from lamella.middleware.request_id import RequestIdMiddleware
from lamella.stack import Layer, Stack
from lamella.stack.build import Application
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.options import Secret
from lamella.stack.scope import When
from lamella.stack.testing import RecordingApp, call, environ, lint

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


class Mark:
    """A layer that leaves its name; counts how often it was made."""

    made = 0

    def __init__(self, app: WSGIApplication, *, name: str = "mark", mounts: Any = None) -> None:
        Mark.made += 1
        self.app = app
        self.name = name
        self.mounts = mounts or {}

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ["marks"] = environ.get("marks", "") + self.name
        for prefix, mounted in self.mounts.items():
            if environ["PATH_INFO"].startswith(prefix):
                found: Iterable[bytes] = mounted(environ, start_response)
                return found
        return self.app(environ, start_response)


def function_layer(app: WSGIApplication, greeting: str = "") -> WSGIApplication:
    """A layer that is a function."""
    return app


def marks(stack: Stack, path: str = "/") -> str:
    """The names of the layers that a request passed."""
    request = environ("GET", path)
    call(stack, request)
    found: str = request.get("marks", "")
    return found


def stack_of(*names: str, app: Any = None) -> Stack:
    """A stack of marks."""
    return Stack([Layer(Mark, id=name, name=name) for name in names], app=app or RecordingApp())


# --- composing ----------------------------------------------------------------------------------


def test_the_first_layer_is_outermost() -> None:
    """As in the file, from top to bottom."""
    assert marks(stack_of("a", "b", "c")) == "abc"


def test_a_stack_is_a_wsgi_application() -> None:
    """Also linted, and without any layer."""
    app = RecordingApp()

    assert call(lint(Stack([], app=app)), environ()).body == b"hello"
    assert Stack([], app=app).wsgi_closure is app


def test_is_built_once_and_at_once() -> None:
    """Making the stack runs the constructors; requests do not."""
    before = Mark.made
    stack = stack_of("a", "b")
    assert Mark.made == before + 2

    marks(stack)
    assert Mark.made == before + 2


def test_takes_names_classes_and_functions() -> None:
    """Each gets the id that a reader would give it."""
    stack = Stack(["request_id", Layer(Mark), function_layer], app=RecordingApp())

    assert [layer.id for layer in stack.layers] == ["request_id", "Mark", "function_layer"]
    assert stack.layers[0].use == "request_id"
    assert Layer(RequestIdMiddleware).id == "request_id"
    assert stack["request_id"].factory is RequestIdMiddleware
    assert call(stack, environ()).header("X-Request-ID")


def test_finds_the_app_by_name() -> None:
    """``module:attribute``, as gunicorn names it."""
    stack = Stack([], app="wsgiref.simple_server:demo_app")

    assert b"Hello world!" in call(stack, environ()).body
    assert stack.application.use == "wsgiref.simple_server:demo_app"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Layer("sesion"), r"use: expected a layer: no layer is called `sesion` \(did you mean `session`\?\)"),
        (lambda: Layer(cast("Any", 5)), "use: expected a layer's name, class or function, not 5"),
        (lambda: Layer(Mark, id="a.b"), "id: expected letters"),
        (lambda: Layer(Mark, nmae="x"), r"Mark: expected one of its options \(did you mean `name`\?\), not 'nmae'"),
        (lambda: Layer(Mark, when={}), "when: expected at least one of paths, except, methods, hosts"),
        (lambda: Layer(Mark, when={"path": ["/"]}), "when: expected the keys paths, except, methods, hosts"),
        (lambda: Layer(Mark, when={"paths": "/api"}), "when.paths: expected a list of paths"),
        (lambda: Stack([]), "app: expected an application inside the layers, not None"),
        (lambda: Stack([], app="nowhere:app"), "app: expected an application: no module named `nowhere`"),
        (lambda: Stack([], app=5), "app: expected a WSGI application"),
        (lambda: Stack([Mark, Mark], app=RecordingApp()), "id: expected an id of its own for each layer, not 'Mark'"),
        (lambda: Stack([lambda app: None], app=RecordingApp()), "use: expected a layer that returns"),
    ],
)  # fmt: skip
def test_refuses_what_is_wrong(make: Any, message: str) -> None:
    """When the stack is made, in one line."""
    with pytest.raises(ConfigError, match=message):
        make()


def test_names_the_layer_whose_constructor_raises() -> None:
    """The error is the layer's own; a note says which layer it is."""
    with pytest.raises(ConfigError) as caught:
        Stack([Layer("request_id", header="no header")], app=RecordingApp())

    assert caught.value.__notes__ == ["in the layer 'request_id' of the stack"]


def test_does_not_change() -> None:
    """Neither a stack, nor a layer, nor the options of one."""
    stack = stack_of("a")

    for thing in (stack, stack.layers[0], stack.application):
        with pytest.raises(AttributeError, match="does not change"):
            thing.id = "b"
    with pytest.raises(TypeError):
        stack.layers[0].options["name"] = "b"  # type: ignore[index]


# --- changing -----------------------------------------------------------------------------------


def test_without() -> None:
    """A stack without some layers; the first one stays."""
    stack = stack_of("a", "b", "c")

    assert marks(stack.without("b")) == "ac"
    assert marks(stack.without("a", "c")) == "b"
    assert marks(stack) == "abc"


def test_replace() -> None:
    """Other options for one layer; the others of it stay."""
    stack = stack_of("a", "b")

    assert marks(stack.replace("b", name="B")) == "aB"
    assert marks(stack.replace("b", when={"paths": ["/x"]})) == "a"
    with pytest.raises(ConfigError, match="did you mean `name`"):
        stack.replace("b", nmae="B")


def test_only() -> None:
    """Some layers alone, in their order."""
    assert marks(stack_of("a", "b", "c").only("b")) == "b"
    assert marks(stack_of("a", "b", "c").only("c", "a")) == "ac"


def test_insert() -> None:
    """One more layer, outside or inside of another."""
    stack = stack_of("a", "b")
    new = Layer(Mark, id="n", name="n")

    assert marks(stack.insert(new, before="a")) == "nab"
    assert marks(stack.insert(new, after="a")) == "anb"
    with pytest.raises(TypeError, match="one of before and after"):
        stack.insert(new)
    with pytest.raises(ConfigError, match="an id that no layer has yet"):
        stack.insert(Layer(Mark, id="b"), after="a")


def test_with_app() -> None:
    """The same layers around another app."""
    stack = stack_of("a")
    other = RecordingApp(body=[b"other"])

    assert call(stack.with_app(other), environ()).body == b"other"
    assert stack.with_app(other).app is other


@pytest.mark.parametrize("change", [
    lambda stack: stack.without("aa"), lambda stack: stack.replace("aa", name="x"), lambda stack: stack.only("aa"),
    lambda stack: stack.insert(Layer(Mark), after="aa"), lambda stack: stack["aa"],
])  # fmt: skip
def test_an_unknown_id_is_a_key_error(change: Any) -> None:
    """With the id that is near."""
    with pytest.raises(KeyError, match=r"no layer has the id 'aa' \(did you mean `alpha`\?\)|no layer has the id 'aa'"):
        change(stack_of("alpha", "b"))


# --- sub-stacks ---------------------------------------------------------------------------------


def nested() -> Stack:
    """A stack that mounts another one twice, and has a third as its app."""
    staff = Stack([Layer(Mark, id="s", name="s")], app=RecordingApp(), name="staff")
    inner = Stack([Layer(Mark, id="i", name="i")], app=RecordingApp(), name="inner")
    mounts = {"/staff": staff, "/list": staff}
    return Stack([Layer(Mark, id="a", name="a", mounts=mounts)], app=inner)


def test_sub_stacks_are_found() -> None:
    """In options and as the app, each once."""
    stack = nested()

    assert [one.name for one in stack.walk()] == ["", "inner", "staff"]
    assert set(stack.stacks) == {"staff", "inner"}
    assert stack["staff/s"].stack == "staff"
    assert "staff/s" in stack
    assert "s" not in stack
    assert (len(stack), [layer.id for layer in stack]) == (1, ["a"])


def test_layers_of_sub_stacks_are_changed_in_place() -> None:
    """By ``sub-stack/id``; wherever the sub-stack is mounted."""
    stack = nested()
    changed = (
        stack.replace("staff/s", name="S").without("inner/i").insert(Layer(Mark, id="n", name="n"), before="staff/s")
    )

    assert (marks(changed, "/staff"), marks(changed, "/list"), marks(changed)) == ("anS", "anS", "a")
    assert (marks(stack, "/staff"), marks(stack)) == ("as", "ai")
    assert changed["staff/n"].stack == "staff"
    assert changed["a"].options["mounts"]["/staff"] is changed["a"].options["mounts"]["/list"]


# --- probes -------------------------------------------------------------------------------------


def test_builds_with_a_probe_around_each_part() -> None:
    """From the app outwards, sub-stacks included; the stack itself stays without."""
    stack = nested()
    seen: list[str] = []

    def around(part: Layer | Application, app: WSGIApplication) -> WSGIApplication:
        name = part.full_id if isinstance(part, Layer) else f"{part.stack}:app"

        def probe(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            seen.append(name)
            return app(environ, start_response)

        return probe

    built = stack.build(around)
    call(built, environ("GET", "/"))
    assert seen == ["a", ":app", "inner/i", "inner:app"]

    seen.clear()
    call(built, environ("GET", "/staff"))
    assert seen == ["a", "staff/s", "staff:app"]

    call(stack, environ())
    assert len(seen) == 3


def test_a_probe_stands_around_a_layer_out_of_scope() -> None:
    """The trace shows that the request passed it by."""
    stack = Stack([Layer(Mark, name="a", when={"paths": ["/x"]})], app=RecordingApp())
    parts: list[Any] = []

    stack.build(lambda part, app: parts.append(part) or app)  # type: ignore[func-returns-value]

    assert parts == [stack.application, stack.layers[0]]
    assert parts[1].when == When(paths=["/x"])


# --- looking ------------------------------------------------------------------------------------


def test_shows_options_with_their_origins() -> None:
    """Those given in Python and those left alone; a secret masked."""
    layer = Layer("session", secret=Secret("kZ3vQmP0sLx8RtYw2NbUeHaJdGfC6iVo"), idle="30m")

    settings = {one.name: (one.shown, str(one.origin)) for one in layer.settings}
    assert settings["secret"] == ("***", "python")
    assert settings["idle"] == ("'30m'", "python")
    assert settings["same_site"] == ("'Lax'", "default")
    assert repr(layer) == "Layer('session', id='session', secret=***, idle='30m')"
    assert "Zk" not in repr(Layer("session", secret="ZkZkZkZkZkZkZkZkZkZkZkZkZkZkZkZkZk"))


def test_repr_draws_the_stack() -> None:
    """From the outside in."""
    assert repr(stack_of("a", "b", app=RecordingApp())) == "<Stack a, b, lamella.stack.testing.apps:RecordingApp>"


@pytest.mark.parametrize(
    ("use", "options"),
    [
        (
            "session",
            {"secret": Secret("kZ3vQmP0sLx8RtYw2NbUeHaJdGfC6iVo"), "store": "redis://:hunter2@localhost:6379/0"},
        ),
        ("session", {"secret": Secret("kZ3vQmP0sLx8RtYw2NbUeHaJdGfC6iVo"), "store": "postgresql://u:hunter2@h/db"}),
        ("bearer_auth", {"algorithms": (), "tokens": {"dead" * 16: "hunter2"}}),
    ],
)
def test_shows_no_password_of_an_address_and_no_digest(use: str, options: dict[str, Any]) -> None:
    """What stands in the URL of a store, and the digests of tokens, are masked like a secret."""
    layer = Layer(use, **options)

    shown = repr(layer) + "".join(setting.shown for setting in layer.settings)

    assert "hunter2" not in shown
    assert "dead" not in shown
