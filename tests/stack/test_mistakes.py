"""Mistakes in a stack file: each at its line and column, all in one run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lamella.stack import StackFileError, load
from lamella.stack.check import check

HEAD = 'lamella = 1\n[app]\nuse = "shelf:app"\n'
LAYER = HEAD + '[[layer]]\nuse = "shelf:Typed"\n'


def mistakes(file: str, profile: str | None = None) -> list[str]:
    """What loading complains of, line by line."""
    with pytest.raises(StackFileError) as caught:
        load(file, profile)
    assert str(caught.value) == "\n".join(map(str, caught.value.problems))
    for problem in caught.value.problems:
        assert "\n" not in problem.message
        assert problem.file
        assert problem.line >= 1
        assert problem.column >= 1
    return str(caught.value).split("\n")


CASES = {
    # shape of the file
    "no version": ("[app]\nuse = 'shelf:app'", "1:1: the format version is missing: begin the file with `lamella = 1`"),
    "other version": ("lamella = 2\napp.use = 'shelf:app'", "1:11: this version reads the format 1, not 2"),
    "version is text": ('lamella = "1"\napp.use = "shelf:app"', '1:11: this version reads the format 1, not "1"'),
    "no app": ("lamella = 1", '1:1: the stack has no app: [app] with use = "module:attribute"'),
    "app without use": (
        'lamella = 1\n[app]\nusr = "x:y"',
        '2:1: an app needs `use`, such as "module:attribute" (did you mean `use`?)',
    ),
    "app is text": ('lamella = 1\napp = "shelf:app"', '2:7: expected a table, not "shelf:app"'),
    "unknown key": (HEAD + "[sever]\n", "4:1: a stack file has no key `sever`"),
    "misspelt layer": (HEAD + "[[layr]]\nuse = 'cors'", "4:1: a stack file has no key `layr` (did you mean `layer`?)"),
    "layer is a table": (
        HEAD + "[layer]\nuse = 'cors'",
        '4:1: expected an array of tables: write [[layer]], not { use = "cors" }',
    ),
    "layer without use": (HEAD + "[[layer]]\nid = 'x'", "4:1: a layer needs `use`"),
    "use is no text": (HEAD + "[[layer]]\nuse = 5", "5:7: expected the name of a layer, not 5"),
    "bad id": (
        LAYER + 'id = "a.b"',
        '6:6: expected an id of letters, digits, _ and -, not "a.b"',
    ),
    "same id twice": (
        LAYER + "[[layer]]\nuse = 'shelf:Typed'",
        "7:7: the id `Typed` is taken by the layer in line 4; give one of them another `id`",
    ),
    "insert without extends": (
        HEAD + "[[insert]]\nuse = 'edge'\nbefore = 'x'",
        "4:1: `insert` changes a parent or belongs to a profile; without `extends` write the layers as they are to run",
    ),
    # references
    "unknown layer": (HEAD + "[[layer]]\nuse = 'sesion'", "5:7: no layer is called `sesion` (did you mean `session`?)"),
    "missing module": (
        HEAD + "[[layer]]\nuse = 'shelff:Trail'",
        "5:7: no module named `shelff` (did you mean `shelf`?)",
    ),
    "missing attribute": (
        HEAD + "[[layer]]\nuse = 'shelf:Trial'",
        "5:7: shelf has no attribute `Trial` (did you mean `Trail`?)",
    ),
    "missing app": (
        "lamella = 1\napp.use = 'nowhere:app'",
        "2:11: no module named `nowhere`; is its folder on PYTHONPATH?",
    ),
    "app is no reference": (
        "lamella = 1\napp.use = 'shelf'",
        "2:11: `shelf` is not an app; write module:attribute, egg:Dist#name or @sub-stack",
    ),
    "app cannot be called": (
        "lamella = 1\napp.use = 'shelf:number'",
        "2:11: shelf:number is an app only if it can be called; it is of type int",
    ),
    "layer cannot be called": (
        HEAD + "[[layer]]\nuse = 'shelf:number'",
        "5:7: shelf:number is a layer only if it can be called; it is of type int",
    ),
    "layer takes no app": (
        HEAD + "[[layer]]\nuse = 'shelf:clock'",
        "5:7: shelf:clock is not a layer: it does not take an app as its first argument",
    ),
    "a sub-stack as layer": (
        HEAD + "[[layer]]\nuse = '@staff'\nid = 'x'",
        "5:7: @staff is a sub-stack, which is an app: mount it, or make it the app",
    ),
    "unknown egg": (
        HEAD + "[[layer]]\nuse = 'egg:flaskk#main'",
        "5:7: no distribution `flaskk` is installed (did you mean `Flask`?)",
    ),
    "egg without filters": (
        HEAD + "[[layer]]\nuse = 'egg:webob#main'",
        "5:7: webob has no PasteDeploy filter `main` in paste.filter_app_factory or paste.filter_factory; it has none",
    ),
    "unknown sub-stack": (
        "lamella = 1\napp.use = '@stuff'\n[stack.staff]\napp.use = 'shelf:app'",
        "2:11: no sub-stack is called `stuff` (did you mean `staff`?)",
    ),
    "unused sub-stack": (
        HEAD + "[stack.staff]\napp.use = 'shelf:app'",
        '4:1: the sub-stack `staff` is not used; name it somewhere as "@staff"',
    ),
    "sub-stack without app": (
        "lamella = 1\napp.use = '@a'\n[stack.a]",
        "3:1: the sub-stack `a` has no app: app = { use = … }",
    ),
    "circle of sub-stacks": (
        "lamella = 1\napp.use = '@a'\nstack.a.app.use = '@b'\nstack.b.app.use = '@a'",
        "4:19: the sub-stack would contain itself: @a → @b → @a",
    ),
    # options
    "unknown option": (LAYER + "flagg = true", "6:1: Typed has no option `flagg` (did you mean `flag`?)"),
    "missing option": (HEAD + "[[layer]]\nuse = 'shelf:plain'", "5:1: plain needs the option `size`"),
    "text for a truth value": (LAYER + "flag = 'false'", '6:8: flag: expected true or false, not "false"'),
    "truth value for a number": (LAYER + "number = true", "6:10: number: expected a whole number, not true"),
    "fraction for a number": (LAYER + "number = 1.5", "6:10: number: expected a whole number, not 1.5"),
    "text for a ratio": (LAYER + "ratio = '1'", '6:9: ratio: expected a number, not "1"'),
    "number for text": (LAYER + "text = 5", "6:8: text: expected text, not 5"),
    "text for a list": (LAYER + "names = 'abc'", '6:9: names: expected a list of text, not "abc"'),
    "number in a list": (LAYER + "names = [\n'a',\n  5]", "8:3: names: expected text, not 5"),
    "duration": (
        LAYER + "idle = '30x'",
        '6:8: idle: expected seconds or a duration such as "30m", "1h30m", "500ms", not "30x"',
    ),
    "size": (LAYER + "limit = -1", '6:9: limit: expected bytes or a size such as "500 B", "64 KiB", "10 MB", not -1'),
    "network": (
        LAYER + "trust = ['10.0.0.0/8', '10.0.0.1/8']",
        '6:24: trust: expected a network such as "10.0.0.0/8", with no bits set after the mask, not "10.0.0.1/8"',
    ),
    "regular expression": (
        LAYER + "pattern = '('",
        '6:11: pattern: expected a regular expression (missing ), unterminated subpattern at position 0), not "("',
    ),
    "choice": (
        LAYER + "mode = 'froze'",
        '6:8: mode: expected one of "live", "frozen", not "froze" (did you mean `frozen`?)',
    ),
    "tuple": (LAYER + "pair = [1]", "6:8: pair: expected a list of 2 values, not [1]"),
    "table": (LAYER + "table = [1]", "6:9: table: expected a table, not [1]"),
    "date": (LAYER + "text = 1979-05-27", "6:8: text: expected text, not 1979-05-27"),
    "reference": (LAYER + "call = 'shelf:clok'", "6:8: call: shelf has no attribute `clok` (did you mean `clock`?)"),
    "literal secret": (
        LAYER + "secret = 'hunter2hunter2'",
        '6:10: secret: a secret does not stand in the file: write { env = "NAME" } or { file = "path" }, or '
        '{ insecure = "…" } where nothing is at stake',
    ),
    "literal secret in a list": (
        LAYER + "secret = [{ insecure = 'a' }, 'hunter2']",
        '6:31: secret: a secret does not stand in the file: write { env = "NAME" } or { file = "path" }, or '
        '{ insecure = "…" } where nothing is at stake',
    ),
    "literal secret of a third party": (
        HEAD + "[[layer]]\nuse = 'shelf:plain'\nsize = 1\nsecret_key = 'hunter2'",
        '7:14: secret_key: a secret does not stand in the file: write { env = "NAME" } or { file = "path" }, or '
        '{ insecure = "…" } where nothing is at stake',
    ),
    "a number as secret": (
        LAYER + "secret = 12345678",
        '6:10: secret: expected { env = "NAME" } or { file = "path" } or a list of them',
    ),
    "misspelt source of a secret": (
        LAYER + "keys = { a = { evn = 'hunter2' } }",
        '6:14: keys: expected { env = "NAME" } or { file = "path" } (did you mean `env`?)',
    ),
    "missing variable": (
        LAYER + "text = { env = 'LAMELLA_NOWHERE' }",
        "6:16: text: the environment variable LAMELLA_NOWHERE is not set",
    ),
    "missing file": (LAYER + "secret = { file = 'nowhere' }", "6:19: secret: there is no file nowhere"),
    "folder as file": (LAYER + "secret = { file = '.' }", "6:19: secret: the file . cannot be read: Is a directory"),
    "two sources": (
        LAYER + "text = { env = 'A', file = 'b' }",
        "6:8: text: one of env, file and insecure, not several: env, file",
    ),
    "misspelt default": (
        LAYER + "text = { env = 'A', defualt = 'b' }",
        "6:21: text: a value from outside has no key `defualt` (did you mean `default`?)",
    ),
    "default of a secret": (LAYER + "secret = { env = 'A', default = 'b' }", "6:23: secret: a secret has no default"),
    "insecure for no secret": (
        LAYER + "text = { insecure = 'b' }",
        "6:10: text: insecure is for secrets; write the value itself",
    ),
    "default of the wrong type": (
        LAYER + "number = { env = 'LAMELLA_NOWHERE', default = 'b' }",
        '6:47: number: expected a whole number, not "b"',
    ),
    "mounted sub-stack": (LAYER + "mounts = { '/a' = '@x' }", "6:19: mounts: no sub-stack is called `x`"),
    "mounted nonsense": (
        LAYER + "mounts = { '/a' = 5 }",
        '6:19: mounts: expected an app ("module:attribute" or "@sub-stack") or a table, not 5',
    ),
    "key of a mount": (
        LAYER + "mounts = { '/a' = { app = 'x:y', cokies = 'scope' } }",
        "6:34: mounts: no key `cokies` here (did you mean `cookies`?)",
    ),
    "mount without app": (LAYER + "mounts = { '/a' = { cookies = 'scope' } }", "6:19: mounts: lacks `app`"),
    # the scope
    "empty scope": (
        LAYER + "when = {}",
        "6:8: the scope is empty; name one of paths, except, methods, hosts, or leave `when` out",
    ),
    "scope is text": (LAYER + "when = '/api'", '6:8: expected a table, not "/api"'),
    "key of a scope": (LAYER + "when = { path = ['/a'] }", "6:10: `when` has no key `path` (did you mean `paths`?)"),
    "empty list of a scope": (
        LAYER + "when = { paths = [] }",
        '6:18: expected a list of paths such as "/api/*" (with an empty one the layer would never run), not []',
    ),
    "path of a scope": (
        LAYER + "when = { except = ['/', 'api'] }",
        '6:25: expected a list of paths such as "/api/*", not "api"',
    ),
    "method of a scope": (
        LAYER + "when = { methods = ['get'] }",
        '6:21: expected a list of methods in capitals, such as "GET", not "get" (did you mean "GET"?)',
    ),
    "host of a scope": (
        LAYER + "when = { hosts = ['a/b'] }",
        '6:19: expected a list of hosts such as "shop.example" or "*.shop.example", not "a/b"',
    ),
    # profiles
    "unknown id in a profile": (
        LAYER + '[profile.dev]\n"Typde.flag" = true',
        "7:1: no layer has the id `Typde` (did you mean `Typed`?)",
    ),
    "unknown option in a profile": (
        LAYER + '[profile.dev]\n"Typed.flagg" = true',
        "7:1: Typed has no option `flagg` (did you mean `flag`?)",
    ),
    "wrong type in a profile": (
        LAYER + '[profile.dev]\n"Typed.flag" = 1',
        "7:16: flag: expected true or false, not 1",
    ),
    "disabled twice over": (
        LAYER + '[profile.dev]\ndisable = ["Typed", "Typed"]',
        "7:21: no layer has the id `Typed`; there are none",
    ),
    "inserted beside nothing": (
        LAYER + '[[profile.dev.insert]]\nuse = "shelf:Trail"\nbefore = "x"',
        "8:10: no layer has the id `x`; there are `Typed`",
    ),
    "inserted nowhere": (
        LAYER + '[[profile.dev.insert]]\nuse = "shelf:Trail"',
        "6:1: [[insert]] needs one of `before` and `after`, with the id of a layer",
    ),
    "use in a profile": (
        LAYER + '[profile.dev]\n"Typed.use" = "shelf:Trail"',
        "7:1: a profile does not change `use`; use `disable` and [[profile.x.insert]]",
    ),
    "a line without a dot": (
        LAYER + "[profile.dev]\nflag = true",
        '7:1: a profile has lines "id.option" = value, not `flag`',
    ),
    # the other statements
    "expectation without request": (
        HEAD + "[[expect]]\nstatus = 200",
        '4:1: [[expect]] needs `request`, such as "GET /"',
    ),
    "request": (HEAD + "[[expect]]\nrequest = '/x'", '5:11: expected a method and a path such as "GET /", not "/x"'),
    "key of an expectation": (
        HEAD + "[[expect]]\nrequest = 'GET /'\nabsnt = ['A']",
        "6:1: [[expect]] has no key `absnt` (did you mean `absent`?)",
    ),
    "status": (
        HEAD + "[[expect]]\nrequest = 'GET /'\nstatus = 20",
        '6:10: expected a status such as 200 or "2xx", or a list of them, not 20',
    ),
    "header name": (
        HEAD + "[[expect]]\nrequest = 'GET /'\nabsent = ['A', 'B C']",
        "6:16: `B C` is no header name",
    ),
    "silence without reason": (HEAD + "[[silence]]\nrule = 'L104'", "4:1: [[silence]] needs `reason`"),
    "silence for nobody": (
        LAYER + "[[silence]]\nrule = 'L104'\nlayer = 'typed'\nreason = 'x'",
        "8:9: no layer has the id `typed` (did you mean `Typed`?)",
    ),
    "budget for nobody": (
        LAYER + "[budget]\ntyped = '5us'",
        "7:1: no layer has the id `typed` (did you mean `Typed`?)",
    ),
    "budget": (LAYER + "[budget]\nTyped = 'short'", '7:9: expected a duration such as "5us", not "short"'),
    "description of nobody": (
        LAYER + "[describe.'shelf:Type']\nprovides = ['x']",
        '6:1: no layer has use = "shelf:Type" (did you mean `shelf:Typed`?)',
    ),
    "order rule": (
        LAYER + "[describe.'shelf:Typed']\norder = [{ insde = 'session' }]",
        "7:12: an order rule has no key `insde` (did you mean `inside`?)",
    ),
    # building
    "refused by the layer": (LAYER + "number = 13", "6:10: number: expected a number that brings luck, not 13"),
    "an element refused by the layer": (
        LAYER + "names = ['a', 'nobody']",
        "6:15: names: expected names of somebody, not 'nobody'",
    ),
    "the layer raises": (
        LAYER + "number = 14",
        "5:7: Typed raised RuntimeError: the roof is on fire (shelf.py, line 90)",
    ),
    "the layer exits": (LAYER + "number = 15", "5:7: Typed raised SystemExit: 3 (shelf.py, line 92)"),
    "the layer returns nothing": (
        HEAD + "[[layer]]\nuse = 'shelf:nothing'",
        "5:7: nothing: use: expected a layer that returns a WSGI application, not None",
    ),
}


@pytest.mark.parametrize(("text", "expected"), CASES.values(), ids=CASES)
def test_locates_the_mistake(write: Callable[[str], str], text: str, expected: str) -> None:
    """Line, column, what is wrong, and what was perhaps meant."""
    found = mistakes(write(text))
    if "(shelf.py" in expected:
        found = [line.partition(" (shelf.py")[0] for line in found]
        expected = expected.partition(" (shelf.py")[0]

    assert f"stack.toml:{expected}" in [line.partition("; there are `lamella`")[0] for line in found]


SYNTAX = {
    "no value": (b"lamella =", "1:10: not TOML: invalid value at the end of the file"),
    "no closing bracket": (b"lamella = 1\n[app\n", "2:5: not TOML: expected ']' at the end of a table declaration"),
    "a key twice": (b"lamella = 1\nlamella = 1\n", "2:12: not TOML: cannot overwrite a value"),
    "a table twice": (b"[app]\nuse = 'x'\n[app]\n", "3:5: not TOML: cannot declare ('app',) twice"),
    "not UTF-8": (b"lamella = 1\nx = '\xc3\xa9\xff'\n", "2:7: the file is not UTF-8: byte 0xff cannot stand here"),
    "not UTF-8, after a byte order mark": (
        b"\xef\xbb\xbflamella = 1\nx = '\xc3\xa9\xff'\n",
        "2:7: the file is not UTF-8: byte 0xff cannot stand here",
    ),
    "a huge number": (b"a = " + b"9" * 5000, "1:1: a value cannot be read"),
    "deep": (b"a = " + b"[" * 90 + b"]" * 90, "1:69: the values are nested too deeply"),
    "too deep for Python": (b"a = " + b"[" * 9000 + b"]" * 9000, "1:1: the values are nested too deeply"),
}


@pytest.mark.parametrize(("octets", "expected"), SYNTAX.values(), ids=SYNTAX)
def test_locates_what_is_no_toml(write: Callable[[str], str], octets: bytes, expected: str) -> None:
    """What tomllib says, as one line with its place."""
    Path("stack.toml").write_bytes(octets)

    (found,) = mistakes("stack.toml")

    assert found.startswith(f"stack.toml:{expected}")
    assert check("stack.toml").exit_code == 2


def test_a_folder_is_no_stack_file(tmp_path: Path) -> None:
    """Nor is a file that is not there, or a name that no file can have."""
    assert mistakes(str(tmp_path)) == [f"{tmp_path}:1:1: this is a folder; name the stack file in it"]
    assert mistakes("nowhere.toml") == ["nowhere.toml:1:1: the stack file cannot be read: No such file or directory"]
    assert mistakes("a\0b")[0].endswith("1:1: this is no path: embedded null byte")


def test_an_unknown_profile_is_an_error(write: Callable[[str], str]) -> None:
    """Asking for a profile that is not there is no reason to run without one."""
    file = write(LAYER + "[profile.production]\n'Typed.flag' = true")

    assert mistakes(file, "prod") == ["stack.toml:6:1: no profile is called `prod`; there are `production`"]
    assert mistakes(file, "produktion") == [
        "stack.toml:6:1: no profile is called `produktion` (did you mean `production`?)"
    ]


def test_reports_every_mistake_in_one_run(write: Callable[[str], str]) -> None:
    """From the syntax of a scope to a constructor that refuses, in the order of the file."""
    text = """lamella = 1
layr = 1
[app]
use = "shelf:ap"
[[layer]]
use = "shelf:Typed"
flag = 1
idle = "x"
idel = "30m"
[[layer]]
use = "nowhere"
[[layer]]
use = "shelf:Typed"
id = "second"
when = { methods = [] }
[[layer]]
use = "shelf:Typed"
id = "third"
number = 13
[profile.dev]
"fourth.flag" = true
[stack.unused]
app = { use = "shelf:app" }
"""
    found = [(line.split(":")[1], line.split(":")[2]) for line in mistakes(write(text))]

    places = ["2:1", "4:7", "7:8", "8:8", "9:1", "11:7", "15:20", "19:10", "21:1", "22:1"]
    assert [":".join(place) for place in found] == places


def test_keyword_options_are_flagged_not_refused(write: Callable[[str], str]) -> None:
    """A factory that takes ``**kw`` accepts any spelling: a warning says that nobody checks it."""
    stack = load(write(HEAD + "[[layer]]\nuse = 'shelf:anything'\ncolur = 'red'"))

    (warning,) = stack.warnings
    assert str(warning) == "stack.toml:5:1: options not checked: shelf:anything takes any keyword"
    assert warning.warning
    assert warning.exit_code == 0


def test_a_module_that_fails_to_import_is_one_line(write: Callable[[str], str]) -> None:
    """Also one that exits, has a syntax error, or lacks a module of its own."""
    for name, code, expected in [
        ("raises_x", "1/0", "importing raises_x raised ZeroDivisionError: division by zero (raises_x.py, line 1)"),
        ("exits_x", "import sys\nsys.exit('no')", "importing exits_x raised SystemExit: no (exits_x.py, line 2)"),
        ("syntax_x", "a =", "importing syntax_x raised SyntaxError: invalid syntax (syntax_x.py, line 1)"),
        ("lacks_x", "import gone_x", "importing lacks_x failed: no module named `gone_x`"),
    ]:
        Path(f"{name}.py").write_text(code)
        file = write(f"lamella = 1\napp.use = '{name}:app'")
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(Path.cwd()))
            assert mistakes(file) == [f"stack.toml:2:11: {expected}"]


def test_secrets_stay_out_of_errors(write: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A constructor that prints what it was given does not give the secret away."""
    monkeypatch.setenv("LAMELLA_TEST_SECRET", "hunter2hunter2")
    file = write(LAYER + "text = 'tell it'\nsecret = { env = 'LAMELLA_TEST_SECRET' }")

    (found,) = mistakes(file)

    assert "hunter2" not in found
    assert "Typed raised ValueError: cannot use 'tell it' and ***" in found
