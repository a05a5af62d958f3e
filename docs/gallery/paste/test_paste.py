"""A PasteDeploy application, from its INI file and from its factory."""

from __future__ import annotations

from typing import Any


def test_the_ini_file_is_loaded_with_its_filters(site: Any) -> None:
    """Two of them are layers of lamella: each is a ``paste.filter_app_factory``, too."""
    answer = site.get("/wiki/home")

    assert answer.text == "Our wiki: Welcome.\n"
    assert answer.headers["X-Wiki-Request"]
    assert answer.headers["Referrer-Policy"] == "same-origin"
    assert site.get("/wiki/nothing").status == 404


def test_the_factory_takes_options_from_the_stack_file(site: Any) -> None:
    """Typed, and without an INI file."""
    assert site.get("/tools/").text == "Tools: Welcome.\n"
