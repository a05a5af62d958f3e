"""Router: which view answers, with which parameters, hooks and errors."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import webob.exc

from lamella.apps.router import AmbiguousRouteError, Converter, Request, Response, Router, UrlError, abort, redirect
from lamella.stack.kernel.environ import direct
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.keys import CLIENT, ROUTE, Client
from lamella.stack.testing import RecordingApp, call, environ, lint
from lamella.stack.testing.client import Response as Answer

# WebOb has no annotations.
EXC: Any = webob.exc
EMPTY: dict[str, Any] = {}


def ask(router: Router, method: str = "GET", path: str = "/", **options: Any) -> Answer:
    """Ask through the linter."""
    return call(lint(router), environ(method, path, **options))


def echo(request: Request, **parameters: Any) -> dict[str, Any]:
    """Tell which rule matched."""
    route = ROUTE.require(request.environ)
    return {"pattern": route.pattern, **{name: str(value) for name, value in parameters.items()}}


def router_of(*patterns: str, **options: Any) -> Router:
    """A router whose view tells the pattern."""
    router = Router(**options)
    for pattern in patterns:
        router.add(pattern, echo)
    return router


def test_calls_the_view_with_converted_parameters() -> None:
    """The view takes the request and its parameters as keywords, and the route is in the environ."""
    router = Router()
    seen: list[Any] = []

    @router.get("/notes/<int:id>/<slug>", name="note")
    def note(request: Request, id: int, slug: str) -> str:
        seen.append((id, slug, ROUTE.require(request.environ), request.environ["wsgiorg.routing_args"]))
        return "a note"

    response = ask(router, "GET", "/notes/7/first")

    assert (response.status, response.body) == ("200 OK", b"a note")
    assert response.header("Content-Type") == "text/html; charset=utf-8"
    parameters = {"id": 7, "slug": "first"}
    assert seen == [(7, "first", ("/notes/<int:id>/<slug>", "note", parameters), ((), parameters))]


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("/a", "/a"),
        ("/5", "/<int:x>"),
        ("/5.5", "/<float:x>"),
        ("/summer", "/<any(summer,winter):x>"),
        ("/6f6a8c1e-52f3-4c89-9f6b-0d0b6f0a2f11", "/<uuid:x>"),
        ("/v2.x", "/v<int:x>.<y>"),
        ("/word", "/<x>"),
        ("/caf%C3%A9", "/<x>"),
        ("/one/two", "/<path:x>"),
        ("/one/two/edit", "/<path:x>/edit"),
        ("/one/two/3/edit", "/<path:x>/<int:y>/edit"),
        ("/word/", "/<path:x>"),
    ],
)
def test_narrow_goes_before_wide(path: str, pattern: str) -> None:
    """A literal, then a narrow converter, then text, then the rest of the path; whatever was added first."""
    patterns = ["/<path:x>", "/<x>", "/<uuid:x>", "/<float:x>", "/<int:x>", "/<any(summer,winter):x>", "/a"]
    patterns += ["/v<int:x>.<y>", "/<path:x>/edit", "/<path:x>/<int:y>/edit"]

    for order in (patterns, patterns[::-1]):
        assert f'"pattern":"{pattern}"' in ask(router_of(*order), "GET", path).text


def test_goes_back_where_a_literal_leads_nowhere() -> None:
    """``/a/y`` is matched by ``/<x>/y`` although ``/a/x`` begins alike."""
    router = router_of("/a/x", "/<x>/y")

    assert '"pattern":"/<x>/y"' in ask(router, "GET", "/a/y").text
    assert ask(router, "GET", "/a/z").code == 404


@pytest.mark.parametrize("text", ["+1", "1_0", "-1", "١", "1.0", "0x1", " 1", "1 ", "9" * 101, "9" * 5000, "²"])
def test_int_takes_ascii_digits_only(text: str) -> None:
    """What ``int()`` takes besides, and what it raises on, is no number here."""
    path = "/item/" + "".join(f"%{byte:02X}" for byte in text.encode())

    assert ask(router_of("/item/<int:id>"), "GET", path).code == 404


def test_converters_take_arguments() -> None:
    """Bounds, digits, signs and lengths."""
    router = router_of(
        "/n/<int(min=1,max=9):x>",
        "/d/<int(digits=4):x>",
        "/s/<int(signed=true):x>",
        "/f/<float(signed=true,max=2):x>",
        "/l/<str(length=2):x>",
    )
    expected = {"/n/9": 200, "/n/10": 404, "/n/0": 404, "/d/0042": 200, "/d/42": 404, "/s/-5": 200, "/f/-1.5": 200}
    expected |= {"/f/2.5": 404, "/f/1": 404, "/l/ab": 200, "/l/abc": 404, "/f/" + "9" * 399 + ".0": 404}

    assert {path: ask(router, "GET", path).code for path in expected} == expected
    assert router.url_for("echo", x=7) == "/n/7"


def test_own_converters() -> None:
    """A class or a regular expression; what it refuses with ValueError is not matched."""

    class Pair(Converter):
        pattern = r"[0-9]+-[0-9]+"

        def to_python(self, text: str) -> tuple[int, int]:
            low, _, high = text.partition("-")
            if int(low) > int(high):
                raise ValueError
            return int(low), int(high)

        def to_url(self, value: Any) -> str:
            return "{}-{}".format(*value)

    router = router_of("/r/<pair:x>", "/s/<slug:x>", converters={"pair": Pair, "slug": "[a-z-]+"})

    assert '"x":"(1, 5)"' in ask(router, "GET", "/r/1-5").text
    assert [ask(router, "GET", path).code for path in ("/r/5-1", "/s/a-b", "/s/A")] == [404, 200, 404]
    assert router.url_for("echo", x=(1, 5)) == "/r/1-5"
    router.add_converter("even", "[02468]+")
    router.add("/e/<even:x>", echo)
    assert ask(router, "GET", "/e/3").code == 404


def test_several_variables_in_a_segment_take_the_last_separator() -> None:
    """A file name is cut at its last dot."""
    answer = ask(router_of("/<name>.<ext>"), "GET", "/archive.tar.gz").text

    assert '"name":"archive.tar"' in answer
    assert '"ext":"gz"' in answer


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("/a", "/a"),
        ("/<x>", "/<y>"),
        ("/a/<int:x>/b", "/a/<int:y>/b"),
        ("/<any(a,b):x>", "/<any(b,c):x>"),
        ("/<int:x>", "/<int(max=5):x>"),
        ("/<path:x>", "/<path:y>"),
        ("/<path:x>/<a>", "/<path:x>/<b>"),
        ("/<name>.<ext>", "/<a>-<b>"),
        ("/<one:x>", "/<two:x>"),
    ],
)
def test_refuses_ambiguous_rules(first: str, second: str) -> None:
    """Both rules are named, and the second is not added."""
    router = router_of(first, converters={"one": "[a-m]+", "two": "[k-z]+"})

    with pytest.raises(AmbiguousRouteError) as caught:
        router.add(second, echo)

    assert first in str(caught.value)
    assert second in str(caught.value)
    assert len(router.routes) == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("/<any(a,b):x>", "/<any(c,d):x>"),
        ("/<int:x>", "/<x>"),
        ("/<a>-x", "/<a>-y"),
        ("/<path:x>/a", "/<path:x>/b"),
        ("/a/<x>", "/<x>/a"),
        ("/a", "/a/"),
    ],
)
def test_takes_rules_that_can_be_told_apart(first: str, second: str) -> None:
    """Where order of rank decides, or nothing can match both."""
    assert len(router_of(first, second).routes) == 2


@pytest.mark.parametrize(
    "pattern",
    [
        *("a", "/a//b", "/../x", "/a%20b", "/<x", "/<x>/<x>", "/<x><y>", "/<nope:x>", "/<int(a=1):x>"),
        *(
            "/<path:x>/<path:y>",
            "/<path:x>.zip",
            "/<request>",
            "/\\",
            "/<int(digits=0):x>",
            "/<any():x>",
            "/<str(length=x):y>",
            5,
        ),
    ],
)
def test_refuses_malformed_patterns(pattern: Any) -> None:
    """A pattern that no request could match, or that cannot be read, is told at once."""
    with pytest.raises(ConfigError):
        router_of(pattern)


def test_refuses_wrong_configuration() -> None:
    """Options, views, names and methods are checked when they are given."""
    router = router_of("/a")

    async def later(request: Request) -> str:
        return ""

    mistakes: list[Any] = [
        lambda: Router(slashes="maybe"),
        lambda: Router(converters={"x": 5}),  # type: ignore[dict-item]
        lambda: Router(converters={"x": "("}),
        lambda: Router(templates="no/such/folder"),
        lambda: router.add("/b", "text"),  # type: ignore[arg-type]
        lambda: router.add("/b", later),
        lambda: router.add("/b", echo, methods="GET"),
        lambda: router.add("/b", echo, methods=["G T"]),
        lambda: router.add("/b", echo, methods=[]),
        lambda: router.add("/b", lambda: "no request", subdomain="x"),
        lambda: router.add("/b/<id>", lambda request: ""),
        lambda: router.add("/b/<id>", echo, defaults={"id": 1}),
        lambda: router.add("/b", echo, host="a b"),
        lambda: router.add("/b", echo, host="example.com:80"),
        lambda: router.add("/b", object),
        lambda: router.include(router),
        lambda: router.include(Router(), "/x/"),
        lambda: router.include("x"),  # type: ignore[arg-type]
        lambda: router.error(200),
        lambda: router.error(str),  # type: ignore[arg-type]
    ]

    for mistake in mistakes:
        with pytest.raises(ConfigError):
            mistake()
    assert len(router.routes) == 1


# --- methods ------------------------------------------------------------------------------------


def test_head_and_options_are_automatic() -> None:
    """HEAD is GET without its body, OPTIONS tells the methods, another is a 405."""
    router = Router()
    router.add("/a", lambda request: "hello")
    router.add("/a", lambda request: "posted", methods=["POST"])

    head, options, delete = (ask(router, method, "/a") for method in ("HEAD", "OPTIONS", "DELETE"))

    assert (head.code, head.body, head.header("Content-Length")) == (200, b"", "5")
    assert (options.code, options.header("Allow"), options.body) == (204, "GET, HEAD, OPTIONS, POST", b"")
    assert (delete.code, delete.header("Allow")) == (405, "GET, HEAD, OPTIONS, POST")


def test_own_head_and_options_views_go_first() -> None:
    """Automatic answers give way."""
    router = Router()
    router.add("/a", lambda request: Response("x", headers={"X-View": "head"}), methods=["HEAD"])
    router.add("/a", lambda request: "hello")
    router.add("/a", lambda request: "mine", methods=["OPTIONS"])

    assert ask(router, "HEAD", "/a").header("X-View") == "head"
    assert ask(router, "OPTIONS", "/a").text == "mine"


@pytest.mark.parametrize("method", ["get", "BREW", "PROPFIND", "A" * 300, "G-T"])
def test_unknown_methods_are_refused(method: str) -> None:
    """Methods are case-sensitive; a strange one is a 405 where the path is known."""
    assert ask(router_of("/a"), method, "/a").code == 405
    assert ask(router_of("/a"), method, "/b").code == 404


def test_a_malformed_method_is_a_400() -> None:
    """No token, no method."""
    assert call(router_of("/a"), environ("G T", "/a")).code == 400


def test_another_rule_may_have_the_method() -> None:
    """The first rule by rank that has path and method answers; Allow is of all."""
    router = Router()
    router.add("/<int:x>", echo)
    router.add("/<x>", echo, methods=["POST"])

    assert '"pattern":"/<x>"' in ask(router, "POST", "/5").text
    assert ask(router, "PUT", "/5").header("Allow") == "GET, HEAD, OPTIONS, POST"


def test_class_views_by_method() -> None:
    """One method of a new instance per request."""
    router = Router()
    instances = []

    @router.route("/notes/<int:id>")
    class Note:
        def __init__(self) -> None:
            instances.append(self)

        def get(self, request: Request, id: int) -> str:
            return f"note {id}"

        def delete(self, request: Request, id: int) -> None:
            return None

    assert ask(router, "GET", "/notes/3").text == "note 3"
    assert ask(router, "HEAD", "/notes/3").code == 200
    assert ask(router, "DELETE", "/notes/3").code == 204
    assert ask(router, "POST", "/notes/3").header("Allow") == "DELETE, GET, HEAD, OPTIONS"
    assert len({id(instance) for instance in instances}) == 3
    assert router.url_for("Note", id=3) == "/notes/3"


# --- paths and hosts ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "path", "code", "location"),
    [
        ("redirect", "/a/?x=1", 308, "/mnt/a?x=1"),
        ("redirect", "/b", 308, "/mnt/b/"),
        ("redirect", "/b?n=%0d%0aX", 308, "/mnt/b/?n=%0d%0aX"),
        ("strict", "/a/", 404, None),
        ("strict", "/b", 404, None),
        ("ignore", "/a/", 200, None),
        ("ignore", "/b", 200, None),
        ("redirect", "/caf%C3%A9", 308, "/mnt/caf%C3%A9/"),
    ],
)
def test_slash_policy(policy: str, path: str, code: int, location: str | None) -> None:
    """A slash too many or too few: to the form of the rule, not found, or the same."""
    answer = ask(router_of("/a", "/b/", "/café/", slashes=policy), "GET", path, mount="/mnt")

    assert (answer.code, answer.header("Location")) == (code, location)


def test_slash_policy_of_one_rule() -> None:
    """A rule may have its own."""
    router = Router()
    router.add("/a", echo, slashes="strict")
    router.add("/b", echo)

    assert [ask(router, "GET", path).code for path in ("/a/", "/b/")] == [404, 308]


def test_the_mount_itself() -> None:
    """An empty path under a prefix is redirected to its slash; without a prefix it is the root."""
    router = router_of("/")

    assert ask(router, "GET", "", mount="/x").header("Location") == "/x/"
    assert ask(router, "GET", "/", mount="/x").code == 200
    request = environ("GET", "/")
    request["PATH_INFO"] = ""
    assert call(router, request).code == 200


def test_host_rules() -> None:
    """An exact host, then variables, then a star, then rules for any host; variables are parameters."""
    router = Router(domain="example.com")
    router.add("/", echo, host="*.example.com", name="star")
    router.add("/", echo, host="<tenant>.example.com", name="tenant")
    router.add("/", echo, subdomain="api", name="api")
    router.add("/", echo, name="any")
    hosts = ("api.example.com:8080", "Acme.example.com.", "a.b.example.com", "other.org", "a/b")

    answers = [call(router, environ("GET", "/", host=host)) for host in hosts]
    routes = [answer.text for answer in answers[:4]]

    assert ['"tenant":"acme"' in text for text in routes] == [False, True, False, False]
    assert answers[4].code == 400
    assert [rule.host for rule in router.routes] == ["*.example.com", "<tenant>.example.com", "api.example.com", None]
    assert router.url_for("tenant", tenant="acme") == "https://acme.example.com/"
    assert router.url_for("api", environ("GET", "/", host="api.example.com")) == "/"
    assert router.url_for("api", environ("GET", "/", host="x.org:81")) == "http://api.example.com:81/"
    with pytest.raises(UrlError):
        router.url_for("tenant", tenant="a.b/c")


@pytest.mark.parametrize("file", ["auth_bypass_paths", "path_traversal"])
def test_hostile_paths_never_break_a_path_parameter(corpus: Any, file: str) -> None:
    """Each is a 200 with a canonical path, or a 4xx; never an exception, never a dot segment."""
    router = Router()
    router.add("/<path:p>", lambda request, p: p)
    app = lint(router)

    for case in corpus(file)["cases"]:
        raw = case["raw"].encode("utf-8", "replace").decode("latin-1")
        request = environ("GET", raw if raw.startswith("/") else "/" + raw)
        if "path_info" in case:
            request["PATH_INFO"] = case["path_info"].encode("utf-8", "replace").decode("latin-1")
        answer = call(app if request["PATH_INFO"].startswith("/") else router, request)
        assert answer.code in (200, 308, 400, 404), case
        if answer.code == 200:
            assert not {"..", ".", ""} & set(answer.text.removesuffix("/").split("/")), case
            assert "\\" not in answer.text


def test_bytes_that_are_no_utf8_do_not_match_a_literal() -> None:
    """A lone E9 is not the é of a rule."""
    router = router_of("/é")

    assert ask(router, "GET", "/%C3%A9").code == 200
    assert ask(router, "GET", "/%E9").code == 400


# --- URLs ---------------------------------------------------------------------------------------


def test_url_for_under_a_prefix_and_a_host() -> None:
    """The mount, the query, the anchor, and the origin the client sees."""
    router = router_of("/notes/<int:id>")
    request = environ("GET", "/", mount="/caf\xc3\xa9", host="shop.example:8080")

    assert router.url_for("echo", id=3) == "/notes/3"
    assert router.url_for("echo", request, id=3, q="a b", tag=["x", "y"], none=None) == (
        "/caf%C3%A9/notes/3?q=a+b&tag=x&tag=y"
    )
    assert router.url_for("echo", request, id=3, anchor="a b") == "/caf%C3%A9/notes/3#a%20b"
    external = router.url_for("echo", request, id=3, external=True)
    assert external == "http://shop.example:8080/caf%C3%A9/notes/3"
    CLIENT.set(request, Client("https", "shop.example", "1.2.3.4"))
    assert router.url_for("echo", request, id=3, external=True) == "https://shop.example/caf%C3%A9/notes/3"


def test_url_for_says_what_is_wrong() -> None:
    """A misspelt name, a missing or a wrong value, no request."""
    router = router_of("/notes/<int:id>")

    with pytest.raises(UrlError, match="did you mean 'echo'"):
        router.url_for("ecko", id=3)
    with pytest.raises(UrlError, match="missing id"):
        router.url_for("echo")
    for value in ("x", -1, 2.5, True, None):
        with pytest.raises(UrlError):
            router.url_for("echo", id=value)
    with pytest.raises(UrlError, match="needs the request"):
        router.url_for("echo", id=3, external=True)
    with pytest.raises(UrlError):
        router.url_for("echo", environ(), id=3, scheme="javascript")


@pytest.mark.parametrize("value", ["..", ".", "", "a/b", "a\\b", "a%41", "a\x00b", "\ud800"])
def test_url_for_makes_no_url_that_would_be_refused(value: str) -> None:
    """A value that no request can bring back is refused."""
    with pytest.raises(UrlError):
        router_of("/x/<name>/y").url_for("echo", name=value)


def test_several_rules_and_defaults() -> None:
    """The rule that takes most of the values is taken, one with a fitting default before a variable."""
    router = Router()
    router.add("/list", echo, name="list", defaults={"page": 1})
    router.add("/list/<int:page>", echo, name="list")

    assert router.url_for("list") == "/list"
    assert router.url_for("list", page=1) == "/list"
    assert router.url_for("list", page=2) == "/list/2"
    assert '"page":"1"' in ask(router, "GET", "/list").text


def test_a_name_belongs_to_one_view() -> None:
    """Given names are unique; two views that happen to be called alike are told apart when asked for."""
    router = Router()
    router.add("/a", lambda request: "a")
    router.add("/b", lambda request: "b")
    router.add("/c", echo, name="c")

    with pytest.raises(ConfigError, match="name of its own"):
        router.add("/d", lambda request: "d", name="c")
    with pytest.raises(UrlError, match="several views"):
        router.url_for("<lambda>")


# --- sub-routers --------------------------------------------------------------------------------


def test_sub_routers() -> None:
    """Prefix, names, parameters of the prefix, rules that come later, and relative names."""
    api, root = Router(), Router()
    api.add("", lambda request, tenant: request.url_for(".item", tenant=tenant, id=1), name="index")
    root.include(api, "/<tenant>/api", name="api")
    api.add("/items/<int:id>", echo, name="item")

    assert ask(root, "GET", "/acme/api").text == "/acme/api/items/1"
    assert '"tenant":"acme"' in ask(root, "GET", "/acme/api/items/5").text
    assert root.url_for("api.item", tenant="x", id=2) == "/x/api/items/2"
    assert [rule.pattern for rule in root.routes] == ["/<tenant>/api", "/<tenant>/api/items/<int:id>"]
    with pytest.raises(ConfigError):
        api.include(root, "/loop")


def test_a_rule_added_later_may_not_clash_in_the_including_router() -> None:
    """Refused in the whole, and added nowhere."""
    sub, root = Router(), Router()
    root.add("/s/a", echo)
    root.include(sub, "/s")

    with pytest.raises(AmbiguousRouteError):
        sub.add("/a", echo)

    assert (len(sub.routes), len(root.routes)) == (0, 1)


# --- hooks and errors ---------------------------------------------------------------------------


def test_hooks_run_from_outside_in_and_back() -> None:
    """Before: the outer router first. After and teardown: the inner first, the last added first."""
    events: list[str] = []
    sub, root = Router(), Router()
    sub.add("/", lambda request: "ok" if events.append("view") is None else "")  # type: ignore[func-returns-value]
    root.include(sub, "/s")
    for name, router in (("root", root), ("sub", sub)):
        for number in "12":
            router.before(lambda request, text=f"before {name}{number}": events.append(text))
            router.after(lambda request, response, text=f"after {name}{number}": events.append(text))
            router.teardown(lambda request, error, text=f"end {name}{number}": events.append(text))

    assert ask(root, "GET", "/s/").text == "ok"

    assert events == [
        *("before root1", "before root2", "before sub1", "before sub2", "view"),
        *("after sub2", "after sub1", "after root2", "after root1"),
        *("end sub2", "end sub1", "end root2", "end root1"),
    ]


def test_a_before_hook_may_answer_and_an_after_hook_may_change() -> None:
    """The view is not called; the answer still passes the after hooks, also for a 404."""
    router = Router()
    router.add("/", lambda request: abort(500))
    router.before(lambda request: ("stop", 403) if request.method == "GET" else None)

    @router.after
    def stamp(request: Request, response: Any) -> None:
        response.headers["X-Stamp"] = "1"

    stopped, missing = ask(router, "GET", "/"), ask(router, "POST", "/none")

    assert (stopped.code, stopped.body, stopped.header("X-Stamp")) == (403, b"stop", "1")
    assert (missing.code, missing.header("X-Stamp")) == (404, "1")


def test_an_after_hook_sees_the_headers_of_another_application() -> None:
    """They are changed when the application sends them, however late."""
    router = Router()
    router.add("/", lambda request: RecordingApp(late=True, write=[b"w"]))
    router.after(lambda request, response: response.headers.update({"X-Stamp": response.status}))

    answer = call(router, environ())

    assert (answer.body, answer.header("X-Stamp")) == (b"whello", "200 OK")


def test_teardown_comes_at_the_true_end() -> None:
    """After the last block; when the client leaves; with the exception of a body that failed."""
    ended: list[Any] = []
    router = Router()
    router.teardown(lambda request, error: ended.append(error))

    @router.get("/")
    def stream(request: Request) -> Iterator[str]:
        yield "one"
        assert not ended or request.query_string
        yield "two"
        if request.query_string:
            raise ValueError("late")

    assert ask(router).body == b"onetwo"
    assert ended == [None]
    call(router, environ(), blocks=1)
    assert ended == [None, None]
    failed = call(router, environ("GET", "/?fail"), keep_error=True)
    assert ended[2] is failed.error
    assert isinstance(failed.error, ValueError)


def test_teardown_comes_before_an_exception_leaves() -> None:
    """All hooks run, whatever they raise."""
    ended: list[Any] = []
    router = Router()
    router.teardown(lambda request, error: ended.append(error))
    router.teardown(lambda request, error: 1 / 0)
    router.add("/", lambda request: EMPTY["missing"])

    with pytest.raises(ZeroDivisionError):
        ask(router)

    assert isinstance(ended[0], KeyError)


def test_teardown_keeps_the_servers_file_wrapper() -> None:
    """The body is still the server's own instance, and ends with its close()."""

    class Wrapper:
        def __init__(self, file: Any, size: int = 0) -> None:
            self.file = file

        def close(self) -> None:
            self.file.close()

    ended: list[Any] = []
    file = io.BytesIO(b"x")
    router = Router()
    router.teardown(lambda request, error: ended.append(error))
    router.add("/", lambda request: request.environ["wsgi.file_wrapper"](file))

    body: Any = router({**environ(), "wsgi.file_wrapper": Wrapper}, lambda *_: lambda data: None)

    assert type(body) is Wrapper
    body.close()
    body.close()
    assert ended == [None]
    assert file.closed


def test_error_handlers() -> None:
    """By status, by the nearest class, of the inner router first; a handler may abort."""
    sub, root = Router(), Router()
    root.error(404)(lambda request, error: ("lost", 404))
    root.error(LookupError)(lambda request, error: f"lookup {type(error).__name__}")
    root.error(405)(lambda request, error: (f"not {error.headers['Allow']}", 405))
    sub.error(KeyError)(lambda request, error: abort(410, "gone"))
    for router in (sub, root):
        router.add("/key", lambda request: EMPTY["x"])
        router.add("/index", lambda request: request.path.split("x")[9])
        router.add("/abort", lambda request: abort(404))
    root.include(sub, "/s")

    answers = {path: ask(root, "GET", path) for path in ("/key", "/index", "/abort", "/none", "/s/key", "/s/index")}

    assert [answer.text for answer in answers.values()] == [
        *("lookup KeyError", "lookup IndexError", "lost", "lost", "410 Gone\n\ngone\n", "lookup IndexError")
    ]
    assert ask(root, "POST", "/key").text == "not GET, HEAD, OPTIONS"


def test_uncaught_exceptions_propagate() -> None:
    """The layer ``errors`` renders them; a handler of ``Exception`` is not asked about ``abort``."""
    router = Router()
    router.add("/", lambda request: 1 // 0)
    router.add("/gone", lambda request: abort(410))

    with pytest.raises(ZeroDivisionError):
        ask(router)
    router.error(Exception)(lambda request, error: ("caught", 500))
    assert (ask(router).code, ask(router).text, ask(router, "GET", "/gone").code) == (500, "caught", 410)


def test_the_handler_of_500_gets_the_rest_after_it_was_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is swallowed."""
    router = Router()
    router.add("/", lambda request: 1 // 0)
    router.error(500)(lambda request, error: ("sorry", 500))

    with caplog.at_level(logging.ERROR):
        assert ask(router).text == "sorry"

    assert "ZeroDivisionError" in caplog.text


def test_raised_http_exceptions_are_answers() -> None:
    """With their headers, a short text, and no markup made of what the client sent."""
    router = Router()
    router.add("/a", lambda request: abort(429, "<b>slow</b>", {"Retry-After": "5"}))
    router.add("/b", lambda request: EXC.HTTPNotFound("returned"))
    router.add("/c", lambda request: abort(304))

    limited, returned, unchanged = (ask(router, "GET", path) for path in ("/a", "/b", "/c"))

    assert (limited.code, limited.header("Retry-After")) == (429, "5")
    assert limited.header("Content-Type") == "text/plain; charset=utf-8"
    assert (returned.code, returned.text) == (404, "404 Not Found\n\nreturned\n")
    assert (unchanged.code, unchanged.body) == (304, b"")
    with pytest.raises(ValueError, match="no error status"):
        abort(200)


def test_rules_tell_what_they_are() -> None:
    """For ``lamella routes`` and ``audit``."""
    router = Router()
    router.add("/a", echo, methods=["GET", "POST"], name="a", defaults={"x": 1})

    (rule,) = router.routes

    assert (rule.pattern, rule.methods, rule.endpoint, rule.name) == ("/a", ("GET", "POST"), "a", "a")
    assert (rule.view, rule.host, rule.defaults) == (echo, None, {"x": 1})
    assert repr(rule) == "GET,POST /a (a)"


def test_a_layer_calls_the_closure_directly() -> None:
    """Rules that are added after a layer was wrapped around the router still count."""
    router = Router()
    closure = direct(router)
    router.add("/late", lambda request: redirect("/"))

    assert closure is not router
    assert call(closure, environ("GET", "/late")).code == 302
