"""Bottle under a prefix, behind a login that it does not see."""

from __future__ import annotations

from typing import Any

ADA = "Basic YWRhOmFuYWx5dGljYWw="


def test_redirects_stay_in_the_mount(site: Any) -> None:
    """Bottle joins ``redirect("/")`` to an absolute address of the site's root."""
    answer = site.post("/kitchen/recipes", form={"name": "tea", "text": "Leaves."}, Authorization=ADA)

    assert answer.status in (302, 303)
    assert answer.location == f"{site.url}/kitchen/"
    assert '<a href="/kitchen/recipes/tea">' in site.get("/kitchen/", Authorization=ADA).text


def test_the_app_never_sees_the_password(site: Any) -> None:
    """``request.auth`` would show it; the layer has used the header up."""
    assert site.get("/kitchen/recipes/scones").status == 401
    answer = site.get("/kitchen/recipes/scones", Authorization=ADA).json

    assert answer == {"name": "scones", "text": "Flour, butter, milk.", "user": "ada"}


def test_files_and_head(site: Any) -> None:
    """A file body passes the layers."""
    source = site.get("/kitchen/source", Authorization=ADA)
    assert source.text.startswith("from bottle import")
    head = site("HEAD", "/kitchen/source", Authorization=ADA)
    assert (head.body, head.headers["Content-Length"]) == (b"", source.headers["Content-Length"])
