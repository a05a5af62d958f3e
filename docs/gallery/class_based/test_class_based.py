"""A class is an application, and so is an instance."""

from __future__ import annotations

from typing import Any


def test_a_class_with_iter_starts_late(site: Any) -> None:
    """``start_response`` comes with the first block; every layer waits for it."""
    assert site.get("/").text == "Hello stranger!\n"
    assert site.get("/", Authorization="Basic YWRhOmFuYWx5dGljYWw=").text == "Hello ada!\n"
    assert site.get("/", Authorization="Basic YWRhOndyb25n").text == "Hello stranger!\n"


def test_an_instance_is_an_application(site: Any) -> None:
    """It keeps its count in this process."""
    assert site.get("/count").location == "/count/"
    assert site.get("/count/").text == "42\n"
    assert site.get("/count/").text == "43\n"
