"""Django REST framework under a prefix; who is asking is decided outside."""

from __future__ import annotations

from typing import Any

ADA = "Basic YWRhOmFuYWx5dGljYWw="


def test_users_come_from_outside(site: Any) -> None:
    """The header is used up: DRF's own Basic authentication would refuse a user that it does not know."""
    answer = site.post_json("/api/tickets/", {"title": "The door sticks"}, Authorization=ADA)

    assert (answer.status, answer.json) == (201, {"id": 2, "title": "The door sticks", "by": "ada"})
    assert site.post_json("/api/tickets/", {"title": ""}, Authorization=ADA).json == {
        "title": ["This field may not be blank."]
    }
    assert site.get("/api/tickets/1/", Authorization=ADA).json["by"] == "ada"


def test_strangers_are_challenged(site: Any) -> None:
    """A 401, and the page of another origin may read it."""
    answer = site.get("/api/tickets/", Origin="https://app.example")

    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic ")
    assert answer.headers.get_all("Access-Control-Allow-Origin") == ["https://app.example"]


def test_addresses_have_the_prefix(site: Any) -> None:
    """``reverse`` reads SCRIPT_NAME."""
    assert site.get("/api/", Authorization=ADA).json == {"tickets": f"{site.url}/api/tickets/"}
