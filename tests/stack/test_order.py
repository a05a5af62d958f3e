"""The order rules: what they find, how they say it, and how they are silenced."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from lamella.stack import Layer, Stack
from lamella.stack.check import check
from lamella.stack.kernel.keys import IDENTITY, SESSION
from lamella.stack.kernel.order import Inside, Outside
from lamella.stack.order import RULES, check_order, legal, sort_layers
from lamella.stack.testing import RecordingApp

DOCS = Path(__file__).resolve().parents[2] / "docs" / "order-rules.md"
SECRET = "0123456789abcdefghijklmnopqrstuvwxyz"
SESSION_LAYER = '[[layer]]\nuse = "session"\nsecret = { insecure = "0123456789abcdefghijklmnopqrstuvwxyz" }\n'
CORS = '[[layer]]\nuse = "cors"\norigins = ["https://a.example"]\n'
HASH = "$2b$04$kKXSNGxwXHUKdZ5QTZRPXOdVBUfHpDlMsNEuHM0f4rYsAXsM8bBm."
BASIC = f'[[layer]]\nuse = "basic_auth"\nusers = {{ alice = "{HASH}" }}\n'
HEAD = 'lamella = 1\n[app]\nuse = "lamella.stack.testing:RecordingApp()"\n'


def problems(tmp_path: Path, *parts: str) -> list[str]:
    """Check a file made of parts; the messages of the order phase."""
    path = tmp_path / "stack.toml"
    path.write_text(HEAD + "".join(parts))
    report = check(path, import_apps=False, expectations=False)
    others = [str(one) for one in report.errors if one.phase != "order"]
    assert not others, others
    return [str(one).removeprefix(f"{tmp_path}/") for one in report.problems if one.phase == "order"]


def layer(name: str, **attributes: Any) -> Any:
    """A third-party layer that says this of itself."""

    class Made:
        def __init__(self, app: Any, *, key: str = "", store: str = "", mounts: Any = None) -> None:
            self.app = app

        def __call__(self, environ: Any, start_response: Any) -> Any:
            return self.app(environ, start_response)

    Made.__name__ = Made.__qualname__ = name
    for attribute, value in {"provides": (), "requires": (), "order": (), "streams": True, **attributes}.items():
        setattr(Made, attribute, value)
    return Made


def codes(*layers: Any, workers: int = 1) -> list[str]:
    """Codes of what the rules say of a stack made in Python."""
    return [one.rule for one in check_order(Stack(layers, app=RecordingApp()), workers=workers)]


def test_says_where_what_why_and_how_to_cure_it(tmp_path: Path) -> None:
    """One line: place, code, what is wrong, why, where to move it."""
    found = problems(tmp_path, '[[layer]]\nuse = "edge"\n', BASIC, CORS)

    assert found == ["stack.toml:9:1: L104 cors is inside basic_auth: preflights will get 401. Move it above line 6."]


def test_a_right_order_is_silent(tmp_path: Path) -> None:
    """The order that the documentation shows breaks no rule."""
    parts = ["edge", "request_id", "access_log"]
    found = problems(tmp_path, *(f'[[layer]]\nuse = "{name}"\n' for name in parts), CORS, SESSION_LAYER, BASIC)

    assert found == []


@pytest.mark.parametrize(
    ("code", "outer", "inner"),
    [
        ("L101", '[[layer]]\nuse = "csrf"\n', SESSION_LAYER),
        ("L102", '[[layer]]\nuse = "errors"\n', '[[layer]]\nuse = "access_log"\n'),
        ("L103", '[[layer]]\nuse = "errors"\n', CORS),
        ("L104", BASIC, CORS),
        ("L105", '[[layer]]\nuse = "access_log"\n', '[[layer]]\nuse = "proxy"\ntrust = ["10.0.0.0/8"]\n'),
        ("L110", SESSION_LAYER, '[[layer]]\nuse = "static"\nroot = "."\n'),
        ("L117", '[[layer]]\nuse = "access_log"\n', '[[layer]]\nuse = "request_id"\n'),
    ],
)
def test_finds_our_layers_out_of_order(code: str, outer: str, inner: str, tmp_path: Path) -> None:
    """Each rule finds its pair the wrong way round, and nothing the right way round."""
    edge = '[[layer]]\nuse = "edge"\n'

    assert [re.search("L[0-9]{3}", one)[0] for one in problems(tmp_path, edge, outer, inner)] == [code]  # type: ignore[index]
    assert problems(tmp_path, edge, inner, outer) == []


def test_a_missing_session_is_said_with_the_layer_to_add(tmp_path: Path) -> None:
    """``requires`` without any layer that provides it."""
    (message,) = problems(tmp_path, '[[layer]]\nuse = "edge"\n', '[[layer]]\nuse = "csrf"\n')

    assert (
        "L101 csrf requires lamella.session, which no layer outside provides. Add the layer session above line 6."
        in message
    )


def test_a_layer_around_a_sub_stack_counts(tmp_path: Path) -> None:
    """What is outside the dispatch layer is outside what it mounts; what is in another mount is not."""
    inside = (
        '[stack.staff]\napp = { use = "lamella.stack.testing:RecordingApp()" }\n[[stack.staff.layer]]\nuse = "csrf"\n'
    )
    dispatch = '[[layer]]\nuse = "dispatch"\nmounts = { "/admin" = "@staff" }\n'
    edge = '[[layer]]\nuse = "edge"\n'

    assert problems(tmp_path, edge, SESSION_LAYER, dispatch, inside) == []
    assert "L101 csrf requires lamella.session" in problems(tmp_path, edge, dispatch, SESSION_LAYER, inside)[0]


def test_scopes_that_do_not_meet_are_two_stacks(tmp_path: Path) -> None:
    """No rule for two layers that no request passes both."""
    edge = '[[layer]]\nuse = "edge"\n'

    for one, two in (('paths = ["/a/*"]', 'paths = ["/b/*"]'), ('methods = ["POST"]', 'methods = ["PUT"]'),
                     ('hosts = ["a.example"]', 'hosts = ["b.example"]')):  # fmt: skip
        assert problems(tmp_path, edge, BASIC, f"when = {{ {one} }}\n", CORS, f"when = {{ {two} }}\n") == []
    met = problems(tmp_path, edge, BASIC, 'when = { paths = ["/a/*"] }\n', CORS, 'when = { paths = ["/a/b"] }\n')
    assert len(met) == 1


def test_a_rule_is_silenced_at_one_layer_with_a_reason(tmp_path: Path) -> None:
    """A silence names rule and layer; one that silences nothing is said."""
    silence = '[[silence]]\nrule = "L104"\nlayer = "cors"\nreason = "no browser asks"\n'
    edge = '[[layer]]\nuse = "edge"\n'

    assert problems(tmp_path, edge, BASIC, CORS, silence) == []
    (message,) = problems(tmp_path, edge, CORS, BASIC, silence)
    assert "L121 nothing breaks L104 at cors: remove this [[silence]]." in message
    found = problems(tmp_path, edge, BASIC, CORS, silence.replace("L104", "L103"))
    assert [re.search("L[0-9]{3}", one)[0] for one in found] == ["L104", "L121"]  # type: ignore[index]


def test_a_missing_edge_is_a_warning(tmp_path: Path) -> None:
    """It keeps nothing from running, and is said only where decisions are made."""
    path = tmp_path / "stack.toml"
    path.write_text(HEAD + BASIC)

    report = check(path, import_apps=False)

    assert report.exit_code == 0
    assert [one.rule for one in report.warnings] == ["L120"]
    assert problems(tmp_path, '[[layer]]\nuse = "request_id"\n') == []


def test_a_third_party_layer_is_described_in_the_file(tmp_path: Path) -> None:
    """``[describe]`` gives it what our classes state themselves."""
    use = "lamella.stack.testing:lint"
    described = (
        f'[describe."{use}"]\nprovides = ["cache"]\norder = [{{ inside = "session", code = "L106", '
        'why = "it hands one user\'s page to another" }]\n'
    )
    cache = f'[[layer]]\nuse = "{use}"\nid = "pages"\n'
    edge = '[[layer]]\nuse = "edge"\n'

    (message,) = problems(tmp_path, edge, cache, SESSION_LAYER, described)
    assert "L106 pages is outside session: it hands one user's page to another. Move it below line 9." in message
    assert problems(tmp_path, edge, SESSION_LAYER, cache, described) == []


def test_a_third_party_layer_may_say_it_itself() -> None:
    """The attributes of our classes work on any factory; names are those of classes or ids."""
    assert codes(layer("Inner"), layer("Outer", order=(Outside("Inner", "L119", "so."),))) == ["L119"]
    assert codes(layer("Outer", order=(Inside("Inner", "L119"),)), layer("Inner")) == ["L119"]
    assert codes(layer("Needs", requires=("some.key",))) == ["L101"]
    assert codes(layer("Gives", provides=("some.key",)), layer("Needs", requires=("some.key",))) == []
    assert codes(Layer(layer("Odd"), id="errors"), Layer("cors", origins=["https://a.example"])) == ["L103"]


def test_a_stack_made_in_python_has_no_lines() -> None:
    """The cure then names the layer."""
    (problem,) = check_order(Stack([Layer("errors"), Layer("cors", origins=["https://a.example"])], app=RecordingApp()))

    assert problem.message.endswith("Move it outside errors.")


def test_a_layer_that_provides_something_stands_once() -> None:
    """Twice around one app, the inner one overrides the outer; with other scopes they do not meet."""
    twice = layer("Twice", provides=(SESSION,))
    a, b = {"paths": ["/a/*"]}, {"paths": ["/b/*"]}

    assert codes(Layer(twice, id="one"), Layer(twice, id="two")) == ["L113"]
    assert codes(Layer(twice, id="one", when=a), Layer(twice, id="two", when=b)) == []
    assert codes(Layer("access_log", id="one"), Layer("access_log", id="two")) == ["L113"]
    assert codes(Layer("static", id="one", root="."), Layer("static", id="two", root=".", prefix="/x/")) == []


def test_a_buffer_outside_a_stream_is_found() -> None:
    """Where a mount is marked as a stream, nothing outside may hold bodies back, unless its scope leaves it out."""
    stream = Layer(layer("Mounts"), id="dispatch", mounts={"/events": {"stream": True}})

    for held in (False, 4096):
        buffers = layer("Buffers", streams=held)
        assert codes(buffers, stream) == ["L108"]
        assert codes(Layer(buffers, when={"except": ["/events/*"]}), stream) == []
        assert codes(stream, buffers) == []
    assert codes(layer("Streams"), stream) == []


def test_a_limit_by_user_needs_to_know_the_user() -> None:
    """``rate_limit`` that counts users stands inside what says who they are."""
    limit = Layer(layer("Limits"), id="rate_limit", key="user")
    auth = layer("Auth", provides=(IDENTITY,))

    assert codes(limit, auth) == ["L111"]
    assert codes(auth, limit) == []
    assert codes(Layer(layer("Limits"), id="rate_limit", key="client"), auth) == []


def test_a_method_override_and_head_have_their_place() -> None:
    """Rules for layers that are not ours go by the id."""
    csrf, session = Layer(layer("Csrf"), id="csrf"), Layer(layer("Zip"), id="compress")

    assert codes(Layer(layer("Override"), id="method_override"), csrf) == ["L114"]
    assert codes(Layer(layer("Head"), id="head"), session) == ["L118"]
    assert codes(Layer(layer("Cache"), id="cache"), Layer(layer("Session"), id="session")) == ["L106"]


def test_a_foreign_csrf_token_in_a_compressed_page_is_a_warning() -> None:
    """Ours is masked anew for each answer; of another nothing is known."""
    foreign = layer("Foreign", provides=("lamella.csrf",))

    found = check_order(Stack([Layer(layer("Zip"), id="compress"), Layer(foreign)], app=RecordingApp()))

    assert [(one.rule, one.warning) for one in found] == [("L112", True)]


def test_memory_is_for_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """State in memory is found where more processes serve, by argument or ``WEB_CONCURRENCY``."""
    kept = Layer(layer("Keeps"), store="memory:")

    assert codes(kept, workers=4) == ["L115"]
    assert codes(kept, workers=1) == []
    assert codes(Layer(layer("Keeps"), store="redis://localhost"), workers=4) == []
    monkeypatch.setenv("WEB_CONCURRENCY", "3")
    assert [one.rule for one in check_order(Stack([kept], app=RecordingApp()))] == ["L115"]


def test_what_can_never_be_reached_is_found() -> None:
    """A mount behind a mount, and a layer whose paths are mounted outside it."""
    app = RecordingApp()
    outer = Layer("dispatch", id="outer", mounts={"/a": app, "/b": app})

    assert codes(outer, Layer("dispatch", id="inner", mounts={"/a/x": app})) == ["L116"]
    assert codes(outer, Layer("dispatch", id="inner", mounts={"/ab": app, "/c": app})) == []
    assert codes(outer, Layer(layer("Some"), when={"paths": ["/b/*"]})) == ["L116"]
    assert codes(outer, Layer(layer("Some"), when={"paths": ["/b/*", "/c"]})) == []


def test_legal_pairs_and_sorted_layers() -> None:
    """The same rules tell whether two factories may stand so, and sort a set of them."""
    from lamella.middleware.cors import CORSMiddleware
    from lamella.middleware.errors import ErrorsMiddleware
    from lamella.middleware.request_id import RequestIdMiddleware

    assert legal(CORSMiddleware, ErrorsMiddleware)
    assert not legal(ErrorsMiddleware, CORSMiddleware)
    given = [ErrorsMiddleware, CORSMiddleware, RequestIdMiddleware]
    ordered = sort_layers(given)
    assert sorted(ordered, key=str) == sorted(given, key=str)
    assert all(legal(a, b) for at, a in enumerate(ordered) for b in ordered[at + 1 :])
    circle = layer("A", order=(Outside("B"),)), layer("B", order=(Outside("A"),))
    with pytest.raises(ValueError, match="A, B"):
        sort_layers(circle)


@pytest.mark.timing
def test_a_large_stack_is_checked_quickly() -> None:
    """Two hundred layers and five hundred mounts, in well under half a second."""
    app = RecordingApp()
    made = [Layer("request_id", id=f"r{i}", when={"paths": [f"/{i}/*"]}) for i in range(200)]
    mounts = Layer("dispatch", mounts={f"/m{i}": app for i in range(500)})
    stack = Stack([*made, mounts], app=app)

    start = time.thread_time()
    found = check_order(stack)

    assert time.thread_time() - start < 0.3
    assert found == []


def test_every_rule_has_its_place_in_the_manual() -> None:
    """``docs/order-rules.md`` has a heading for each code, with its sentence; the classes use no other code."""
    import importlib

    text = DOCS.read_text(encoding="utf-8")
    headings = dict(re.findall(r"^## (L[0-9]{3})\n\n([^\n]+)$", text, re.MULTILINE))
    assert headings == RULES
    folder = DOCS.parents[1] / "middleware"
    for name in sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")):
        module = importlib.import_module(f"lamella.middleware.{name}")
        for public in module.__all__:
            for rule in getattr(getattr(module, public), "order", ()):
                assert rule.code in RULES, f"{name}: {rule}"
