"""How views are called, and WebOb's own answers: as cheap as they can be, and the same as the long way."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import webob
import webob.exc

from lamella.apps.fields import check_headers, known_fields
from lamella.apps.router import Request, Response, ResponseError, Router, abort
from lamella.stack.kernel.errors import BadRequestError, ConfigError
from lamella.stack.testing import call, environ, lint

# WebOb has no annotations.
WEBOB: Any = webob.Response
EXC: Any = webob.exc


def logged(view: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator as everybody writes it."""

    @functools.wraps(view)
    def inner(*arguments: Any, **named: Any) -> Any:
        return view(*arguments, **named)

    return inner


def plain(request: Request, id: int) -> str:
    """By position."""
    return f"{id}"


def later(request: Request, extra: str = "x", id: int = 0) -> str:
    """Another parameter stands before it."""
    return f"{id}" if extra == "x" else "extra"


def only_named(request: Request, *, id: int) -> str:
    """By name only."""
    return f"{id}"


def anything(request: Request, **named: Any) -> str:
    """All by name."""
    return f"{named['id']}"


def rest(request: Request, *more: Any, id: int) -> str:
    """What comes by position is something else."""
    return f"{id}" if not more else "more"


class Views:
    """Views that are methods, and one that is an instance."""

    def method(self, request: Request, id: int) -> str:
        """A bound method."""
        return f"{id}"

    @classmethod
    def of_class(cls, request: Request, id: int) -> str:
        """A class method."""
        return f"{id}"

    @staticmethod
    def static(request: Request, id: int) -> str:
        """A static method."""
        return f"{id}"

    def __call__(self, request: Request, id: int) -> str:
        return f"{id}"

    def get(self, request: Request, id: int) -> str:
        """The view of a class."""
        return f"{id}"


VIEWS = {
    "plain": plain,
    "later": later,
    "only named": only_named,
    "anything": anything,
    "rest": rest,
    "decorated": logged(plain),
    "partial": functools.partial(plain),
    "bound method": Views().method,
    "class method": Views.of_class,
    "static method": Views.static,
    "instance": Views(),
    "class": Views,
    "lambda": lambda request, id: f"{id}",
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("hooked", [False, True])
def test_every_kind_of_view_gets_its_parameter(view: Any, hooked: bool) -> None:
    """By position or by name, at the first request and on the quick way after it, and with hooks."""
    router = Router()
    router.add("/n/<int:id>", view, name="n")
    if hooked:
        router.before(lambda request: None)

    assert [call(lint(router), environ("GET", "/n/7")).body for _ in range(2)] == [b"7", b"7"]


def test_names_of_a_prefix_and_a_rule_are_not_mixed_up() -> None:
    """Where a view takes them in another order than the path has them."""
    router, inner = Router(), Router()
    inner.add("/<a>", lambda request, a="none", b="none": f"{a} {b}", name="x")
    router.include(inner, "/p/<b>")
    router.add("/one/<b>", lambda request, a="none", b="none": f"{a} {b}", name="y")
    router.add("/given/<b>", lambda request, b, a: f"{a} {b}", defaults={"a": "d"}, name="z")
    router.add("/none", lambda request, a: f"{a}", defaults={"a": "d"}, name="w")

    found = [call(lint(router), environ("GET", path)).body for path in ("/p/1/2", "/one/1", "/given/1", "/none") * 2]

    assert found == [b"2 1", b"none 1", b"d 1", b"d"] * 2


def test_refuses_a_view_that_takes_a_parameter_by_position_only() -> None:
    """Parameters have names, so that a rule may have them in any order."""

    def view(request: Request, id: str, /) -> str:
        return id

    with pytest.raises(ConfigError, match="takes 'id' by name"):
        Router().add("/<id>", view)


def test_a_request_belongs_to_its_router_and_so_does_its_copy() -> None:
    """``router`` and ``url_for`` work in both; a request of nowhere has none."""
    router, other = Router(), Router()
    seen: list[Any] = []

    @router.get("/<name>", name="page")
    def page(request: Request, name: str) -> str:
        seen.append((type(request).__name__, isinstance(request, Request), request.router))
        return str(request.copy_get().url_for("page", name="x"))

    other.add("/", lambda request: repr(request.router is other))

    assert call(lint(router), environ("GET", "/a")).body == b"/x"
    assert call(lint(other), environ("GET", "/")).body == b"True"
    assert seen == [("Request", True, router)]
    assert Request({"REQUEST_METHOD": "GET"}).router is None


ANSWERS: dict[str, Callable[[], Any]] = {
    "text": lambda: WEBOB("hello"),
    "own text": lambda: Response("hello"),
    "status": lambda: WEBOB("made", status=201),
    "odd status": lambda: WEBOB("odd", status="299 Odd"),
    "json": lambda: WEBOB(json={"a": 1}),
    "headers": lambda: WEBOB(b"x", headerlist=[("Content-Type", "text/x"), ("X-A", "1"), ("X-A", "2")]),
    "cookie": lambda: _with_cookie(WEBOB("x")),
    "blocks": lambda: WEBOB(app_iter=[b"a", b"b"], content_type="text/plain"),
    "empty": lambda: WEBOB(b""),
    "location": lambda: WEBOB("x", status=302, location="http://example.com/y"),
    "conditional": lambda: WEBOB("x", conditional_response=True, etag="v1"),
}


def _with_cookie(response: Any) -> Any:
    response.set_cookie("a", "b", httponly=True)
    return response


@pytest.mark.parametrize("make", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("fields", [{}, {"HTTP_IF_NONE_MATCH": '"v1"'}], ids=["plain", "if-none-match"])
def test_a_webob_response_is_sent_as_it_sends_itself(make: Any, method: str, fields: dict[str, str]) -> None:
    """Status, headers in their order, and blocks: as its own ``__call__`` has them, on HEAD too."""
    router = Router()
    router.add("/", lambda request: make(), methods=["GET", "POST"])
    asked = environ(method, "/") | fields

    sent, own = call(lint(router), dict(asked)), call(make(), dict(asked))

    assert (sent.status, sent.headers, sent.body) == (own.status, own.headers, own.body)


def test_a_location_without_a_host_stays_as_it_is() -> None:
    """WebOb would complete it with the Host that the client sent; RFC 9110 section 10.2.2 takes it as it is."""
    router = Router()
    router.add("/", lambda request: WEBOB(status=302, location="/next"))

    answer = call(lint(router), environ("GET", "/") | {"HTTP_HOST": "evil.example"})

    assert (answer.code, answer.header("Location")) == (302, "/next")


def test_a_response_that_is_kept_is_not_changed_by_what_is_outside() -> None:
    """A layer may append to the list that it gets; the next answer starts anew."""
    kept = WEBOB("hello")
    router = Router()
    router.add("/", lambda request: kept)

    def layer(environ: Any, start_response: Any) -> Any:
        def start(status: str, headers: Any, *rest: Any) -> Any:
            headers.append(("X-Layer", "1"))
            return start_response(status, headers, *rest)

        return router(environ, start)

    assert [len(call(layer, environ("GET", "/")).headers) for _ in range(3)] == [3, 3, 3]


def test_the_body_of_a_response_is_closed_on_head() -> None:
    """And on GET by who iterates it."""
    closed: list[str] = []

    class Body:
        def __iter__(self) -> Any:
            return iter([b"a"])

        def close(self) -> None:
            closed.append("closed")

    router = Router()
    router.add("/", lambda request: WEBOB(app_iter=Body(), content_type="text/plain"))

    assert [call(lint(router), environ(method, "/")).body for method in ("HEAD", "GET")] == [b"", b"a"]
    assert closed == ["closed", "closed"]


def test_headers_that_were_checked_are_remembered_within_bounds() -> None:
    """Thousands that never come back neither grow the memory nor keep those that recur out of it."""
    for number in range(3000):
        check_headers([("X-Number", str(number))], "view")
        assert len(known_fields) <= 1024

    check_headers([("X-Recurs", "yes")], "view")

    assert ("X-Recurs", "yes") in known_fields
    with pytest.raises(ResponseError):
        check_headers([("X-Number", "1\r\nX: y")], "view")


@pytest.mark.parametrize("length", [0, 1, 511, 512, 70_000])
def test_the_length_of_a_text_is_true(length: int) -> None:
    """Of bytes, not characters, around the lengths that are made once."""
    router = Router()
    router.add("/", lambda request: "é" * (length // 2) + "x" * (length % 2))

    answer = call(lint(router), environ("GET", "/"))

    assert (answer.header("Content-Length"), len(answer.body)) == (str(length), length)


def test_handlers_work_for_what_no_view_imported() -> None:
    """WebOb's exceptions come late; the handlers, ``abort`` and a malformed request find them."""
    router = Router()
    router.add("/gone", lambda request: abort(410, "no more"))
    router.add("/raised", lambda request: (_ for _ in ()).throw(EXC.HTTPConflict("two")))
    router.add("/bad", lambda request: (_ for _ in ()).throw(BadRequestError("why")))

    @router.error(404)
    def lost(request: Request, error: Any) -> Any:
        return f"lost {error.status_code}", 404

    @router.error(410)
    def moved(request: Request, error: Any) -> Any:
        raise EXC.HTTPFound(location="/new")

    found = {path: call(lint(router), environ("GET", path)) for path in ("/gone", "/raised", "/bad", "/nowhere")}

    assert [answer.code for answer in found.values()] == [302, 409, 400, 404]
    assert found["/nowhere"].body == b"lost 404"
    with pytest.raises(ZeroDivisionError):
        broken = Router()
        broken.add("/", lambda request: abort(404))
        broken.error(404)(lambda request, error: 1 // 0)
        call(broken, environ("GET", "/"))


def test_the_router_starts_without_what_a_plain_answer_does_not_need() -> None:
    """WebOb's exceptions, paths, JSON and templates are imported with the first that needs them."""
    code = """
import sys
from lamella.apps.router import Router
router = Router()
router.add("/<name>", lambda request, name: f"hello {name}")
environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/bob"}
print(router(environ, lambda *answer: None))
print(router({"REQUEST_METHOD": "POST", "PATH_INFO": "/bob"}, lambda *answer: None))
print(router({"REQUEST_METHOD": "GET", "PATH_INFO": "/a/b"}, lambda *answer: None))
heavy = {"webob.exc", "pathlib", "msgspec", "jinja2", "inspect", "dataclasses", "logging", "asyncio"}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == [
        "[b'hello bob']",
        "[b'405 Method Not Allowed\\n']",
        "[b'404 Not Found\\n']",
        "[]",
    ]
