"""The JSON of sessions: what comes back is what was kept, by either reader."""

from __future__ import annotations

import enum
import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamella.middleware._session_json import check, decode, encode, read, write

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**4096) + 1, 2**4096 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(), max_size=20)  # with halves of surrogate pairs
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(), max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


class Text(str):
    """Such as markupsafe's."""

    __slots__ = ()


class Number(int):
    """Such as an identifier's type."""


class Share(float):
    """A float of its own type."""


class Colour(enum.StrEnum):
    """One that equals its value."""

    RED = "red"


def same(one: Any, other: Any) -> bool:
    """Equal, and of equal types: 1 is not 1.0, nor True."""
    return bool(repr(one) == repr(other))


@given(VALUES)
def test_reads_back_what_it_wrote(value: Any) -> None:
    """Either pair, and each reader what the other wrote."""
    check(value)

    assert same(read(write(value)), value)
    assert same(decode(encode(value)), value)
    assert same(read(encode(value).encode()), value)
    assert same(json.loads(write(value)), value)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        pytest.param(Text("a"), "a", id="text of its own type"),
        pytest.param({Text("a"): [Number(2**70)]}, {"a": [2**70]}, id="inside"),
        pytest.param(Share(0.5), 0.5, id="a float of its own type"),
        pytest.param(Colour.RED, "red", id="an enum"),
        pytest.param(("a", ("b",)), ["a", ["b"]], id="tuples"),
        pytest.param("\ud800", "\ud800", id="half of a surrogate pair"),
        pytest.param([[[1]]] * 3, [[[1]]] * 3, id="one list three times"),
    ],
)
def test_writes_what_the_standard_library_does(value: Any, plain: Any) -> None:
    """Also where the fast writer would refuse."""
    check(value)

    assert same(read(write(value)), plain)
    assert same(decode(encode(value)), plain)


@pytest.mark.parametrize("octets", [b"", b"{", b"[1]x", b"nan", b"\xff", b'"\xff"', b"[" * 5000, b"'a'"])
def test_refuses_what_is_no_json(octets: bytes) -> None:
    """With one kind of error."""
    with pytest.raises(ValueError):
        read(octets)


def test_starts_without_the_fast_reader() -> None:
    """Its import takes 25 ms, which a stack that starts does not wait for; the first session does."""
    program = """
import sys
from lamella.middleware.session import SessionMiddleware
def app(environ, start_response):
    if environ["PATH_INFO"] == "/write":
        environ["lamella.session"]["a"] = 1
    start_response("200 OK", [])
    return []
layer = SessionMiddleware(app, secret="0123456789abcdefghijklmnopqrstuvwxyzABCDEF")
layer({"PATH_INFO": "/"}, lambda *start: None)
before = "msgspec" in sys.modules
layer({"PATH_INFO": "/write"}, lambda *start: None)
print(before, "msgspec" in sys.modules)
"""
    paths = [path for path in sys.path if path]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {paths!r}\n{program}"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.split() == ["False", "True"]
