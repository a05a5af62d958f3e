"""DispatchMiddleware: which app answers, what it sees of the path, and what is repaired in its answer."""

from __future__ import annotations

import io
import logging
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any
from urllib.parse import quote
from wsgiref.types import WSGIApplication

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamella.middleware._dispatch import relocated, scoped_cookie
from lamella.middleware.dispatch import DispatchMiddleware
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.keys import MOUNT
from lamella.stack.testing import RecordingApp, call, environ, lint

CONTRACT: dict[str, Any] = {"options": {"mounts": {}}}


#: The source of an app that answers with the word it is formatted with.
SOURCE = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"{}"]
"""


def named(name: str) -> RecordingApp:
    """An app that answers with its name."""
    return RecordingApp(body=[name.encode()])


def layer(app: WSGIApplication | None = None, **options: Any) -> WSGIApplication:
    """The layer under test, with the linter on both of its sides."""
    options.setdefault("mounts", {})
    return lint(DispatchMiddleware(lint(app or named("root")), **options))


@pytest.mark.parametrize(
    ("path", "answer", "script_name", "path_info"),
    [
        ("/flask/x", b"flask", "/flask", "/x"),
        ("/flask/", b"flask", "/flask", "/"),
        ("/flask/admin/x", b"admin", "/flask/admin", "/x"),
        ("/flask/administrator", b"flask", "/flask", "/administrator"),
        ("/flaskx", b"root", "", "/flaskx"),
        ("/flas", b"root", "", "/flas"),
        ("/", b"root", "", "/"),
        ("/a/b/c/d", b"deep", "/a/b/c", "/d"),
        ("/a/b/x", b"root", "", "/a/b/x"),
        ("/a", b"root", "", "/a"),
        ("/%66lask/x", b"flask", "/flask", "/x"),
        ("/flask/%C3%A9", b"flask", "/flask", "/Ã©"),
        ("/FLASK/x", b"root", "", "/FLASK/x"),
    ],
)
def test_takes_the_longest_prefix_on_segment_borders(
    path: str, answer: bytes, script_name: str, path_info: str
) -> None:
    """``/flask`` takes ``/flask/x``, never ``/flaskx``; a longer prefix goes first, twice in the same way."""
    root = named("root")
    apps = {"/flask": named("flask"), "/flask/admin": named("admin"), "/a/b/c": named("deep")}
    app = layer(root, mounts=apps)

    for _ in range(2):
        response = call(app, environ("GET", path))

        assert response.body == answer
        asked = {"root": root, "flask": apps["/flask"], "admin": apps["/flask/admin"], "deep": apps["/a/b/c"]}
        inside = asked[answer.decode()].environ
        assert (inside["SCRIPT_NAME"], inside["PATH_INFO"]) == (script_name, path_info)


@given(
    st.lists(st.text("ab", min_size=1, max_size=2), max_size=4),
    st.sets(st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=3).map(tuple)),
)
def test_agrees_with_the_definition(segments: list[str], prefixes: set[tuple[str, ...]]) -> None:
    """The walk finds what trying every prefix would find; script name and path together stay the same."""
    mounts = {"/" + "/".join(prefix): RecordingApp() for prefix in prefixes}
    root = RecordingApp()
    path = "/" + "/".join(segments)

    call(DispatchMiddleware(root, mounts=mounts, slash="pass"), environ("GET", path))

    fitting = [prefix for prefix in mounts if path == prefix or path.startswith(prefix + "/")]
    expected = mounts[max(fitting, key=len)] if fitting else root
    assert [app.called for app in (root, *mounts.values())].count(1) == 1
    assert expected.environ["SCRIPT_NAME"] + expected.environ["PATH_INFO"] == path


def test_leaves_the_outer_environ_as_it_is() -> None:
    """The layer outside still sees the path the client asked for; the mounted app finds the original."""
    app = named("flask")
    request = environ("GET", "/flask/x", REQUEST_URI="/flask/x?", RAW_URI="/flask/x?")

    call(layer(mounts={"/flask": app}), request)

    assert (request["SCRIPT_NAME"], request["PATH_INFO"]) == ("", "/flask/x")
    assert (app.environ["REQUEST_URI"], app.environ["RAW_URI"]) == ("/flask/x?", "/flask/x?")
    assert app.environ["lamella.dispatch.original"] == {"SCRIPT_NAME": "", "PATH_INFO": "/flask/x"}


def test_names_the_mount_inside_and_outside() -> None:
    """The mounted app and the log outside both learn which mount answered."""
    app = named("flask")
    request = environ("GET", "/flask/x")

    call(layer(mounts={"/flask": app}), request)

    assert MOUNT.get(app.environ) == MOUNT.get(request) == "/flask"


def test_nests_and_keeps_the_first_original() -> None:
    """Two dispatchers shift twice; the original is what the client asked."""
    app = named("inner")
    nested = DispatchMiddleware(named("outer"), mounts={"/b": app})

    call(layer(mounts={"/a": nested}), environ("GET", "/a/b/c", mount="/up"))

    assert (app.environ["SCRIPT_NAME"], app.environ["PATH_INFO"]) == ("/up/a/b", "/c")
    assert app.environ["lamella.dispatch.original"] == {"SCRIPT_NAME": "/up", "PATH_INFO": "/a/b/c"}
    assert MOUNT.get(app.environ) == "/b"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_redirects_the_mount_without_its_slash(method: str) -> None:
    """Relative links of a page at ``/flask`` would leave the mount."""
    app = named("flask")
    request = environ(method, "/flask?a=1&b=%20", mount="/caf\xc3\xa9")

    response = call(layer(mounts={"/flask": app}), request)

    assert (response.code, response.body) == (308, b"")
    assert response.header("Location") == "/caf%C3%A9/flask/?a=1&b=%20"
    assert app.called == 0


def test_a_redirect_has_one_header_line_whatever_the_query() -> None:
    """A query with line ends, as a careless server may hand it over, cannot split the answer."""
    response = call(
        layer(mounts={"/flask": named("flask")}), environ("GET", "/flask", QUERY_STRING="a\r\nX-Evil: 1\xff")
    )

    assert response.header("Location") == "/flask/?a%0D%0AX-Evil:%201%FF"


@pytest.mark.parametrize(("method", "slash"), [("POST", "redirect"), ("GET", "pass")])
def test_passes_the_mount_itself(method: str, slash: str) -> None:
    """With ``slash = "pass"``, and for methods other than GET and HEAD, the app is asked with an empty path."""
    app = named("flask")

    response = call(layer(mounts={"/flask": app}, slash=slash), environ(method, "/flask"))

    assert response.body == b"flask"
    assert (app.environ["SCRIPT_NAME"], app.environ["PATH_INFO"]) == ("/flask", "")


@pytest.mark.parametrize(
    "path", ["//flask/x", "/flask//x", "/flask/../x", "/x/%2e%2e/flask", "/flask%5cx", "/flask/%ff"]
)
def test_refuses_an_ambiguous_path(path: str) -> None:
    """Nobody inside is asked for a path that can be read in two ways."""
    root, app = named("root"), named("flask")

    response = call(layer(root, mounts={"/flask": app}), environ("GET", path))

    assert response.code == 400
    assert (root.called, app.called) == (0, 0)


@pytest.mark.parametrize("path_info", ["flask/x", "*", "http://evil.example/flask"])
def test_refuses_a_relative_path(path_info: str) -> None:
    """A server that shifted wrongly, or passes the absolute form on, is not guessed after."""
    assert call(layer(mounts={}), environ("GET", "/", PATH_INFO=path_info)).code == 400


def test_holds_the_auth_bypass_corpus(corpus: Any) -> None:
    """A guard on the mount is passed by no spelling of its path, and nothing fails."""
    data = corpus("auth_bypass_paths")

    def guard(request: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("401 Unauthorized", [("Content-Type", "text/plain")])
        return [b"GUARDED"]

    for case in data["cases"]:
        raw = case["raw"]
        path_info = raw.partition("?")[0].partition("#")[0]
        if not path_info.isascii():
            path_info = quote(path_info)
        root = named("ROOT")
        app = DispatchMiddleware(root, mounts={data["protected"]: guard, "/public": named("PUBLIC")})
        response = call(app, environ("GET", path_info))
        assert response.code < 500, case
        if root.called:
            seen = root.environ["PATH_INFO"]
            assert seen != "/admin", case
            assert not seen.startswith("/admin/"), case
        for plain in ("/adminx", "/administrator", "/admin-secret", "/admin_"):
            assert call(app, environ("GET", plain)).body == b"ROOT"


# --- hosts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "answer"),
    [
        ("api.example", b"api"),
        ("API.Example.", b"api"),
        ("api.example:8080", b"port"),
        ("api.example:9", b"api"),
        ("a.b.example", b"any"),
        ("x.a.b.example", b"any"),
        ("x.special.b.example", b"special"),
        ("b.example", b"root"),
        ("xb.example", b"root"),
        ("[::1]:80", b"v6"),
        ("10.0.0.1", b"root"),
    ],
)
def test_chooses_by_host(host: str, answer: bytes) -> None:
    """Host and port, then host, then the longest wildcard; the prefix only afterwards."""
    hosts = {
        "api.example": named("api"),
        "api.example:8080": named("port"),
        "*.b.example": named("any"),
        "*.special.b.example": named("special"),
        "[::1]": named("v6"),
    }

    response = call(layer(hosts=hosts, mounts={"/m": named("mount")}), environ("GET", "/x", host=host))

    assert response.body == answer


def test_a_host_app_keeps_its_path() -> None:
    """Nothing is shifted for a host; the mount is its pattern."""
    app = named("api")

    call(layer(hosts={"*.b.example": app}, mounts={"/m": named("m")}), environ("GET", "/m/x", host="a.b.example"))

    assert (app.environ["SCRIPT_NAME"], app.environ["PATH_INFO"]) == ("", "/m/x")
    assert MOUNT.get(app.environ) == "*.b.example"


@pytest.mark.parametrize("host", ["", "a/?x=", "h@evil", "api.example, evil", "api.example:99999"])
def test_refuses_a_malformed_host(host: str) -> None:
    """Where the host decides, a malformed one is a 400."""
    assert call(layer(hosts={"api.example": named("api")}), environ("GET", "/", host=host)).code == 400


def test_a_missing_host_is_that_of_the_server() -> None:
    """HTTP/1.0 clients send none."""
    request = environ("GET", "/", SERVER_NAME="api.example")
    del request["HTTP_HOST"]

    assert call(layer(hosts={"api.example": named("api")}), request).body == b"api"


# --- cascade ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["404 Not Found", "405 Method Not Allowed"])
@pytest.mark.parametrize("late", [False, True])
def test_tries_the_next_app(status: str, late: bool) -> None:
    """404 and 405 are "not mine"; the refused body is closed and nothing of it is sent."""
    first = RecordingApp(status=status, body=[b"no"], write=[b"never"], late=late)

    response = call(layer(first, cascade=[named("second")]), environ("GET", "/x"))

    assert (response.code, response.body) == (200, b"second")
    assert first.closed == 1


def test_the_last_answer_of_a_cascade_stands() -> None:
    """Where everybody refuses, the last one's page is shown."""
    apps = [RecordingApp(status="404 Not Found", body=[name]) for name in (b"1", b"2", b"3")]

    response = call(layer(apps[0], cascade=apps[1:]), environ("GET", "/x"))

    assert (response.code, response.body) == (404, b"3")


def test_a_mount_s_404_is_final() -> None:
    """The cascade stands behind the app of the layer, not behind the mounts."""
    mounted = RecordingApp(status="404 Not Found", body=[b"no"])

    assert call(layer(mounts={"/m": mounted}, cascade=[named("second")]), environ("GET", "/m/x")).code == 404


def test_each_app_of_a_cascade_gets_its_own_environ() -> None:
    """An app that spoils its environ does not spoil the next one's."""
    first = RecordingApp(status="404 Not Found", before=lambda request: request.clear())
    second = named("second")

    call(DispatchMiddleware(first, mounts={}, cascade=[second]), environ("GET", "/x"))

    assert second.environ["PATH_INFO"] == "/x"


@pytest.mark.parametrize("how", ["read", "parts", "readline", "readlines", "iterate"])
def test_a_cascade_reads_the_body_again(how: str) -> None:
    """What the first app read of the request, the second reads too."""
    body = b"line 1\nline 2\nthe rest"
    read: list[bytes] = []

    def reading(request: dict[str, Any]) -> None:
        stream = request["wsgi.input"]
        if how == "read":
            read.append(stream.read(len(body)))
        elif how == "parts":
            read.append(b"".join(iter(lambda: stream.read(5), b"")))
        elif how == "readline":
            read.append(stream.readline(3) + stream.readline() + stream.readline() + stream.read())
        else:
            read.append(b"".join(stream.readlines() if how == "readlines" else stream))

    first = RecordingApp(status="404 Not Found", before=reading)
    second = RecordingApp(before=reading)

    call(DispatchMiddleware(first, mounts={}, cascade=[second]), environ("POST", "/x", body=body))

    assert read == [body, body]


@pytest.mark.parametrize("sizes", [[0, 3, 7], [1] * 30, [100], [6, 1, 100]])
def test_a_second_app_may_read_in_other_steps(sizes: list[int]) -> None:
    """The replayed part and the rest of the stream join without a seam."""
    body = b"0123456789abcdef"
    second_read: list[bytes] = []
    first = RecordingApp(status="404 Not Found", read=9)
    second = RecordingApp(before=lambda request: second_read.extend(request["wsgi.input"].read(n) for n in sizes))

    call(DispatchMiddleware(first, mounts={}, cascade=[second]), environ("POST", "/x", body=body))

    assert b"".join(second_read) == body[: sum(sizes)]


def test_a_large_body_that_was_read_ends_the_cascade() -> None:
    """What was read past the limit is gone, so the first app's answer stands."""
    first = RecordingApp(status="404 Not Found", body=[b"first"], read=-1)
    second = named("second")
    app = layer(first, cascade=[second], cascade_limit="10 B")

    assert call(app, environ("POST", "/x", body=b"x" * 11)).body == b"first"
    assert call(app, environ("POST", "/x", body=b"x" * 10)).body == b"second"


# --- lazy import --------------------------------------------------------------------------------


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the import path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_imports_a_mounted_app_when_it_is_asked(modules: Path) -> None:
    """Not when the stack is built; once, also when threads ask together."""
    (modules / "lazy_one.py").write_text(
        "import time\ntime.sleep(0.05)\nimports = []\nimports.append(1)\n" + SOURCE.format("lazy")
    )
    app = layer(mounts={"/lazy": "lazy_one:app"})
    assert "lazy_one" not in sys.modules
    answers: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: answers.append(call(app, environ("GET", "/lazy/")).body)) for _ in range(8)
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers == [b"lazy"] * 8
    assert sys.modules["lazy_one"].imports == [1]


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (None, "no module named 'broken_app'"),
        ("raise RuntimeError('secret detail')", "secret detail"),
        ("import sys; sys.exit(3)", "3"),
        ("def (", "invalid syntax"),
        ("application = 1", "'app' is none"),
        ("app = 1", "callable"),
    ],
)
def test_a_broken_module_is_503_and_named_in_the_log(
    source: str | None, why: str, modules: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Operators read the module and the reason in the log; clients read neither."""
    monkeypatch.delitem(sys.modules, "broken_app", raising=False)
    if source is not None:
        (modules / "broken_app.py").write_text(source)
    app = layer(mounts={"/lazy": "broken_app:app"})

    with caplog.at_level(logging.ERROR, "lamella.dispatch"):
        response = call(app, environ("GET", "/lazy/"))

    assert response.code == 503
    assert response.header("Retry-After") == "5"
    assert b"broken_app" not in response.body
    (record,) = caplog.records
    assert "broken_app:app" in record.getMessage()
    assert why in record.getMessage()


def test_tries_a_repaired_module_again(modules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repaired file needs no restart; until then a broken one is not imported by every request."""
    (modules / "mended_app.py").write_text("raise RuntimeError")
    app = layer(mounts={"/lazy": "mended_app:app"})
    assert call(app, environ("GET", "/lazy/")).code == 503
    (modules / "mended_app.py").write_text(SOURCE.format("mended"))

    assert call(app, environ("GET", "/lazy/")).code == 503
    monkeypatch.setattr(time, "monotonic", lambda: 1e12)
    assert call(app, environ("GET", "/lazy/")).body == b"mended"


def test_tools_can_load_what_is_mounted(modules: Path) -> None:
    """``mounts`` and ``hosts`` tell which apps there are; a lazy one can be loaded on demand."""
    (modules / "listed_app.py").write_text("def app(environ, start_response): ...\n")
    root = named("root")
    dispatch = DispatchMiddleware(root, mounts={"/a": root, "/b": "listed_app:app"}, hosts={"h.example": root})

    assert (list(dispatch.mounts), list(dispatch.hosts)) == (["/a", "/b"], ["h.example"])
    lazy: Any = dispatch.mounts["/b"]
    assert lazy.load() is sys.modules["listed_app"].app


# --- repairs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cookie", "expected"),
    [
        ("session=1; Path=/; HttpOnly", "session=1; Path=/m; HttpOnly"),
        ("session=1;path=/", "session=1;path=/m"),
        ("session=1; Path=/m", "session=1; Path=/m"),
        ("session=1; Path=/m/x", "session=1; Path=/m/x"),
        ("session=1; Path=/mx", "session=1; Path=/m/mx"),
        ("session=1; Path=/x; Secure", "session=1; Path=/m/x; Secure"),
        ("session=1; HttpOnly", "session=1; HttpOnly"),
        ("session=path=/; Path=/", "session=path=/; Path=/m"),
        ("__Host-session=1; Path=/; Secure", "__Host-session=1; Path=/; Secure"),
        ("", ""),
        (";;; Path", ";;; Path"),
    ],
)
def test_keeps_cookies_to_the_mount(cookie: str, expected: str) -> None:
    """Two mounted apps with a cookie ``session`` do not log each other out."""
    app = RecordingApp(headers=[("Set-Cookie", cookie), ("Set-Cookie", "other=1; Path=/")])
    mounts = {"/m": {"app": app, "cookies": "scope"}}

    response = call(DispatchMiddleware(named("root"), mounts=mounts), environ("GET", "/m/x"))

    assert response.header_list("Set-Cookie") == [expected, "other=1; Path=/m"]


def test_scopes_a_cookie_without_path_set_at_the_mount_itself() -> None:
    """There the default path would be that of the whole site (RFC 6265 section 5.1.4)."""
    app = RecordingApp(headers=[("Set-Cookie", "session=1")])
    mounts = {"/m": {"app": app, "cookies": "scope"}}

    response = call(DispatchMiddleware(named("root"), mounts=mounts), environ("POST", "/m", mount="/up"))

    assert response.header("Set-Cookie") == "session=1; Path=/up/m"


def test_leaves_cookies_and_locations_by_default() -> None:
    """Repairs are asked for, mount by mount."""
    headers = [("Set-Cookie", "a=1; Path=/"), ("Location", "/index"), ("Content-Type", "text/plain")]
    app = RecordingApp(status="302 Found", headers=headers)

    response = call(layer(mounts={"/m": {"app": app}}), environ("GET", "/m/x"))

    assert (response.header("Set-Cookie"), response.header("Location")) == ("a=1; Path=/", "/index")


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/index", "/m/index"),
        ("/", "/m/"),
        ("/?a=1", "/m/?a=1"),
        ("/m/index", "/m/index"),
        ("/m", "/m"),
        ("/m?a", "/m?a"),
        ("/mx", "/m/mx"),
        ("index", "index"),
        ("", ""),
        ("http://localhost/index", "http://localhost/m/index"),
        ("http://localhost", "http://localhost/m/"),
        ("http://localhost?a=1", "http://localhost/m/?a=1"),
        ("https://LOCALHOST:443/index", "https://LOCALHOST:443/m/index"),
        ("http://localhost/m/index", "http://localhost/m/index"),
        ("//localhost/index", "//localhost/m/index"),
        ("//evil.example/index", "//evil.example/index"),
        ("http://evil.example/index", "http://evil.example/index"),
        ("http://localhost:8080/index", "http://localhost:8080/index"),
        ("http://localhost@evil.example/", "http://localhost@evil.example/"),
        ("ftp://localhost/index", "ftp://localhost/index"),
        ("mailto:a@b", "mailto:a@b"),
        ("/\\evil.example", "/\\evil.example"),
    ],
)
def test_repairs_a_location_that_forgot_the_prefix(location: str, expected: str) -> None:
    """``redirect("/index")`` of a tutorial app stays inside its mount; other sites are left alone."""
    app = RecordingApp(status="302 Found", headers=[("Location", location)])

    response = call(
        DispatchMiddleware(named("root"), mounts={"/m": {"app": app, "relocate": True}}), environ("GET", "/m/x")
    )

    assert response.header("Location") == expected


@given(st.text(max_size=40))
def test_repairs_never_raise(text: str) -> None:
    """Whatever an app puts into a header."""
    assert isinstance(scoped_cookie(text, "/m", True), str)
    assert isinstance(relocated(text, "/m", {"HTTP_HOST": "localhost"}), str)


def test_two_apps_with_one_cookie_name_live_side_by_side() -> None:
    """Two real Flask apps, both with a cookie ``session`` for ``/``, both mounted: neither loses its session."""
    import flask
    from werkzeug.test import Client

    def counter(secret: str) -> Any:
        app = flask.Flask("counter")
        app.secret_key = secret

        @app.get("/count")
        def count() -> str:
            flask.session["n"] = flask.session.get("n", 0) + 1
            return str(flask.session["n"])

        @app.get("/away")
        def away() -> Any:
            return flask.redirect("/count")

        return app

    mounts = {path: {"app": counter(path), "cookies": "scope", "relocate": True} for path in ("/one", "/two")}
    browser = Client(DispatchMiddleware(named("root"), mounts=mounts))

    seen = [browser.get(path + "/count").text for path in ("/one", "/two", "/one", "/two")]

    assert seen == ["1", "1", "2", "2"]
    assert browser.get("/two/away", follow_redirects=True).text == "3"


# --- configuration ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prefix",
    ["", "/", "admin", "/admin/", "//admin", "/a//b", "/a/../b", "/.", "/é", "/a%20b", "/a b", "/a?b", "/a;b", 1],
)
def test_refuses_a_bad_prefix(prefix: Any) -> None:
    """A prefix that could never match, or match what it does not say, is a configuration error."""
    with pytest.raises(ConfigError, match="mounts"):
        DispatchMiddleware(named("root"), mounts={prefix: named("x")})


@pytest.mark.parametrize("host", ["", "*", "*.", "a.*.example", "*.a.example:80", "é.example", "a/b", "*.[::1]", 1])
def test_refuses_a_bad_host(host: Any) -> None:
    """Hosts are exact or start with one wildcard label."""
    with pytest.raises(ConfigError, match="hosts"):
        DispatchMiddleware(named("root"), mounts={}, hosts={host: named("x")})


@pytest.mark.parametrize(
    "options",
    [
        {"mounts": ["/a"]},
        {"mounts": {"/a": 1}},
        {"mounts": {"/a": None}},
        {"mounts": {"/a": "no colon"}},
        {"mounts": {"/a": "@staff"}},
        {"mounts": {"/a": {"cookies": "scope"}}},
        {"mounts": {"/a": {"app": named("a"), "cookies": "all"}}},
        {"mounts": {"/a": {"app": named("a"), "relocate": "yes"}}},
        {"mounts": {"/a": {"app": named("a"), "relocat": True}}},
        {"mounts": {}, "hosts": {"a.example": {"app": named("a"), "cookies": "scope"}}},
        {"mounts": {}, "hosts": {"a.example": named("a"), "A.example": named("b")}},
        {"mounts": {}, "slash": "redirects"},
        {"mounts": {}, "cascade": "module:app"},
        {"mounts": {}, "cascade": [1]},
        {"mounts": {}, "cascade_limit": "many"},
    ],
)
def test_refuses_wrong_options(options: dict[str, Any]) -> None:
    """When the stack is built, and with the option's name."""
    with pytest.raises(ConfigError) as caught:
        DispatchMiddleware(named("root"), **options)

    assert str(caught.value).startswith(tuple(options))


class WSGIHandler:
    """Looks like Django's."""

    __module__ = "django.core.handlers.wsgi"

    def __call__(self, request: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"django"]


def test_refuses_django_at_two_prefixes(modules: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Django freezes its static URLs to the first prefix it sees, for the whole process."""
    with pytest.raises(ConfigError, match="one prefix for Django"):
        DispatchMiddleware(named("root"), mounts={"/a": WSGIHandler(), "/b": WSGIHandler()})
    (modules / "djangos.py").write_text(
        "class WSGIHandler:\n    __module__ = 'django.core.handlers.wsgi'\n"
        + SOURCE.replace("app(", "__call__(self, ").replace("\n", "\n    ").format("django")
        + "\napp = WSGIHandler()\n"
    )
    app = layer(mounts={"/a": "djangos:app", "/b": "djangos:app"})
    assert call(app, environ("GET", "/a/")).body == b"django"

    assert call(app, environ("GET", "/b/")).code == 503
    assert "one prefix for django" in caplog.text


def test_a_file_body_passes_through_a_mount() -> None:
    """``wsgi.file_wrapper`` keeps its identity under a prefix, with repairs too."""
    from wsgiref.util import FileWrapper

    wrapper = FileWrapper(io.BytesIO(b"file"))

    def app(request: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        return wrapper

    mounts = {"/m": {"app": app, "cookies": "scope", "relocate": True}}
    body = DispatchMiddleware(named("root"), mounts=mounts)(environ("GET", "/m/x"), lambda *args: lambda data: None)

    assert body is wrapper


# --- apps that settle things when they are made ---------------------------------------------------


class Dash:
    """Looks like Dash: it has its addresses from when it was made."""

    __module__ = "dash.dash"

    def __init__(self, requests: str, routes: str) -> None:
        self.config = type("Config", (), {"requests_pathname_prefix": requests, "routes_pathname_prefix": routes})

    def __call__(self, request: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"dash"]


@pytest.mark.parametrize(
    ("requests", "routes", "cure"),
    [
        pytest.param("/", "/", 'requests_pathname_prefix="/dash/", routes_pathname_prefix="/"', id="plain"),
        pytest.param("/dash/", "/dash/", 'routes_pathname_prefix="/" and no url_base', id="url_base_pathname"),
        pytest.param("/other/", "/", 'requests_pathname_prefix="/dash/"', id="another prefix"),
        pytest.param("/x/", "/x/", 'requests_pathname_prefix="/dash/x/", routes_pathname_prefix="/x/"', id="deeper"),
    ],
)
def test_refuses_dash_with_other_addresses(requests: str, routes: str, cure: str) -> None:
    """Dash reads no SCRIPT_NAME: its scripts would be asked of the outer site."""
    with pytest.raises(ConfigError, match=r"mounts\./dash: ") as caught:
        DispatchMiddleware(named("root"), mounts={"/dash": Dash(requests, routes)})

    assert cure in str(caught.value)


@pytest.mark.parametrize(("requests", "routes"), [("/dash/", "/"), ("/outer/dash/", "/"), ("/dash/x/", "/x/")])
def test_takes_dash_that_knows_its_mount(requests: str, routes: str) -> None:
    """What stands outside of the mount may add to the front of its prefix."""
    app = layer(mounts={"/dash": Dash(requests, routes)})

    assert call(app, environ("GET", "/dash/")).body == b"dash"


def test_an_imported_app_with_other_addresses_is_not_served(modules: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A reference is looked at when it is imported; the log says what to change."""
    (modules / "dashes.py").write_text(
        "class FastAPI:\n    __module__ = 'fastapi.applications'\n    root_path = '/v1'\n"
        + SOURCE.replace("app(", "__call__(self, ").replace("\n", "\n    ").format("api")
        + "\napp = FastAPI()\n"
    )
    app = layer(mounts={"/api": "dashes:app"})

    assert call(app, environ("GET", "/api/")).code == 503
    assert "mounts./api (dashes:app): expected a FastAPI without root_path" in caplog.text


def test_says_that_an_import_patched_the_process(
    modules: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that imports grequests makes threads of the whole server into greenlets."""
    (modules / "patches.py").write_text(
        "import sys, types\n"
        "sys.modules['gevent.monkey'] = types.SimpleNamespace(is_module_patched=lambda name: name == 'threading')\n"
        + SOURCE.format("patched")
    )
    monkeypatch.setitem(sys.modules, "gevent.monkey", types.SimpleNamespace(is_module_patched=lambda name: False))
    app = layer(mounts={"/p": "patches:app"})

    assert call(app, environ("GET", "/p/")).body == b"patched"
    assert "importing patches:app patched threading for the whole process" in caplog.text


# --- apps that know no HEAD -----------------------------------------------------------------------


@pytest.mark.parametrize("lazy", [False, True])
def test_head_is_asked_as_get(lazy: bool) -> None:
    """The headers are those of GET, the content stays, the body is closed once."""
    closed: list[int] = []

    class Body:
        def __init__(self, start: Any) -> None:
            self.start, self.blocks = start, iter([b"one", b"two"])

        def __iter__(self) -> Any:
            return self

        def __next__(self) -> bytes:
            if self.start is not None:
                self.start("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "6")])
                self.start = None
            return next(self.blocks)

        def close(self) -> None:
            closed.append(1)

    def only_get(request: dict[str, Any], start_response: Any) -> Any:
        if request["REQUEST_METHOD"] != "GET":
            start_response("405 Method Not Allowed", [("Content-Type", "text/plain"), ("Content-Length", "0")])
            return []
        if not lazy:
            start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "6")])
        return Body(start_response if lazy else None)

    app = layer(mounts={"/m": {"app": only_get, "head": "get"}}, hosts={"h.example": {"app": only_get, "head": "get"}})

    for answer in (call(app, environ("HEAD", "/m/x")), call(app, environ("HEAD", "/x", host="h.example"))):
        assert (answer.code, answer.header("Content-Length"), answer.body) == (200, "6", b"")
    assert closed == [1, 1]
    assert call(app, environ("GET", "/m/x")).body == b"onetwo"
    assert call(app, environ("POST", "/m/x")).code == 405
    assert call(layer(mounts={"/m": only_get}), environ("HEAD", "/m/x")).code == 405


def test_a_factory_is_called_once(modules: Path) -> None:
    """``"module:factory()"``, as gunicorn has it, with the first request."""
    source = "calls = []\n\ndef make():\n    calls.append(1)\n    return app\n" + SOURCE.format("made")
    (modules / "factories.py").write_text(source)
    app = layer(mounts={"/m": "factories:make()"})

    assert [call(app, environ("GET", "/m/")).body for _ in range(2)] == [b"made", b"made"]
    assert vars(sys.modules["factories"])["calls"] == [1]
