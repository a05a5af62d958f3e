"""FastAPI under a prefix: docs page, lifespan, streams, redirects; no argument tells it where it is."""

from __future__ import annotations

from typing import Any

ADA = "Basic YWRhOmFuYWx5dGljYWw="


def test_the_docs_page_finds_its_schema(site: Any) -> None:
    """``root_path`` is the mount, so the page asks the right address, and the schema names it."""
    page = site.get("/weather/docs")

    assert "url: '/weather/openapi.json'" in page.text
    assert "cdn.jsdelivr.net" in page.headers["Content-Security-Policy"]
    schema = site.get("/weather/openapi.json").json
    assert schema["servers"] == [{"url": "/weather"}]
    assert set(schema["paths"]) == {"/readings/{city}", "/readings", "/live"}


def test_requests_and_redirects(site: Any) -> None:
    """What the lifespan made is there; addresses have the mount; a layer outside guards POST."""
    assert site.get("/weather/readings/oslo").json == {
        "city": "oslo",
        "celsius": 4.5,
        "here": f"{site.url}/weather/readings/oslo",
    }
    assert site.post_json("/weather/readings", {"city": "rome", "celsius": 21}).status == 401
    answer = site.post_json("/weather/readings", {"city": "rome", "celsius": 21}, Authorization=ADA)
    assert answer.location == f"{site.url}/weather/readings/rome"
    assert site.post_json("/weather/readings", {"city": 1}, Authorization=ADA).status == 422
    assert site.get("/weather/readings/nowhere").json == {"detail": "no reading"}


def test_streams_and_head(site: Any) -> None:
    """FastAPI alone answers HEAD with 405; ``head = "get"`` asks it for GET."""
    assert site.get("/weather/live").text == "0\n1\n2\n"
    head = site("HEAD", "/weather/readings/oslo")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Type"] == "application/json"


def test_websockets_are_refused_clearly(site: Any) -> None:
    """WSGI has none."""
    assert site.get("/weather/live", Upgrade="websocket", Connection="Upgrade").status == 426
