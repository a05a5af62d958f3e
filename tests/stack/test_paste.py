"""PasteDeploy both ways, and its eight faults: each a located error or a right result."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lamella.stack import StackFileError, load
from lamella.stack import paste as published
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.options import Secret
from lamella.stack.paste import from_text
from lamella.stack.signatures import Parameter, signature
from lamella.stack.testing import RecordingApp, call, environ

Write = Callable[..., str]
HEAD = 'lamella = 1\n[app]\nuse = "shelf:app"\n'
LAYER = HEAD + '[[layer]]\nuse = "shelf:Typed"\n'


def mistakes(file: str, profile: str | None = None) -> list[str]:
    """What loading complains of."""
    with pytest.raises(StackFileError) as caught:
        load(file, profile)
    return [str(problem) for problem in caught.value.problems]


# --- the eight faults ---------------------------------------------------------------------------


def test_1_an_option_set_in_two_places_arrives(write: Write) -> None:
    """PasteDeploy drops a key that [DEFAULT] has too; here the later, nearer statement wins, with its place."""
    stack = load(write(LAYER + "text = 'section'\n[profile.dev]\n'Typed.text' = 'mine'"), "dev")

    assert stack["Typed"].options["text"] == "mine"
    assert str(stack["Typed"].origins["text"]) == "profile dev (stack.toml:8)"


def test_2_a_misspelt_or_unused_section_is_an_error(write: Write) -> None:
    """``[filtr:auth]`` is passed over in silence there."""
    assert mistakes(write(HEAD + "[filtr]\nuse = 'x'"))[0].startswith("stack.toml:4:1: a stack file has no key `filtr`")
    assert mistakes(write(HEAD + "[stack.auth]\napp.use = 'shelf:app'")) == [
        'stack.toml:4:1: the sub-stack `auth` is not used; name it somewhere as "@auth"'
    ]


def test_3_false_is_false(write: Write) -> None:
    """There ``debug = false`` arrives as text that is true; here text for a truth value is refused."""
    assert load(write(LAYER + "flag = false"))["Typed"].options["flag"] is False
    assert mistakes(write(LAYER + "flag = 'false'")) == ['stack.toml:6:8: flag: expected true or false, not "false"']


@pytest.mark.parametrize("text", ["ab%cd", "%(here)s", "${SECRET}", "$HOME", "100%", "{env}"])
def test_4_and_5_nothing_is_interpolated(write: Write, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """There ``%`` raises InterpolationSyntaxError and ``${SECRET}`` becomes the secret as it stands."""
    monkeypatch.setenv("SECRET", text)
    stack = load(write(LAYER + f"text = '{text}'\nsecret = {{ env = 'SECRET' }}"))

    assert stack["Typed"].options["text"] == text
    assert stack["Typed"].options["secret"].reveal() == text.encode()
    assert "a secret does not stand in the file" in mistakes(write(LAYER + f"secret = '{text}'"))[0]


def test_6_a_circle_is_an_error(write: Write) -> None:
    """There a circle of ``use`` ends in RecursionError."""
    text = "lamella = 1\napp.use = '@a'\nstack.a.app.use = '@b'\nstack.b.app.use = '@a'"

    assert mistakes(write(text)) == ["stack.toml:4:19: the sub-stack would contain itself: @a → @b → @a"]


def test_7_a_comment_is_no_value(write: Write) -> None:
    """There ``a = 1 ; comment`` gives the value ``1 ; comment``."""
    assert load(write(LAYER + "number = 1 # comment"))["Typed"].options["number"] == 1
    assert mistakes(write(LAYER + "number = 1 ; comment"))[0].startswith("stack.toml:6:12: not TOML: ")


def test_8_an_unknown_option_is_located(write: Write) -> None:
    """There it is ``TypeError: got an unexpected keyword argument``, without file or line."""
    assert mistakes(write(LAYER + "txet = 'x'")) == [
        "stack.toml:6:1: Typed has no option `txet` (did you mean `text`?)"
    ]


# --- their factories in our files ---------------------------------------------------------------

PARTS = """
def app_factory(global_conf, greeting="hi", **local_conf):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [repr((greeting, sorted(local_conf.items()), environ.get("seen", ""))).encode()]
    return app

def filter_factory(global_conf, name, debug="false"):
    def wrap(app):
        def layer(environ, start_response):
            environ["seen"] = environ.get("seen", "") + f"{name}/{debug} "
            return app(environ, start_response)
        return layer
    return wrap

def filter_app_factory(app, global_conf, name="x"):
    return filter_factory(global_conf, name)(app)
"""


@pytest.fixture
def egg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed distribution ``Shelf-Parts`` with PasteDeploy factories."""
    site = tmp_path / "site"
    info = site / "shelf_parts-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "shelf_parts.py").write_text(PARTS)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: Shelf-Parts\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[paste.app_factory]\nmain = shelf_parts:app_factory\n"
        "[paste.filter_factory]\nmark = shelf_parts:filter_factory\n"
        "[paste.filter_app_factory]\nmain = shelf_parts:filter_app_factory\nbroken = shelf_parts:gone\n"
        "[lamella.layers]\nshelf_mark = shelf_parts:filter_app_factory\n"
    )
    monkeypatch.syspath_prepend(str(site))
    yield
    sys.modules.pop("shelf_parts", None)


def test_loads_filters_and_apps_of_eggs(write: Write, egg: None) -> None:
    """``paste.filter_factory``, ``paste.filter_app_factory``, ``paste.app_factory``; text as an ini has it."""
    text = """lamella = 1
[app]
use = "egg:Shelf-Parts"
greeting = "hello"
size = 5
tags = ["a", "b"]
[[layer]]
use = "egg:Shelf-Parts#mark"
name = "one"
debug = true
[[layer]]
use = "egg:Shelf-Parts"
id = "two"
name = "two"
"""
    stack = load(write(text))

    assert call(stack, environ()).text == repr(("hello", [("size", "5"), ("tags", "a\nb")], "one/true two/false "))
    assert [layer.id for layer in stack.layers] == ["mark", "two"]


def test_mistakes_in_the_options_of_eggs_are_located(write: Write, egg: None) -> None:
    """By the signature of the factory, without its ``global_conf``."""
    text = HEAD + '[[layer]]\nuse = "egg:Shelf-Parts#mark"\nnmae = "x"\n[[layer]]\nuse = "egg:Shelf-Parts#marc"\n'
    text += '[[layer]]\nuse = "egg:Shelf-Parts#broken"'

    assert mistakes(write(text)) == [
        "stack.toml:5:1: mark needs the option `name`",
        "stack.toml:6:1: mark has no option `nmae` (did you mean `name`?)",
        "stack.toml:8:7: Shelf-Parts has no PasteDeploy filter `marc` in paste.filter_app_factory or"
        " paste.filter_factory (did you mean `mark`?)",
        "stack.toml:10:7: shelf_parts has no attribute `gone`",
    ]


def test_a_short_name_may_come_from_another_distribution(write: Write, egg: None) -> None:
    """By the entry point group ``lamella.layers``."""
    stack = load(
        write(HEAD.replace("shelf:app", "egg:Shelf-Parts") + '[[layer]]\nuse = "shelf_mark"\nglobal_conf = "x"')
    )

    assert "x/false" in call(stack, environ()).text


def test_our_own_egg_means_the_layer_itself(write: Write) -> None:
    """With typed options, not with those of an ini."""
    stack = load(write(HEAD + '[[layer]]\nuse = "egg:lamella#request_id"\ntrust_client = true'))

    assert stack["request_id"].options == {"trust_client": True}
    assert stack["request_id"].factory.__name__ == "RequestIdMiddleware"


# --- our layers in their files ------------------------------------------------------------------


def test_our_layers_are_filter_app_factories() -> None:
    """``factory(app, global_conf, **local_conf)``, options as text."""
    app = RecordingApp()
    layer = published.request_id(app, {"here": "/"}, header="X-Id", trust_client="yes")

    assert call(layer, environ(x_id="0123456789abcdef0123")).header("X-Id") == "0123456789abcdef0123"


def test_paste_deploy_loads_our_layers(write: Write) -> None:
    """From a real ini file, with the package itself."""
    deploy = pytest.importorskip("paste.deploy")
    ini = """[app:main]
use = call:shelf:paste_app
filter-with = ids
[filter:ids]
paste.filter_app_factory = lamella.stack.paste:request_id
header = X-Shelf
"""
    write(ini, "shelf.ini")

    app = deploy.loadapp(f"config:{Path.cwd()}/shelf.ini")

    assert call(app, environ()).header("X-Shelf")


def test_unknown_names_and_options_are_refused() -> None:
    """The module has the layers and nothing else; a misspelt option is named."""
    with pytest.raises(AttributeError, match="has no attribute 'sesion'"):
        published.sesion  # noqa: B018
    with pytest.raises(ConfigError, match=r"request_id: expected one of its options \(did you mean `header`\?\)"):
        published.request_id(RecordingApp(), {}, haeder="X")
    with pytest.raises(ConfigError, match="secret: expected a value: session cannot do without it"):
        published.session(RecordingApp(), {})


TEXTS: list[tuple[str, str, Any]] = [
    ("flag", "yes", True), ("flag", "False", False), ("flag", "0", False), ("number", "42", 42), ("ratio", "0.5", 0.5),
    ("text", "a b", "a b"), ("idle", "30m", "30m"), ("idle", "90", 90), ("idle", "", None), ("limit", "1 MiB", "1 MiB"),
    ("mode", "frozen", "frozen"), ("names", "a b", ["a", "b"]), ("names", "a,\n  b", ["a", "b"]), ("names", "a", ["a"]),
    ("names", '["a b"]', ["a b"]), ("names", "", []), ("path", "users", "/etc/shelf/users"), ("trust", "::1", ["::1"]),
    ("paths", "a b", ["/etc/shelf/a", "/etc/shelf/b"]), ("table", "a = 1\nb = x", {"a": 1, "b": "x"}),
    ("table", '{"a": 1}', {"a": 1}), ("unique", "a a", frozenset("a")), ("pair", "1 x", (1, "x")),
    ("secret", "insecure:s", Secret("s")), ("secret", "s p", Secret("s p")),
    ("secret", "env:LAMELLA_T_A insecure:b", [Secret("from a"), Secret("b")]),
    ("secret", "env:LAMELLA_T_A", Secret("from a")),
    ("mounts", "/a = shelf:app\n/b = shelf:app", {"/a": "shelf:app", "/b": "shelf:app"}),
]  # fmt: skip


@pytest.mark.parametrize(("option", "text", "expected"), TEXTS, ids=lambda value: str(value)[:20])
def test_converts_the_text_of_an_ini_file(
    write: Write, option: str, text: str, expected: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the annotation."""
    monkeypatch.setenv("LAMELLA_T_A", "from a")

    assert from_text(parameter(option), text, "/etc/shelf") == expected


@pytest.mark.parametrize(("option", "text"), [
    ("flag", "perhaps"), ("number", "x"), ("idle", "30x"), ("mode", "froze"), ("trust", "x"), ("secret", "env:GONE_X"),
])  # fmt: skip
def test_refuses_text_that_does_not_fit(write: Write, option: str, text: str) -> None:
    """With the option's name, as a ConfigError."""
    with pytest.raises(ConfigError, match=f"^{option}: expected "):
        from_text(parameter(option), text)


def parameter(name: str) -> Parameter:
    """One option of the layer with one of each type."""
    import shelf  # type: ignore[import-not-found]

    return signature(shelf.Typed).parameters[name]
