"""Targets of redirects: on this site, and nowhere else."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.stack.kernel.http import parse_origin
from lamella.stack.kernel.targets import encode_target, safe_target

OWN = parse_origin("https://app.example")
PAGE = "/login/start"


def target(text: str, page: str = PAGE) -> str | None:
    """What becomes of a target on our site."""
    return safe_target(text, OWN, page)


def test_every_target_of_the_corpus(corpus: Any) -> None:
    """What would leave the site, or holds a control character, is denied; what must be allowed is."""
    data = corpus("redirect_targets")
    denied = [case["target"] for case in data["cases"] if case["verdict"].startswith(("must_deny", "deny"))]

    assert [text for text in data["must_allow"] if target(text) is None or target(text, "/login") is None] == []
    assert [text for text in denied if target(text) is not None or target(text, "/login") is not None] == []
    assert len(denied) > 500


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/", "/"),
        ("home", "/login/home"),
        ("./home", "/login/./home"),
        ("?q=1", "/login/start?q=1"),
        ("#frag", "/login/start#frag"),
        ("https://app.example", "/"),
        ("https://app.example:443/p?q=1#f", "/p?q=1#f"),
        ("HTTPS://APP.example?x", "/?x"),
        ('/caf\u00e9 <b>"', "/caf%C3%A9%20%3Cb%3E%22"),
        ("/a%2fb%", "/a%2fb%"),
    ],
)
def test_becomes_a_path_of_this_site(text: str, expected: str) -> None:
    """Relative, absolute and odd targets end as one percent-encoded path."""
    assert target(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "//evil.example",
        "/.//evil.example",
        "/%2e//evil.example",
        "/x/..//evil.example",
        "..//evil.example",
        "https://app.example//evil.example",
        "https://app.example.evil.example/",
        "https://app.example@evil.example/",
        "https://app.example:444/",
        "http://app.example/",
        "https:/x",
        "https:x",
        "javascript:alert(1)",
        "a:b",
        "\\\\evil.example",
        "/\\evil.example",
        " /x",
        "/x ",
        "/\t/evil.example",
        "/x\r\nSet-Cookie: a=b",
        "/x\x85",
        "/x\ud800",
        "/" + "x" * 2048,
    ],
)
def test_denies_what_could_leave(text: str) -> None:
    """All that another reader might take for another host, or that cannot stand in a header."""
    assert target(text) is None


def test_without_an_own_origin_nothing_absolute_is_ours() -> None:
    """A request with a malformed Host has no origin."""
    assert safe_target("https://app.example/", None, PAGE) is None
    assert safe_target("/x", None, PAGE) == "/x"


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="/\\.:%2eh@?#tps x\t\u00e9\n", max_size=24) | st.text(max_size=24))
def test_what_comes_out_stays(text: str) -> None:
    """Every result is printable ASCII and one path, whatever came in."""
    found = target(text)

    assert found is None or (
        found.isascii() and found.isprintable() and found[0] == "/" and found[1:2] not in ("/", "\\")
    )


@pytest.mark.timing
def test_a_long_target_is_cheap() -> None:
    """100 kB of anything is denied at once."""
    started = time.thread_time()
    for text in ("/." * 50_000, "/" * 100_000, "a" * 100_000 + ":", "\\" * 100_000):
        assert target(text) is None
    assert time.thread_time() - started < 0.15
    assert encode_target("/\u20ac") == "/%E2%82%AC"
