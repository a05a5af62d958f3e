"""The request of views: whatever a client sends is a value or a 400."""

from __future__ import annotations

from typing import Any

import pytest
import webob

from lamella.apps.requests import Request, safe_filename
from lamella.apps.router import Router
from lamella.stack.kernel.errors import BadRequestError
from lamella.stack.testing import call, environ, lint

FORM = "application/x-www-form-urlencoded"

HOSTILE: list[dict[str, Any]] = [
    {"path": "/x?a=%ff"},
    {"path": "/x?%ff=1&b=%zz"},
    {"range": "bytes=-"},
    {"range": "bytes=" + "9" * 5000 + "-"},
    {"if_modified_since": "Fri, 31 Dec 99999 23:59:59 GMT"},
    {"date": "Fri, 31 Dec 0000 99:99:99 GMT", "if_unmodified_since": "\x00"},
    {"method": "POST", "body": b"x", "content_type": "multipart/form-data"},
    {"method": "POST", "body": b"--\r\n", "content_type": "multipart/form-data; boundary=\xff"},
    {"method": "POST", "body": b"a=1", "content_type": f"{FORM}; charset=latin-1"},
    {"method": "POST", "body": b"a=1", "content_type": f"{FORM}; charset=nonsense"},
    {"method": "POST", "body": b"a=%ff\xff", "content_type": FORM},
    {"method": "POST", "body": b"[" * 9_000, "content_type": "application/json"},
    {"method": "POST", "body": b"\xff\xfe", "content_type": "application/json; charset=utf-32"},
    {"method": "POST", "body": b"a", "CONTENT_LENGTH": "9" * 40, "content_type": FORM},
    {"method": "POST", "body": b"a", "CONTENT_LENGTH": "x", "content_type": FORM},
    {"method": "POST", "body": b"abc", "CONTENT_LENGTH": "-1", "content_type": FORM},
    {"method": "POST", "body": b"abc", "CONTENT_LENGTH": "10", "content_type": FORM},
    {"cookie": 'a="\\377; b=\xff; \x00=1; =; a[]=2'},
    {"authorization": "Basic \xff", "if_none_match": '"', "if_match": "W/", "if_range": '"\xff'},
    {"cache_control": "max-age=x, \x00=", "accept": "\x00;q=x", "accept_language": "*;q=9", "max_forwards": "x"},
    {"host": "a/?x=", "SERVER_PORT": "x"},
    {"host": "[::1", "accept_charset": "\xff", "accept_encoding": ";;;"},
    {"PATH_INFO": "/\xff", "SCRIPT_NAME": "/\xfe"},
]


@pytest.mark.parametrize("case", HOSTILE, ids=range(len(HOSTILE)))
def test_every_attribute_is_a_value_or_a_400(case: dict[str, Any]) -> None:
    """Each property of WebOb's request is read, on bytes that make WebOb itself raise."""
    options = dict(case)
    method, path = options.pop("method", "GET"), options.pop("path", "/x")
    skipped = {"urlvars", "urlargs"}
    statuses: list[str] = []

    for name in dir(Request):
        if name.startswith("__") or name in skipped or not isinstance(getattr(Request, name), property):
            continue
        request = Request(environ(method, path, **options))
        try:
            value = getattr(request, name)
            if name in ("GET", "POST", "params", "cookies"):
                list(value.items())
        except BadRequestError as error:
            statuses.append(error.status)
        assert repr(request).startswith("<Request ")
    assert set(statuses) <= {"400 Bad Request"}


def test_an_untouched_request_is_webobs() -> None:
    """All of WebOb works on it."""
    blank: Any = Request.blank
    request = blank("/a?x=1", POST={"y": "2"})

    assert isinstance(request, webob.Request)
    assert (request.GET["x"], request.POST["y"], request.params["y"], request.path) == ("1", "2", "2", "/a")
    assert request.GET is not None
    assert request.POST.getall("y") == ["2"]
    untyped: Any = request
    assert untyped.copy().POST["y"] == "2"
    assert untyped.copy_get().method == "GET"


def test_a_changed_query_goes_into_the_environ() -> None:
    """As in WebOb."""
    request = Request(environ("GET", "/?a=1"))

    request.GET["b"] = "2"

    assert request.query_string == "a=1&b=2"
    assert request.GET["b"] == "2"


@pytest.mark.parametrize(
    ("read", "path", "body", "content_type"),
    [
        (lambda request: request.POST["name"], "/", b"other=1", FORM),
        (lambda request: request.POST["name"], "/", b"", ""),
        (lambda request: request.POST["name"], "/", b"{}", "application/json"),
        (lambda request: request.GET["name"], "/?other=1", b"", ""),
        (lambda request: request.params["name"], "/?other=1", b"x=1", FORM),
        (lambda request: request.GET.getone("name"), "/?name=1&name=2", b"", ""),
        (lambda request: request.json, "/", b"{", "application/json"),
        (lambda request: request.json_body, "/", b"", "application/json"),
        (lambda request: request.json, "/", b"NaN", "application/json"),
        (lambda request: request.json, "/", b'"\\ud800"', "application/json"),
        (lambda request: request.json, "/", b"[" * 9_000, "application/json"),
        (lambda request: request.GET["name"], "/?name=%ff", b"", ""),
    ],
)
def test_a_missing_key_or_bad_json_is_a_400(read: Any, path: str, body: bytes, content_type: str) -> None:
    """The view does not have to check."""
    router = Router()
    router.add("/", lambda request: {"value": read(request)}, methods=["POST"])

    answer = call(lint(router), environ("POST", path, body=body, content_type=content_type))

    assert answer.code == 400
    assert answer.header("Content-Type") == "text/plain; charset=utf-8"


def test_json_in_and_out() -> None:
    """A value is decoded, and can be set."""
    request = Request(environ("POST", "/", body=b'{"a":[1,2.5,null]}', content_type="application/json"))

    assert request.json == {"a": [1, 2.5, None]}
    request.json = [1]
    assert request.body == b"[1]"


def test_a_file_is_uploaded() -> None:
    """Name, type and content, and a name that is safe to store."""
    boundary = b"--b\r\n"
    head = b'Content-Disposition: form-data; name="photo"; filename="../../a b.png"\r\nContent-Type: image/png\r\n\r\n'
    body = boundary + head + b"\x89PNG\r\n--b--\r\n"
    router = Router()

    @router.post("/")
    def upload(request: Request) -> dict[str, Any]:
        photo = request.POST["photo"]
        return {"name": safe_filename(photo.filename), "type": photo.type, "size": len(photo.file.read())}

    answer = call(lint(router), environ("POST", "/", body=body, content_type="multipart/form-data; boundary=b"))

    assert answer.text == '{"name":"a b.png","type":"image/png","size":4}'


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\x\\y.txt", "y.txt"),
        ("a\x00\r\nb:c", "a_b_c"),
        ("..", "file"),
        ("", "file"),
        ("CON.txt", "_CON.txt"),
        ("COM¹", "_COM¹"),
        (".hidden", "hidden"),
        ("é" * 300, "é" * 100),
        ("\ud800x", "x"),
    ],
)
def test_safe_filename(sent: str, stored: str) -> None:
    """No folder, no device, no control character, not too long."""
    assert safe_filename(sent) == stored
