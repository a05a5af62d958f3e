"""A Falcon API under a prefix, with CORS and a limit from outside."""

from __future__ import annotations

from typing import Any

PAGE = {"Origin": "https://app.example"}


def test_an_api_under_a_prefix(site: Any) -> None:
    """``request.prefix`` has the mount."""
    answer = site.post_json("/api/things", {"name": "piano"}, **PAGE)

    assert (answer.status, answer.location) == (201, f"{site.url}/api/things/1")
    assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
    assert site.get("/api/things").json["things"] == ["anvil", "piano"]


def test_errors_and_limits_can_be_read_by_the_page(site: Any) -> None:
    """Whatever answers, the CORS headers are there, once."""
    for answer in (site.post_json("/api/things", {"name": "x" * 2000}, **PAGE), site.get("/api/nothing", **PAGE)):
        assert answer.status in (404, 413)
        assert answer.headers.get_all("Access-Control-Allow-Origin") == ["https://app.example"]


def test_streams_stay_streams(site: Any) -> None:
    """A generator passes through."""
    assert site.get("/api/lines").text == "line 0\nline 1\nline 2\n"
