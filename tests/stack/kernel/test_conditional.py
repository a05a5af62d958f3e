"""Preconditions and ranges: RFC 9110 sections 13 and 14, against a model written from its prose."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.stack.kernel.conditional import (
    evaluate,
    if_range_holds,
    not_modified_headers,
    parse_etag,
    parse_ranges,
)
from lamella.stack.kernel.http import ETag, format_date

MODIFIED = 1_700_000_000
DATES = {"before": MODIFIED - 1, "equal": MODIFIED, "after": MODIFIED + 1, "invalid": None}
TAGS = ['"current"', 'W/"current"', '"other"', "*", '"a", W/"current" , "b"', '"a", "current"', "garbage", '"a,b", "x"']


def model(method: str, fields: dict[str, str], etag: str | None, modified: int | None) -> int:
    """Section 13.2.2, sentence by sentence, on fields whose values come from TAGS and DATES only."""

    def listed(value: str) -> list[str]:
        return [
            item for item in ('"current"', 'W/"current"', '"other"', '"a"', '"b"', '"a,b"', '"x"') if _has(value, item)
        ]

    def date(name: str) -> int | None:
        if modified is None or name not in fields:
            return None
        return next((at for at in DATES.values() if at is not None and fields[name] == format_date(at)), None)

    strong = {etag} if etag and not etag.startswith("W/") else set()
    weak = {etag.removeprefix("W/")} if etag else set()
    step = 1
    if "If-Match" in fields:
        holds = fields["If-Match"] == "*" or bool(strong & set(listed(fields["If-Match"])))
        if not holds:
            return 412
        step = 3
    if step == 1 and date("If-Unmodified-Since") is not None:
        unmodified_since = date("If-Unmodified-Since")
        assert unmodified_since is not None
        assert modified is not None
        if not modified <= unmodified_since:
            return 412
    safe = method in ("GET", "HEAD")
    if "If-None-Match" in fields:
        sent = {tag.removeprefix("W/") for tag in listed(fields["If-None-Match"])}
        holds = not (fields["If-None-Match"] == "*" or weak & sent)
        return 0 if holds else (304 if safe else 412)
    if safe and date("If-Modified-Since") is not None:
        since = date("If-Modified-Since")
        assert since is not None
        assert modified is not None
        return 0 if modified > since else 304
    return 0


def _has(value: str, item: str) -> bool:
    """Whether the list *value*, one of TAGS, has the element *item*."""
    elements = {
        '"a", W/"current" , "b"': ['"a"', 'W/"current"', '"b"'],
        '"a", "current"': ['"a"', '"current"'],
        '"a,b", "x"': ['"a,b"', '"x"'],
    }
    return item in elements.get(value, [value])


dates = st.sampled_from([*(format_date(at) for at in DATES.values() if at is not None), "yesterday", ""])
fields = st.fixed_dictionaries(
    {},
    optional={
        "If-Match": st.sampled_from(TAGS),
        "If-None-Match": st.sampled_from(TAGS),
        "If-Modified-Since": dates,
        "If-Unmodified-Since": dates,
    },
)


@settings(deadline=None)
@given(
    method=st.sampled_from(["GET", "HEAD", "PUT", "DELETE", "POST"]),
    sent=fields,
    etag=st.sampled_from(['"current"', 'W/"current"', None]),
    modified=st.sampled_from([MODIFIED, None]),
)
def test_agrees_with_the_model(method: str, sent: dict[str, str], etag: str | None, modified: int | None) -> None:
    """Every combination of preconditions gives what section 13.2.2 says."""
    environ = {"REQUEST_METHOD": method}
    environ.update({"HTTP_" + name.upper().replace("-", "_"): value for name, value in sent.items()})
    tag = None if etag is None else ETag("current", etag.startswith("W/"))

    assert evaluate(environ, tag, modified) == model(method, sent, etag, modified)


def test_reads_one_etag_only() -> None:
    """An ETag field is one entity-tag; a list, a star or a bare word is none."""
    assert parse_etag('W/"x"') == ETag("x", weak=True)
    assert [parse_etag(text) for text in ('"a", "b"', "*", "bare", "")] == [None] * 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("bytes=0-4", [(0, 5)], id="first five"),
        pytest.param("bytes=0-0", [(0, 1)], id="one byte"),
        pytest.param("bytes=-1", [(25, 26)], id="last byte"),
        pytest.param("bytes=5-", [(5, 26)], id="to the end"),
        pytest.param("BYTES=0-99", [(0, 26)], id="unit in any case, cut at the end"),
        pytest.param("bytes=-99", [(0, 26)], id="suffix longer than the file"),
        pytest.param("bytes=-" + "9" * 30, [(0, 26)], id="huge suffix"),
        pytest.param("bytes=000000000000000000000000000001-2", [(1, 3)], id="leading zeros"),
        pytest.param("bytes=0-1 ,\t5-6,", [(0, 2), (5, 7)], id="white space and empty elements"),
        pytest.param("bytes=20-25,0-4", [(20, 26), (0, 5)], id="in the client's order"),
        pytest.param("bytes=0-1,50-60", [(0, 2)], id="one of two satisfiable"),
        pytest.param("bytes=26-", [], id="begins at the end"),
        pytest.param("bytes=-0", [], id="no bytes"),
        pytest.param("bytes=" + "9" * 5000 + "-", [], id="5000 digits"),
        pytest.param("items=0-4", None, id="another unit"),
        pytest.param("bytes", None, id="no ranges"),
        pytest.param("bytes=", None, id="empty"),
        pytest.param("bytes=,,,", [], id="only commas"),
        pytest.param("bytes=-", [], id="lone dash"),
        pytest.param("bytes=4-1", [], id="backwards"),
        pytest.param("bytes=+0-4", [], id="sign"),
        pytest.param("bytes=0_0-4", [], id="underscore"),
        pytest.param("bytes=\xb2-5", [], id="superscript digit"),
        pytest.param("bytes=٠-٤", [], id="arabic digits"),
        pytest.param("bytes=0-4,x-y", [], id="one malformed"),
        pytest.param("bytes=0-,0-,0-", None, id="more bytes than there are"),
        pytest.param("bytes=0-3,1-4,2-5", None, id="three overlap"),
    ],
)
def test_reads_ranges(text: str, expected: list[tuple[int, int]] | None) -> None:
    """Sections 14.1.2 and 14.2, for a representation of 26 bytes."""
    assert parse_ranges(text, 26) == expected


def test_ignores_the_range_of_an_empty_file() -> None:
    """Nothing can be cut from nothing: the whole is sent."""
    assert parse_ranges("bytes=0-0", 0) is None
    assert parse_ranges("bytes=-5", 0) is None


def test_ignores_more_ranges_than_allowed() -> None:
    """A field with too many parts asks for work, not for bytes."""
    many = ",".join(f"{n}-{n}" for n in range(0, 200, 2))

    assert parse_ranges("bytes=" + many, 1000, limit=64) is None
    assert len(parse_ranges("bytes=" + many, 1000, limit=100) or ()) == 100


@settings(deadline=None)
@given(st.text(alphabet="bytes=0123456789-, \t²x", max_size=60), st.integers(0, 40))
def test_ranges_lie_inside_and_cost_no_more_than_the_whole(text: str, size: int) -> None:
    """Whatever is sent: no exception, each range in bounds and not empty, their sum at most the size."""
    ranges = parse_ranges("bytes=" + text, size)

    for start, stop in ranges or ():
        assert 0 <= start < stop <= size
    assert sum(stop - start for start, stop in ranges or ()) <= max(size, 0)


@settings(deadline=None)
@given(st.integers(0, 30), st.one_of(st.none(), st.integers(0, 30)), st.integers(1, 25))
def test_one_range_is_what_slicing_gives(first: int, last: int | None, size: int) -> None:
    """A range means the bytes from *first* to *last*, both included."""
    content = bytes(range(size))

    ranges = parse_ranges(f"bytes={first}-{'' if last is None else last}", size)

    if last is not None and last < first:
        assert ranges == []
    else:
        expected = content[first:] if last is None else content[first : last + 1]
        assert b"".join(content[start:stop] for start, stop in ranges or ()) == expected


@pytest.mark.timing
@pytest.mark.parametrize(
    "text", ["bytes=" + "0-," * 33_000, "bytes=" + "-" * 100_000, "bytes=" + "," * 100_000, "bytes=" + "1" * 100_000]
)
def test_reads_hostile_ranges_in_linear_time(text: str) -> None:
    """100 kB take less than 50 ms."""
    started = time.thread_time()

    parse_ranges(text, 1000)

    assert time.thread_time() - started < 0.15


@pytest.mark.parametrize(
    ("sent", "holds"),
    [
        ('"x"', True),
        ('W/"x"', False),
        ('"y"', False),
        ('"x", "x"', False),
        ("x", False),
        ("*", False),
        (format_date(MODIFIED), True),
        (format_date(MODIFIED + 1), False),
        (format_date(MODIFIED - 1), False),
        ("Tuesday, 14-Nov-23 22:13:20 GMT", True),
        ("yesterday", False),
        ("", False),
    ],
)
def test_if_range_is_strict(sent: str, holds: bool) -> None:
    """Section 13.1.5: a strong tag, or exactly the date."""
    assert if_range_holds(sent, ETag("x"), MODIFIED) is holds


def test_if_range_never_holds_for_a_weak_tag() -> None:
    """A weak validator does not say that the bytes are the same."""
    assert not if_range_holds('W/"x"', ETag("x", weak=True), None)
    assert not if_range_holds('"x"', ETag("x", weak=True), None)


def test_a_304_keeps_what_caches_need() -> None:
    """Validators, caching, Vary and cookies stay; what describes the content goes."""
    kept = [("ETag", '"x"'), ("Cache-Control", "max-age=1"), ("Vary", "Accept"), ("Set-Cookie", "a=b"), ("X-A", "b")]
    content = [("Content-Type", "a/b"), ("Content-Length", "3"), ("Content-Encoding", "br"), ("Accept-Ranges", "bytes")]

    assert not_modified_headers(content + kept) == kept
