"""Stack files that are right: what the layers get, in which order, and where it comes from."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lamella.middleware
from lamella.stack import Stack, StackFileError, load
from lamella.stack.check import check
from lamella.stack.kernel.options import Secret
from lamella.stack.testing import call, environ, lint

Write = Callable[..., str]
HEAD = 'lamella = 1\n[app]\nuse = "shelf:app"\n'
LAYER = HEAD + '[[layer]]\nuse = "shelf:Typed"\n'
STACKS = Path(__file__).resolve().parents[1] / "stacks"


def given(stack: Stack) -> dict[str, Any]:
    """What the one layer of a stack was called with."""
    import shelf  # type: ignore[import-not-found]

    layer = stack.wsgi_closure
    assert isinstance(layer, shelf.Typed)
    found: dict[str, Any] = layer.given
    return found


def trail(stack: Stack, path: str = "/", method: str = "GET", **headers: Any) -> str:
    """The names of the layers that a request passed."""
    return call(lint(stack), environ(method, path, **headers)).text.partition(" ")[2].rstrip(">")


def trails(*names: str) -> str:
    """Layers that leave their names."""
    return "".join(f'[[layer]]\nuse = "shelf:Trail"\nid = "{name}"\nname = "{name}"\n' for name in names)


def test_the_top_of_the_file_is_outermost(write: Write) -> None:
    """Layers run in the order of the file."""
    assert trail(load(write(HEAD + trails("a", "b", "c")))) == "a>b>c"


def test_converts_each_option_by_its_annotation(write: Write) -> None:
    """Each type, as the layer gets it; what has a mark stays as written, once it is checked."""
    text = (
        LAYER
        + """
text = "x"
flag = true
number = 3
ratio = 2
idle = "30m"
limit = "10 MiB"
trust = ["10.0.0.0/8", "::1"]
pattern = "[a-z]+"
path = "data/users"
paths = ["a", "/b"]
call = "shelf:clock"
hook = "shelf:clock"
mode = "frozen"
names = ["a", "b"]
pair = [1, "x"]
unique = ["a", "a"]
table = { a = 1, b = "x" }
mounts = { "/a" = "shelf:app", "/b" = { app = "shelf:app", cookies = "scope" } }
"""
    )
    options = given(load(write(text)))

    import shelf

    here = str(Path.cwd())
    assert options | {"fallback": None, "secret": b"", "keys": None} == {
        "text": "x", "flag": True, "number": 3, "ratio": 2.0, "idle": "30m", "limit": "10 MiB",
        "trust": ["10.0.0.0/8", "::1"], "pattern": "[a-z]+", "path": f"{here}/data/users",
        "paths": [f"{here}/a", "/b"], "call": shelf.clock, "hook": shelf.clock, "mode": "frozen",
        "names": ["a", "b"], "pair": (1, "x"), "unique": frozenset({"a"}), "table": {"a": 1, "b": "x"},
        "mounts": {"/a": "shelf:app", "/b": {"app": "shelf:app", "cookies": "scope"}},
        "fallback": None, "secret": b"", "keys": None,
    }  # fmt: skip
    assert type(options["ratio"]) is float


def test_reads_values_from_variables(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their text is converted: numbers, truth values, durations, choices; a default where there is none."""
    monkeypatch.setenv("LAMELLA_T_NUMBER", "42")
    monkeypatch.setenv("LAMELLA_T_TRUE", "true")
    monkeypatch.setenv("LAMELLA_T_MODE", "frozen")
    monkeypatch.setenv("LAMELLA_T_WORD", "1h")
    text = (
        LAYER
        + """
number = { env = "LAMELLA_T_NUMBER" }
flag = { env = "LAMELLA_T_TRUE", default = false }
ratio = { env = "LAMELLA_T_NONE", default = 2.5 }
mode = { env = "LAMELLA_T_MODE" }
idle = { env = "LAMELLA_T_WORD" }
limit = { env = "LAMELLA_T_NUMBER" }
names = [{ env = "LAMELLA_T_WORD" }, "b"]
table = { a = { env = "LAMELLA_T_WORD" } }
"""
    )
    stack = load(write(text))
    options = given(stack)

    assert (options["number"], options["flag"], options["ratio"], options["mode"]) == (42, True, 2.5, "frozen")
    assert (options["idle"], options["limit"]) == ("1h", 42)
    assert (options["names"], options["table"]) == (["1h", "b"], {"a": "1h"})
    origins = {name: str(origin) for name, origin in stack.layers[0].origins.items()}
    assert origins["number"] == "env LAMELLA_T_NUMBER (stack.toml:7)"
    assert origins["ratio"] == "stack.toml:9"
    assert stack.layers[0].origins["flag"].kind == "env"


def test_text_of_a_variable_that_does_not_fit_is_not_shown(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be anything; its name says enough."""
    monkeypatch.setenv("LAMELLA_T_WORD", "hunter2")
    file = write(LAYER + 'number = { env = "LAMELLA_T_WORD" }')

    with pytest.raises(StackFileError) as caught:
        load(file)

    assert str(caught.value) == ("stack.toml:6:10: number: expected a whole number, not the text of env LAMELLA_T_WORD")


def test_secrets_come_wrapped(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a variable, from a file without its line end, or openly insecure; never shown."""
    monkeypatch.setenv("LAMELLA_T_SECRET", "from the variable")
    Path("old_key").write_bytes(b"from the file\r\n")
    text = (
        LAYER
        + """
secret = [{ env = "LAMELLA_T_SECRET" }, { file = "old_key" }, { insecure = "open" }]
keys = { a = { file = "old_key" } }
"""
    )
    stack = load(write(text))
    options = given(stack)

    assert [one.reveal() for one in options["secret"]] == [b"from the variable", b"from the file", b"open"]
    assert [one.source for one in options["secret"]] == ["env LAMELLA_T_SECRET", "file old_key", "insecure"]
    assert options["keys"] == {"a": Secret("from the file")}
    shown = repr(stack.layers[0]) + "".join(one.shown + repr(one) for one in stack.layers[0].settings)
    assert "from the" not in shown
    assert "[***, ***, ***]" in shown


def test_secrets_of_third_parties_are_masked_by_name(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """They get text, because they know nothing of our Secret; showing it masks it."""
    monkeypatch.setenv("LAMELLA_T_SECRET", "hunter2hunter2")
    text = HEAD + '[[layer]]\nuse = "shelf:plain"\nsize = 1\nsecret_key = { env = "LAMELLA_T_SECRET" }\n'
    stack = load(write(text))

    import shelf

    assert shelf.plain.calls == [(1, "hunter2hunter2", "red")]
    assert {one.name: one.shown for one in stack.layers[0].settings} == {
        "size": "1", "secret_key": "***", "colour": "'red'",
    }  # fmt: skip
    assert "hunter2" not in repr(stack.layers[0])


def test_every_option_has_an_origin(write: Write) -> None:
    """Default, file and line, profile."""
    stack = load(write(LAYER + "flag = true\n[profile.dev]\n'Typed.number' = 2"), "dev")

    origins = {one.name: str(one.origin) for one in stack.layers[0].settings}
    assert origins["flag"] == "stack.toml:6"
    assert origins["number"] == "profile dev (stack.toml:8)"
    assert origins["text"] == "default"
    assert (stack.layers[0].file, stack.layers[0].line, stack.layers[0].column) == ("stack.toml", 4, 1)


def test_paths_are_relative_to_the_file(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not to the working directory."""
    (tmp_path / "sub").mkdir()
    write(LAYER + "path = 'users'\nsecret = { file = 'key' }", "sub/stack.toml")
    (tmp_path / "sub" / "key").write_text("x")
    monkeypatch.chdir("/")

    options = given(load(tmp_path / "sub" / "stack.toml"))

    assert options["path"] == str(tmp_path / "sub" / "users")


def test_a_byte_order_mark_and_crlf_are_accepted(write: Write) -> None:
    """As editors on Windows write them."""
    Path("stack.toml").write_bytes(b"\xef\xbb\xbf" + (HEAD + trails("a")).replace("\n", "\r\n").encode())

    assert trail(load("stack.toml")) == "a"


# --- apps and sub-stacks ------------------------------------------------------------------------


def test_an_app_may_be_made_by_a_function(write: Write) -> None:
    """``module:attribute()`` calls it, and so do options."""
    assert call(load(write('lamella = 1\napp.use = "shelf:make_app()"')), environ()).text == "hello"
    text = 'lamella = 1\n[app]\nuse = "shelf:make_app"\ngreeting = "hi"\ntimes = 2'
    assert call(load(write(text)), environ()).text == "hihi"
    with pytest.raises(StackFileError, match=r"5:9: times: expected a whole number"):
        load(write(text.replace("2", "'2'")))


def test_a_sub_stack_is_mounted(write: Write) -> None:
    """As the app, in a table of mounts, and inside another sub-stack; each is built once."""
    text = (
        'lamella = 1\napp.use = "@inner"\n' + trails("a")
        + '[[layer]]\nuse = "dispatch"\nmounts = { "/staff" = "@staff", "/x" = { app = "@staff" } }\n'
        + '[stack.inner]\napp.use = "shelf:app"\n' + trails("b").replace("[[layer", "[[stack.inner.layer")
        + '[stack.staff]\napp.use = "@inner"\n' + trails("c").replace("[[layer", "[[stack.staff.layer")
    )  # fmt: skip
    stack = load(write(text))

    assert trail(stack) == "a>b"
    assert trail(stack, "/staff/") == trail(stack, "/x/") == "a>c>b"
    assert list(stack.stacks) == ["inner", "staff"]
    assert stack["staff/c"].full_id == "staff/c"
    mounts = stack["dispatch"].options["mounts"]
    assert mounts["/staff"] is mounts["/x"]["app"] is stack.stacks["staff"]


def test_a_mounted_module_is_not_imported_by_loading(write: Write) -> None:
    """The layer imports it with the first request; ``check`` looks whether it is there."""
    file = write(HEAD + '[[layer]]\nuse = "dispatch"\nmounts = { "/a" = "nowhere_at_all:app" }\n')

    load(file)

    (problem,) = check(file).errors
    assert str(problem).startswith("stack.toml:6:19: mounts: no module named `nowhere_at_all`")
    assert check(file).exit_code == 4
    assert check(file, import_apps=False).exit_code == 0


# --- scopes -------------------------------------------------------------------------------------


def test_a_layer_out_of_scope_is_passed_by(write: Write) -> None:
    """On the canonical path, relative to where the stack is mounted."""
    stack = load(write(HEAD + trails("a") + 'when = { paths = ["/api/*"], methods = ["GET"] }\n' + trails("b")))

    assert trail(stack, "/api/x") == "a>b"
    assert trail(stack, "/apix") == "b"
    assert trail(stack, "/api/x", "POST") == "b"
    assert trail(stack, "/api/x", SCRIPT_NAME="/mounted") == "a>b"
    assert call(stack, environ("GET", "/api//x")).code == 400


# --- profiles -----------------------------------------------------------------------------------

PROFILED = (
    HEAD
    + trails("a", "b")
    + """
[profile.dev]
"b.name" = "B"
disable = ["a"]
[[profile.dev.insert]]
before = "a"
use = "shelf:Trail"
name = "before"
[[profile.dev.insert]]
after = "b"
use = "shelf:Trail"
id = "last"
name = "last"
[profile.dev.app]
use = "shelf:make_app()"
[profile.test.b]
name = "test"
when = { paths = ["/x"] }
[profile.other]
"app.use" = "shelf:make_app()"
"""
)


def test_a_profile_inserts_sets_and_disables(write: Write) -> None:
    """In this order, so that a layer may be inserted beside one that is disabled."""
    file = write(PROFILED)

    assert trail(load(file)) == "a>b"
    assert [layer.id for layer in load(file, "dev").layers] == ["Trail", "b", "last"]
    assert call(load(file, "dev"), environ()).text == "hello"
    assert call(load(file, "other"), environ()).text == "hello"


def test_a_profile_may_be_written_with_tables(write: Write) -> None:
    """``[profile.test.b]`` sets options of ``b``, its scope too."""
    stack = load(write(PROFILED), "test")

    assert (trail(stack, "/x"), trail(stack, "/y")) == ("a>test", "a")
    assert stack.profile == "test"


def test_a_profile_addresses_layers_of_sub_stacks(write: Write) -> None:
    """As ``sub-stack/id``; the bare id is suggested so."""
    text = 'lamella = 1\napp.use = "@s"\n[stack.s]\napp.use = "shelf:app"\n' + trails("a").replace("[[l", "[[stack.s.l")

    stack = load(write(text + '[profile.dev]\n"s/a.name" = "new"'), "dev")
    assert trail(stack) == "new"
    assert trail(load(write(text + '[profile.dev]\ndisable = ["s/a"]'), "dev")) == ""
    with pytest.raises(StackFileError, match=r"no layer has the id `a` \(did you mean `s/a`\?\)"):
        load(write(text + '[profile.dev]\ndisable = ["a"]'), "dev")


def test_other_profiles_need_no_variables(write: Write) -> None:
    """They are checked, but what they would read is not there on this machine."""
    file = write(LAYER + "[profile.prod]\n'Typed.secret' = { env = 'LAMELLA_NOWHERE' }\n'Typed.call' = 'gone:x'")

    load(file)

    with pytest.raises(StackFileError) as caught:
        load(file, "prod")
    assert len(caught.value.problems) == 2


# --- extends ------------------------------------------------------------------------------------


def test_a_child_changes_its_parent(write: Write) -> None:
    """Options of a layer in place, new layers inside, insertions beside, the app."""
    Path("base").mkdir()
    write(HEAD + trails("a", "b") + "[profile.dev]\n'b.name' = 'dev'\n'a.name' = 'dev'", "base/base.toml")
    write(
        'lamella = 1\nextends = "base/base.toml"\ndisable = ["gone"]\n'
        + '[[layer]]\nid = "a"\nname = "A"\n' + trails("c", "gone")
        + '[[insert]]\nbefore = "b"\nuse = "shelf:Trail"\nname = "new"\n'
        + '[app]\nuse = "shelf:app"\n[profile.dev]\n"a.name" = "child"'
    )  # fmt: skip
    stack = load("stack.toml")

    assert trail(stack) == "A>new>b>c"
    assert trail(load("stack.toml", "dev")) == "child>new>dev>c"
    assert stack.files == ("base/base.toml", "stack.toml")
    assert str(stack["a"].origins["name"]) == "stack.toml:6"
    assert str(stack["b"].origins["name"]) == "base/base.toml:11"


def test_a_child_may_replace_what_a_layer_uses(write: Write) -> None:
    """The parent's options would not fit another layer: they go with it."""
    write(HEAD + trails("a"), "base.toml")
    stack = load(write('lamella = 1\nextends = "base.toml"\n[[layer]]\nid = "a"\nuse = "shelf:Typed"\nflag = true'))

    assert dict(stack["a"].options) == {"flag": True}


def test_a_child_changes_sub_stacks(write: Write) -> None:
    """By name, with the same rules."""
    text = '[stack.s]\napp.use = "shelf:app"\n' + trails("a", "b").replace("[[l", "[[stack.s.l")
    write('lamella = 1\napp.use = "@s"\n' + text, "base.toml")
    child = 'lamella = 1\nextends = "base.toml"\n[stack.s]\ndisable = ["b"]\n[[stack.s.layer]]\nid = "a"\nname = "A"\n'

    assert trail(load(write(child))) == "A"


def test_mistakes_are_located_in_the_file_that_has_them(write: Write) -> None:
    """The parent's in the parent, whatever the working directory."""
    Path("base").mkdir()
    write(HEAD + trails("a") + "nmae = 'x'\nsecret = 1", "base/base.toml")
    file = write('lamella = 1\nextends = "base/base.toml"\n[[layer]]\nid = "aa"\n')

    with pytest.raises(StackFileError) as caught:
        load(file)

    assert [str(one).partition("; ")[0] for one in caught.value.problems] == [
        "base/base.toml:8:1: a has no option `nmae` (did you mean `name`?)",
        "base/base.toml:9:1: a has no option `secret`",
        "stack.toml:3:1: a layer needs `use`",
    ]


@pytest.mark.parametrize("names", [["stack"], ["stack", "a"], ["stack", "a", "b"]], ids=len)
def test_a_circle_of_parents_is_located(write: Write, names: list[str]) -> None:
    """At the statement that closes it."""
    for name, parent in zip(names, [*names[1:], names[0]], strict=True):
        write(f'lamella = 1\nextends = "{parent}.toml"', f"{name}.toml")

    with pytest.raises(StackFileError) as caught:
        load("stack.toml")

    assert str(caught.value).startswith(f"{names[-1]}.toml:2:11: extends goes in a circle: stack.toml → ")
    assert check("stack.toml").exit_code == 4


def test_a_missing_parent_is_located(write: Write) -> None:
    """Where it is named, not at the start of a file that is not there."""
    file = write('lamella = 1\nextends = "gone.toml"')

    assert [str(one) for one in check(file).errors] == [
        "stack.toml:2:11: gone.toml: the stack file cannot be read: No such file or directory"
    ]


# --- the other statements -----------------------------------------------------------------------


def test_keeps_what_other_commands_use(write: Write) -> None:
    """Expectations, silences, descriptions and budgets, with their places."""
    text = (
        LAYER
        + """
[[expect]]
request = "OPTIONS /api/cart?x=1"
headers = { Origin = "https://evil.example" }
status = [200, "4xx"]
absent = ["Access-Control-Allow-Origin"]
present = ["Vary"]
header = { Content-Type = "text/plain" }
contains = "hello"
json = { a = 1 }
[[silence]]
rule = "L104"
layer = "Typed"
reason = "the preflight is answered by the proxy"
[describe."shelf:Typed"]
provides = ["shop.user"]
requires = ["lamella.session"]
order = [{ inside = "session", why = "it reads the session" }]
streams = true
[budget]
Typed = "5us"
"""
    )
    stack = load(write(text))

    (expect,), (silence,) = stack.expects, stack.silences
    assert (expect.method, expect.target, expect.line) == ("OPTIONS", "/api/cart?x=1", 7)
    assert (expect.status, expect.contains, expect.json) == (("200", "4xx"), ("hello",), {"a": 1})
    assert (expect.present, expect.absent) == (("Vary",), ("Access-Control-Allow-Origin",))
    assert (expect.headers, expect.header) == (
        {"Origin": "https://evil.example"}, {"Content-Type": "text/plain"},
    )  # fmt: skip
    assert (silence.rule, silence.layer, silence.reason) == ("L104", "Typed", "the preflight is answered by the proxy")
    described = stack.describe["shelf:Typed"]
    assert (described.provides, described.requires, described.streams) == (("shop.user",), ("lamella.session",), True)
    assert [(rule.layer, rule.why) for rule in described.order] == [("session", "it reads the session")]
    assert stack.budget["Typed"] == pytest.approx(5e-6)


# --- cost ---------------------------------------------------------------------------------------


@pytest.mark.timing
def test_checks_a_large_file_quickly(write: Write) -> None:
    """200 layers and 500 mounts in less than half a second, apps not imported."""
    mounts = "".join(f'"/m{i}" = "gone_{i}.wsgi:app"\n' for i in range(500))
    text = 'lamella = 1\n[app]\nuse = "gone.wsgi:app"\n' + trails(*(f"t{i}" for i in range(199)))
    file = write(text + '[[layer]]\nuse = "dispatch"\n[layer.mounts]\n' + mounts)
    check(file, import_apps=False)  # imports the layers

    began = time.thread_time()
    report = check(file, import_apps=False)

    assert report.problems == []
    assert time.thread_time() - began < 0.5


def test_loading_imports_nothing_slow(write: Write) -> None:
    """No ``importlib.metadata``, ``inspect`` or ``dataclasses``, no server, no WebOb, no other layer."""
    file = write('lamella = 1\napp.use = "wsgiref.simple_server:demo_app"\n[[layer]]\nuse = "request_id"')
    path = next(str(folder) for folder in sys.path if (Path(folder) / "lamella" / "middleware").is_dir())
    code = f"""import sys; sys.path.insert(0, {path!r})
from lamella.stack import load
before = {{*sys.modules, 'wsgiref.simple_server'}}
load({file!r})
slow = ('importlib.metadata', 'dataclasses', 'pkg_resources', 'msgspec', 'webob', 'waitress', 'difflib')
print(*(name for name in sys.modules if name in slow))
print(*(name for name in sys.modules if name.startswith('lamella.middleware.') and '._' not in name))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == ["", "lamella.middleware.request_id"]


# --- the examples -------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(STACKS.glob("*.toml")), ids=lambda path: path.stem)
def test_the_example_files_are_right(path: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """In each of their profiles."""
    import tomllib

    monkeypatch.setenv("SHOP_KEY", "kZ3vQmP0sLx8RtYw2NbUeHaJdGfC6iVo")
    for profile in [None, *tomllib.loads(path.read_text(encoding="utf-8")).get("profile", {})]:
        assert [str(one) for one in check(path, profile).problems] == []


LAYERS = sorted(path.stem for path in Path(lamella.middleware.__path__[0]).glob("[!_]*.py"))


@pytest.mark.parametrize("name", LAYERS)
def test_the_sample_of_each_layer_is_right(name: str, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the docstring of a layer shows can be written into a stack file as it stands."""
    monkeypatch.syspath_prepend(str(STACKS))
    docstring = importlib.import_module(f"lamella.middleware.{name}").__doc__ or ""
    sample = textwrap.dedent(re.split(r"\n(?=\S)", docstring.partition(".. code-block:: toml\n")[2])[0])
    for variable in re.findall(r'env = "(\w+)"', sample):
        monkeypatch.setenv(variable, "kZ3vQmP0sLx8RtYw2NbUeHaJdGfC6iVo")
    shutil.copytree(STACKS.parent / "data", Path.cwd(), dirs_exist_ok=True)
    file = write(f'lamella = 1\napp.use = "shelf:app"\n{sample}')
    problems = [one for one in check(file, expectations=False).problems if one.phase != "order"]

    # A sample may name a module of the reader's.
    assert [str(one) for one in problems if "no module named `shop`" not in one.message] == []
