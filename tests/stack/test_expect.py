"""The expectations of a stack file, run against the real stack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lamella.stack.check import check
from lamella.stack.expect import run_expectation

HEAD = """\
lamella = 1
[app]
use = "json_app_for_expect:app"
"""
APP = """
import json
def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/raise":
        raise KeyError("secret sauce")
    said = {"method": environ["REQUEST_METHOD"], "host": environ.get("HTTP_HOST"), "path": path,
            "scheme": environ["wsgi.url_scheme"], "word": environ.get("HTTP_X_WORD"), "query": environ["QUERY_STRING"],
            "body": environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)).decode()}
    status = {"/missing": "404 Not Found", "/broken": "503 Service Unavailable"}.get(path, "200 OK")
    more = [("Set-Cookie", "sid=hush"), ("X-A", "1"), ("X-A", "2")]
    start_response(status, [("Content-Type", "application/json"), *more])
    return [json.dumps(said).encode()]
"""


def problems(tmp_path: Path, expectation: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Check a stack file with one expectation."""
    (tmp_path / "json_app_for_expect.py").write_text(APP)
    (tmp_path / "stack.toml").write_text(HEAD + "[[expect]]\n" + expectation)
    monkeypatch.syspath_prepend(str(tmp_path))
    return [problem.message for problem in check(tmp_path / "stack.toml").errors]


@pytest.mark.parametrize(
    "expectation",
    [
        'request = "GET /"',
        'request = "GET /"\nstatus = 200',
        'request = "GET /missing"\nstatus = [200, "4xx"]',
        'request = "GET /"\npresent = ["x-a"]\nabsent = ["X-B"]\nheader = { "X-A" = "2" }',
        'request = "GET /"\nheader = { "X-A" = "1, 2" }',
        'request = "POST /here?q=1"\nbody = "hé"\nheaders = { "X-Word" = "w" }\ncontains = ["/here", "q=1", \'"w"\']',
        'request = "GET https://shop.example:8443/x"\ncontains = ["shop.example:8443", "https"]',
        'request = "OPTIONS *"\ncontains = \'"path": "*"\'',
    ],
)
def test_what_is_met_is_silent(expectation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind of statement holds."""
    assert problems(tmp_path, expectation, monkeypatch) == []


@pytest.mark.parametrize(
    ("expectation", "said"),
    [
        ('request = "GET /broken"', "status 503 Service Unavailable, expected one below 500"),
        ('request = "GET /"\nstatus = ["3xx", 404]', "status 200 OK, expected 3xx or 404"),
        ('request = "GET /"\npresent = ["X-B"]', "no X-B"),
        ('request = "GET /"\nabsent = ["X-A"]', "X-A is '1, 2', expected none"),
        ('request = "GET /"\nabsent = ["Set-Cookie"]', "Set-Cookie is ***, expected none"),
        ('request = "GET /"\nheader = { "X-A" = "3" }', "X-A is '1, 2', expected '3'"),
        ('request = "GET /"\nheader = { "X-B" = "3" }', "X-B is absent, expected '3'"),
        ('request = "GET /"\ncontains = "goodbye"', "the body does not contain 'goodbye'"),
        ('request = "GET /"\njson = { method = "PUT" }', 'expected {"method": "PUT"}'),
        ('request = "GET /raise"', "raised KeyError: 'secret sauce'"),
    ],
)
def test_what_is_not_met_is_said(expectation: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the request, what came, and what was expected."""
    (message,) = problems(tmp_path, expectation, monkeypatch)

    assert said in message
    assert message.startswith("GET /")


def test_a_name_stands_for_the_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``name`` is shown, at the place of the statement, with the exit code of the last phase."""
    (tmp_path / "stack.toml").write_text(HEAD + '[[expect]]\nname = "no teapot"\nrequest = "GET /"\nstatus = 418\n')
    (tmp_path / "json_app_for_expect.py").write_text(APP)
    monkeypatch.syspath_prepend(str(tmp_path))

    report = check(tmp_path / "stack.toml")

    assert report.exit_code == 7
    assert (report.errors[0].line, report.errors[0].message[:9]) == (4, "no teapot")


def test_json_is_compared_by_value() -> None:
    """Spelling and order of keys do not matter."""
    from lamella.stack.statements import Expectation

    expectation = Expectation("stack.toml", 1, 1)
    for name in ("name", "body"):
        setattr(expectation, name, "")
    expectation.method, expectation.target, expectation.headers, expectation.header = "GET", "/", {}, {}
    expectation.status = expectation.present = expectation.absent = expectation.contains = ()
    expectation.json = {"b": [1, 2], "a": None}

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps({"a": None, "b": [1, 2]}).encode()]

    assert run_expectation(app, expectation) == []
    expectation.json = {"a": None}
    assert "the body is" in run_expectation(app, expectation)[0]
