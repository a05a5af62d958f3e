"""The canonical path: one value for all, or a refusal."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamella.stack.kernel.paths import AmbiguousPathError, canonical_path, check_path, is_under, shift
from lamella.stack.testing import environ


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/", "/"),
        ("/notes/1", "/notes/1"),
        ("/notes/", "/notes/"),
        ("/caf%C3%A9", "/café"),
        ("/.well-known/acme", "/.well-known/acme"),
        ("/a/...", "/a/..."),
        ("/a/.b/..c", "/a/.b/..c"),
        ("/100%25", "/100%"),
        ("/a;b=1", "/a;b=1"),
        ("/a%20b", "/a b"),
        ("/a:b@c", "/a:b@c"),
    ],
)
def test_decodes_what_is_plain(target: str, expected: str) -> None:
    """A path that can be read in one way only is decoded as UTF-8."""
    assert canonical_path(environ("GET", target)) == expected


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("//admin", "empty segment"),
        ("/a//b", "empty segment"),
        ("/./admin", "dot segment"),
        ("/x/../admin", "dot segment"),
        ("/..", "dot segment"),
        ("/x/.", "dot segment"),
        ("/x/..;y/admin", "dot segment"),
        ("/public/..%2fadmin", "dot segment"),
        ("/public%5c..%5cadmin", "backslash"),
        ("/%2561dmin", "encoded twice"),
        ("/admin%252f", "encoded twice"),
        ("/admin%00", "control character"),
        ("/admin%0a", "control character"),
        ("/admin%C2%85", "control character"),
        ("/%ff", "not UTF-8"),
        ("/%C0%AE", "not UTF-8"),
        ("admin", "start with a slash"),
        ("http://evil/abs", "start with a slash"),
        ("*", "start with a slash"),
    ],
)
def test_refuses_what_is_ambiguous(target: str, reason: str) -> None:
    """What a second reader could take for another path is refused, and the reason told."""
    with pytest.raises(AmbiguousPathError, match=reason):
        canonical_path(environ("GET", target))


def test_checks_the_script_name_too() -> None:
    """A client may lead the server to a strange mount."""
    with pytest.raises(AmbiguousPathError):
        canonical_path(environ("GET", "/x", mount="//evil"))
    with pytest.raises(AmbiguousPathError, match="ends with a slash"):
        canonical_path(environ("GET", "/x", mount="/mounted/"))


def test_the_mount_itself_is_the_empty_path() -> None:
    """``PATH_INFO`` is empty where the client asked for the mount without a slash."""
    assert canonical_path(environ("GET", "", mount="/mounted")) == ""


def test_is_computed_anew_when_the_environ_changes() -> None:
    """A cached value must not outlive what it was made of (PEP 3333, safe extensions)."""
    request = environ("GET", "/a/b")
    canonical_path(request)
    request["PATH_INFO"] = "/b"

    assert canonical_path(request) == "/b"


@given(st.text(max_size=30))
def test_never_raises_anything_else(text: str) -> None:
    """Any bytes are a path or an ``AmbiguousPathError``."""
    request = environ("GET", "/" + quote(text, safe="/%"))
    try:
        path = canonical_path(request)
    except AmbiguousPathError:
        return
    assert path.encode() == unquote_to_bytes("/" + quote(text, safe="/%"))
    assert not {"", ".", ".."} & set(path[1:].split("/")[:-1])


@pytest.mark.parametrize(
    ("path", "prefix", "expected"),
    [
        ("/admin", "/admin", True),
        ("/admin/", "/admin", True),
        ("/admin/users", "/admin", True),
        ("/adminx", "/admin", False),
        ("/admi", "/admin", False),
        ("/anything", "", True),
        ("", "", True),
    ],
)
def test_prefixes_end_on_segment_borders(path: str, prefix: str, expected: bool) -> None:
    """``/adminx`` is not below ``/admin``."""
    assert is_under(path, prefix) is expected


def test_shifting_keeps_the_whole_path() -> None:
    """``SCRIPT_NAME + PATH_INFO`` is what it was, on a copy."""
    request = environ("GET", "/caf%C3%A9/x", mount="/m")
    prefix = "/café".encode().decode("latin-1")

    shifted = shift(request, prefix)

    assert shifted["SCRIPT_NAME"] + shifted["PATH_INFO"] == request["SCRIPT_NAME"] + request["PATH_INFO"]
    assert shifted["PATH_INFO"] == "/x"
    assert request["SCRIPT_NAME"] == "/m"


def test_no_bypass_path_reads_as_unprotected(corpus: Any) -> None:
    """Each variant is refused, or its segments say plainly where it leads."""
    for case in corpus("auth_bypass_paths")["cases"]:
        raw = case["raw"].partition("?")[0].partition("#")[0]
        try:
            path = check_path(unquote_to_bytes(raw).decode("latin-1"))
        except AmbiguousPathError:
            continue
        assert "//" not in path
        assert not any(segment in (".", "..") for segment in path.split("/"))
