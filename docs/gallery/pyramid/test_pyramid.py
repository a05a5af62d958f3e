"""Pyramid under two prefixes at once, each with its own session."""

from __future__ import annotations

from typing import Any


def test_routes_follow_the_prefix(site: Any) -> None:
    """``route_url`` and ``route_path`` read SCRIPT_NAME."""
    assert site.get("/polls/").json["vote"] == f"{site.url}/polls/vote/tabs"
    assert site.get("/again/").json["vote"] == f"{site.url}/again/vote/tabs"


def test_sessions_are_kept_apart(site: Any) -> None:
    """Both cookies are called session; each stays in its mount."""
    assert site.post("/polls/vote/spaces").location == f"{site.url}/polls/"

    assert site.get("/polls/").json["yours"] == "spaces"
    assert site.get("/again/").json["yours"] is None
    assert site.cookie("session")[1] == "/polls"


def test_bytes_that_are_no_text_are_refused(site: Any) -> None:
    """Pyramid alone raises out of the application."""
    assert site.get("/polls/%ff").status == 400
