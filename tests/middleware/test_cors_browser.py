"""CORSMiddleware in a real Chromium: two origins on loopback, and what a page of the one may do with the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple
from wsgiref.types import WSGIApplication

import pytest

from lamella.middleware.cors import CORSMiddleware
from lamella.middleware.errors import ErrorsMiddleware

TEXT = ("Content-Type", "text/plain")
#: What a page does: ask, and tell what came of it. A refusal of the browser is an exception that says nothing more.
FETCH = """async ([url, options]) => {
    try {
        const answer = await fetch(url, options);
        const seen = {};
        for (const [name, value] of answer.headers) seen[name] = value;
        return { status: answer.status, text: await answer.text(), type: answer.type, headers: seen };
    } catch (error) {
        return { error: error.name };
    }
}"""
REFUSED = {"error": "TypeError"}


class Api:
    """The other origin: records what reaches the app inside, preflights among it."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.elsewhere = ""

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.seen.append(f"{method} {path}")
        if path.endswith("/boom"):
            raise RuntimeError("broken on purpose")
        if path.endswith("/moved"):
            start_response("302 Found", [TEXT, ("Location", "there")])
            return [b""]
        if path.endswith("/away"):
            start_response("307 Temporary Redirect", [TEXT, ("Location", self.elsewhere)])
            return [b""]
        more = [("X-Total", "7"), ("X-Secret", "8"), ("Access-Control-Allow-Origin", "*")]
        if path.endswith("/sign-in"):
            more.append(("Set-Cookie", "who=alice; Path=/"))
        start_response("200 OK", [TEXT, *more])
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        return [f"{method} {environ.get('HTTP_COOKIE', '')} {body.decode()}".encode()]


class Sites(NamedTuple):
    """Where everything is."""

    #: The origin of the page that is let in, of one that is not, and of the API.
    page: str
    stranger: str
    api: str
    app: Api


def page_app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """An empty page."""
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
    return [b"<!doctype html><link rel=icon href=data:,><title>page</title>"]


@pytest.fixture(scope="module")
def sites(services: Any) -> Iterator[Sites]:
    """Two sites with pages, and an API that lets one of them in."""
    with ExitStack() as stack:

        def serve(served: WSGIApplication) -> str:
            return f"http://127.0.0.1:{stack.enter_context(services.waitress(served))}"

        app = Api()
        page, stranger = serve(page_app), serve(page_app)
        policies = [
            {"paths": ["/open/*"], "origins": "*", "credentials": False},
            {"paths": ["/any-header/*"], "headers": "*", "credentials": False},
        ]
        api = CORSMiddleware(
            ErrorsMiddleware(app),
            origins=[page],
            credentials=True,
            methods=["GET", "POST", "PUT"],
            headers=["Content-Type", "X-Api-Key"],
            expose=["X-Total"],
            max_age=0,  # each test sees its own preflight
            policies=policies,
        )
        address = serve(api)
        app.elsewhere = f"{stranger}/landed"
        yield Sites(page, stranger, address, app)


@pytest.fixture(scope="module")
def profile(browser: Any, sites: Sites) -> Iterator[dict[str, Any]]:
    """A page of either site, open during all tests."""
    context = browser.new_context()
    pages = {}
    for origin in (sites.page, sites.stranger):
        pages[origin] = context.new_page()
        pages[origin].goto(origin)
    yield pages
    context.close()


@pytest.fixture
def pages(profile: dict[str, Any], sites: Sites) -> dict[str, Any]:
    """The pages by their origin; no cookies, and nothing was asked yet."""
    sites.app.seen.clear()
    profile[sites.page].context.clear_cookies()
    return profile


def ask(pages: dict[str, Any], origin: str, url: str, **options: Any) -> dict[str, Any]:
    """What the script of a page gets."""
    result: dict[str, Any] = pages[origin].evaluate(FETCH, [url, options])
    return result


def test_a_simple_request_is_readable_where_allowed(pages: dict[str, Any], sites: Sites) -> None:
    """The app's own ``*`` beside our origin would make the browser refuse; only exposed headers are seen."""
    answer = ask(pages, sites.page, f"{sites.api}/x")

    assert (answer["status"], answer["type"]) == (200, "cors")
    assert answer["headers"].get("x-total") == "7"
    assert "x-secret" not in answer["headers"]


def test_a_stranger_s_request_is_carried_out_and_not_readable(pages: dict[str, Any], sites: Sites) -> None:
    """CORS hides the answer; it protects nothing else."""
    assert ask(pages, sites.stranger, f"{sites.api}/x", method="POST", body="a") == REFUSED
    assert sites.app.seen == ["POST /x"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({"method": "PUT", "body": "b"}, "PUT", id="a method"),
        pytest.param({"headers": {"X-Api-Key": "k"}}, "GET", id="a header"),
        pytest.param(
            {"method": "POST", "body": "{}", "headers": {"Content-Type": "application/json"}}, "POST", id="json"
        ),
    ],
)
def test_a_preflight_opens_the_way(pages: dict[str, Any], sites: Sites, options: dict[str, Any], expected: str) -> None:
    """The browser asks first, and the app never sees that question."""
    answer = ask(pages, sites.page, f"{sites.api}/x", **options)

    assert answer["status"] == 200
    assert answer["text"].startswith(expected)
    assert sites.app.seen == [f"{expected} /x"]


@pytest.mark.parametrize(
    ("who", "options"),
    [
        pytest.param("page", {"method": "DELETE"}, id="a method that is not listed"),
        pytest.param("page", {"headers": {"X-Other": "1"}}, id="a header that is not listed"),
        pytest.param("page", {"method": "patch"}, id="a method in lower case"),
        pytest.param("page", {"method": "PURGE"}, id="a method of one's own"),
        pytest.param("stranger", {"method": "PUT"}, id="another origin"),
    ],
)
def test_a_refused_preflight_keeps_the_request_away(
    pages: dict[str, Any], sites: Sites, who: str, options: dict[str, Any]
) -> None:
    """What needs permission never reaches the app without."""
    assert ask(pages, getattr(sites, who), f"{sites.api}/x", **options) == REFUSED
    assert sites.app.seen == []


def test_cookies_travel_with_credentials_only(pages: dict[str, Any], sites: Sites) -> None:
    """Set by a credentialed answer, sent by a credentialed request, readable in both; left out without."""
    assert ask(pages, sites.page, f"{sites.api}/sign-in", credentials="include")["status"] == 200

    assert "who=alice" in ask(pages, sites.page, f"{sites.api}/x", credentials="include")["text"]
    assert "who=alice" not in ask(pages, sites.page, f"{sites.api}/x", credentials="omit")["text"]
    preflighted = ask(pages, sites.page, f"{sites.api}/x", method="PUT", credentials="include")
    assert "who=alice" in preflighted["text"]


def test_everybody_may_read_what_is_open_but_not_with_credentials(pages: dict[str, Any], sites: Sites) -> None:
    """``*`` is no permission for a credentialed request: the browser itself refuses."""
    assert ask(pages, sites.stranger, f"{sites.api}/open/x")["status"] == 200
    assert ask(pages, sites.stranger, f"{sites.api}/open/x", credentials="include") == REFUSED


def test_a_sandboxed_page_is_a_stranger(pages: dict[str, Any], sites: Sites) -> None:
    """Its origin is ``null``, whatever address it was loaded from."""
    page = pages[sites.page]
    page.evaluate(
        """() => new Promise(done => {
            const frame = document.createElement("iframe");
            frame.sandbox = "allow-scripts";
            frame.srcdoc = "<p>x";
            frame.onload = done;
            document.body.append(frame);
        })"""
    )
    frame = page.frames[1]

    assert frame.evaluate("self.origin") == "null"
    assert frame.evaluate(FETCH, [f"{sites.api}/x", {}]) == REFUSED
    assert frame.evaluate(FETCH, [f"{sites.api}/open/x", {}])["status"] == 200


@pytest.mark.parametrize(("path", "status"), [("/boom", 500), ("/open/boom", 500)])
def test_errors_are_readable_too(pages: dict[str, Any], sites: Sites, path: str, status: int) -> None:
    """A page can tell its user what went wrong; without the headers it would see a network error."""
    assert ask(pages, sites.page, f"{sites.api}{path}")["status"] == status


def test_follows_a_redirect_within_the_api(pages: dict[str, Any], sites: Sites) -> None:
    """Each step carries the headers; also after a preflight."""
    assert ask(pages, sites.page, f"{sites.api}/moved")["status"] == 200
    answer = ask(pages, sites.page, f"{sites.api}/moved", headers={"X-Api-Key": "k"})
    assert (answer["status"], sites.app.seen[-1]) == (200, "GET /there")


def test_a_redirect_to_another_origin_is_that_origin_s_business(pages: dict[str, Any], sites: Sites) -> None:
    """The stranger's site has no CORS headers: the browser hides what it says."""
    assert ask(pages, sites.page, f"{sites.api}/away") == REFUSED


def test_any_header_can_be_opened_up(pages: dict[str, Any], sites: Sites) -> None:
    """``headers = "*"``, without credentials."""
    answer = ask(
        pages, sites.page, f"{sites.api}/any-header/x", headers={"X-Whatever": "1", "Authorization": "Bearer x"}
    )

    assert answer["status"] == 200
