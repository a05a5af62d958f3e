"""BodyReader: a request body that ends where it ends."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamella.stack.kernel.body import BodyReader, body_length
from lamella.stack.kernel.errors import BadRequestError
from lamella.stack.testing import environ

WAYS: list[Callable[[BodyReader], bytes]] = [
    lambda body: body.read(),
    lambda body: body.read(None),
    lambda body: b"".join(iter(lambda: body.read(3), b"")),
    lambda body: b"".join(body),
    lambda body: b"".join(body.readlines()),
    lambda body: b"".join(iter(lambda: body.readline(2), b"")),
]


@given(st.binary(max_size=40), st.one_of(st.none(), st.integers(0, 50)), st.sampled_from(WAYS))
def test_every_way_of_reading_gives_the_body(
    data: bytes, length: int | None, way: Callable[[BodyReader], bytes]
) -> None:
    """No byte past the length; all of them where the stream ends by itself."""
    body = BodyReader(io.BytesIO(data), length)

    assert way(body) == (data if length is None else data[:length])
    assert body.read(5) == b""


def test_lines_are_those_of_a_file() -> None:
    """With their ends, and a hint that stops after a line."""
    text = b"one\ntwo\n\nlast"

    assert list(BodyReader(io.BytesIO(text), len(text))) == [b"one\n", b"two\n", b"\n", b"last"]
    assert BodyReader(io.BytesIO(text), len(text)).readlines(5) == [b"one\n", b"two\n"]
    assert BodyReader(io.BytesIO(text), None).readline() == b"one\n"


@pytest.mark.parametrize(
    ("length", "terminated", "expected"), [("5", False, 5), ("", False, 0), ("", True, None), ("5", True, 5)]
)
def test_knows_how_much_there_is(length: str, terminated: bool, expected: int | None) -> None:
    """Without a length there is a body only where the server promises its end."""
    request = {**environ("POST", "/", CONTENT_LENGTH=length), "wsgi.input_terminated": terminated}

    assert body_length(request) == expected


def test_refuses_a_malformed_length() -> None:
    """A 400."""
    with pytest.raises(BadRequestError):
        body_length(environ("POST", "/", CONTENT_LENGTH="-1"))
