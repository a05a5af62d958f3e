"""A function is an application."""

from __future__ import annotations

from typing import Any


def test_layers_serve_a_plain_function(site: Any) -> None:
    """The identifier is in the answer, in its header, and in the log."""
    answer = site.get("/moon")

    assert answer.text == f"Hello moon! This is request {answer.headers['X-Request-ID']}.\n"
    assert site("HEAD", "/").body == b""
    assert site.get("/a//b").status == 400
    assert b'"GET /moon HTTP/1.1" 200' in (site.folder / "log.txt").read_bytes()
