"""Jinja2 and SQLAlchemy on lamella's own router."""

from __future__ import annotations

import re
from typing import Any


def test_a_form_ends_in_the_database(site: Any) -> None:
    """The token of the csrf layer is in the form, the message in the session, the rows in SQLite."""
    token = re.search(r'name="csrf_token" value="([^"]+)"', site.get("/").text)
    assert token is not None
    form = {"author": "<Ada>", "title": "Notes & more", "csrf_token": token[1]}

    answer = site.post("/books", form=form)

    assert (answer.status, answer.location) == (303, "/authors/1")
    page = site.get("/authors/1").text
    assert '<p role="status">Added Notes &amp; more.</p>' in page
    assert "&lt;Ada&gt;" in page
    assert 'role="status"' not in site.get("/authors/1").text
    assert site.get("/count").json == {"books": 1}


def test_forms_of_other_sites_and_wrong_ones_are_refused(site: Any) -> None:
    """403 by csrf, 422 by the view, 400 by the router for a missing field, 404."""
    site.get("/")
    assert site.post("/books", form={"author": "x", "title": "y"}, Origin="https://evil.example").status == 403
    assert site.post("/books", form={"author": " ", "title": "y"}).status == 422
    assert site.post("/books", form={"author": "x"}).status == 400
    assert site.get("/authors/7").status == 404
    assert site.get("/count").json["books"] <= 1


def test_a_page_that_has_not_changed_is_not_sent_again(site: Any) -> None:
    """``conditional`` tags it."""
    first = site.get("/count")
    assert site.get("/count", If_None_Match=first.headers["ETag"]).status == 304
