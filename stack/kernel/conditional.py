"""Conditional and range requests: RFC 9110 sections 13 and 14, as pure functions.

Used by ``static`` and ``conditional``. Nothing here raises on what the network sent, and
every function is linear in its input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .http import ETag, etag_matches, parse_date, parse_etags
from .late import late_pattern

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

    from .response import Headers

__all__ = [
    "PRECONDITIONS",
    "evaluate",
    "has_precondition",
    "if_range_holds",
    "not_modified_headers",
    "parse_etag",
    "parse_ranges",
]

#: Environ keys of the fields that make a request conditional, besides If-Range.
PRECONDITIONS = ("HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE", "HTTP_IF_MATCH", "HTTP_IF_UNMODIFIED_SINCE")

# Section 14.1.1: int-range = first-pos "-" [ last-pos ], suffix-range = "-" suffix-length
_RANGE_SPEC = late_pattern(r"([0-9]*)-([0-9]*)")
_SINGLE_RANGE = late_pattern(r"bytes=([0-9]{1,18})-([0-9]{0,18})")
# More digits than any file has bytes; int() itself refuses over 4300 of them.
_MOST_DIGITS = 18
_HUGE: int = 10**_MOST_DIGITS

# Section 15.4.5: a 304 has the metadata that a cache updates its copy with, and none of the content's own.
_CONTENT_FIELDS = frozenset(
    {
        "content-length",
        "content-type",
        "content-encoding",
        "content-language",
        "content-range",
        "content-md5",
        "content-digest",
        "accept-ranges",
        "transfer-encoding",
    }
)


def has_precondition(environ: WSGIEnvironment) -> bool:
    """Tell whether the request has a precondition to evaluate (section 13.1; If-Range is none of them)."""
    return (
        "HTTP_IF_NONE_MATCH" in environ
        or "HTTP_IF_MODIFIED_SINCE" in environ
        or "HTTP_IF_MATCH" in environ
        or "HTTP_IF_UNMODIFIED_SINCE" in environ
    )


def evaluate(environ: WSGIEnvironment, etag: ETag | None, last_modified: int | None) -> int:
    """Evaluate the preconditions in the order of section 13.2.2, for a representation that exists.

    Call it only where the answer without preconditions would be a 2xx (section 13.2.1).

    Args:
        environ: The request.
        etag: The current entity-tag of the selected representation, or None.
        last_modified: Its modification date in seconds, or None.

    Returns:
        0 to go on with the method, else the status to answer: 304 or 412.
    """
    safe = environ.get("REQUEST_METHOD") in ("GET", "HEAD")
    if_match: str | None = environ.get("HTTP_IF_MATCH")
    if if_match:
        # Step 1; section 13.1.1: strong comparison, and "*" holds where any representation exists.
        tags = parse_etags(if_match)
        if tags is not None and not etag_matches(tags, etag, weak=False):
            return 412
    elif last_modified is not None:
        # Step 2; section 13.1.4: ignored where it is not a valid date.
        unmodified_since = _date(environ.get("HTTP_IF_UNMODIFIED_SINCE"))
        if unmodified_since is not None and last_modified > unmodified_since:
            return 412
    if_none_match: str | None = environ.get("HTTP_IF_NONE_MATCH")
    if if_none_match:
        # Step 3; section 13.1.2: weak comparison. Where it is present, If-Modified-Since is ignored.
        tags = parse_etags(if_none_match)
        if tags is None or etag_matches(tags, etag, weak=True):
            return 304 if safe else 412
        return 0
    if safe and last_modified is not None:
        # Step 4; section 13.1.3: only for GET and HEAD.
        modified_since = _date(environ.get("HTTP_IF_MODIFIED_SINCE"))
        if modified_since is not None and last_modified <= modified_since:
            return 304
    return 0


def _date(text: str | None) -> int | None:
    """Read a date field that may be absent."""
    return parse_date(text.strip(" \t")) if text else None


def parse_etag(text: str) -> ETag | None:
    """Read an ETag field (section 8.8.3): one entity-tag; None where it is malformed."""
    tags = parse_etags(text)
    return tags[0] if tags is not None and len(tags) == 1 else None


def if_range_holds(if_range: str, etag: ETag | None, last_modified: int | None) -> bool:
    """Tell whether If-Range lets the Range field count (section 13.1.5).

    One entity-tag, compared strongly, or one date that is exactly the modification date.
    Anything else is false: the whole representation is sent.
    """
    if_range = if_range.strip(" \t")
    if if_range.startswith('"'):
        return etag is not None and not etag.weak and if_range == str(etag)
    return last_modified is not None and parse_date(if_range) == last_modified


def parse_ranges(text: str, size: int, *, limit: int = 64) -> list[tuple[int, int]] | None:
    """Read a Range field for a representation of *size* bytes (sections 14.1.2 and 14.2).

    Ranges that begin after the end are left out, those that end after it are cut.

    Args:
        text: The field value.
        size: Length of the selected representation, in its content coding.
        limit: Most ranges to answer; a field with more is ignored, as section 14.2 allows.

    Returns:
        ``(start, stop)`` pairs in the client's order, *stop* excluded. An empty list stands for a 416:
        no range can be satisfied, or one is malformed (section 14.2 leaves it open to ignore or to reject
        those; nginx and Go reject). None means that the field is to be ignored: another unit,
        nothing in it, an empty representation, or a request that costs more than the whole: over
        *limit* ranges, more than two that overlap, or more bytes than there are.
    """
    single = _SINGLE_RANGE.fullmatch(text)
    if single is not None and size:  # what nearly every client sends
        first, last_text = int(single[1]), single[2]
        last = int(last_text) if last_text else _HUGE
        if last < first:
            return []
        return [(first, last + 1 if last < size else size)] if first < size else []
    unit, equals, specs = text.partition("=")
    if not equals or unit.strip(" \t").lower() != "bytes" or not specs or size == 0:
        return None
    ranges: list[tuple[int, int]] = []
    any_spec = False
    for spec in specs.split(","):
        spec = spec.strip(" \t")
        if not spec:  # section 5.6.1.2: empty list elements are ignored
            continue
        match = _RANGE_SPEC.fullmatch(spec)
        if match is None:
            return []
        any_spec = True
        first_text, last_text = match.groups()
        if first_text:
            first = _position(first_text)
            last = _position(last_text) if last_text else _HUGE
            if last < first:  # section 14.1.1: "is invalid if the last-pos value is … less than the first-pos"
                return []
            if first < size:
                ranges.append((first, min(last + 1, size)))
        elif last_text:
            suffix = min(_position(last_text), size)
            if suffix:  # a suffix of no bytes cannot be satisfied
                ranges.append((size - suffix, size))
        else:
            return []
        if len(ranges) > limit:
            return None
    if not any_spec:
        return []
    return None if len(ranges) > 1 and _is_wasteful(ranges, size) else ranges


def _is_wasteful(ranges: list[tuple[int, int]], size: int) -> bool:
    """Tell whether the whole would be cheaper (section 14.2: "more than two overlapping ranges")."""
    if sum(stop - start for start, stop in ranges) > size:
        return True
    overlapping, end = 0, -1
    for start, stop in sorted(ranges):
        overlapping += start < end
        end = max(end, stop)
    return overlapping > 1


def _position(digits: str) -> int:
    """Read a position; one beyond every file becomes a number beyond every file."""
    if len(digits) > _MOST_DIGITS:
        digits = digits.lstrip("0")
        if len(digits) > _MOST_DIGITS:
            return _HUGE
    return int(digits or "0")


def not_modified_headers(headers: Headers) -> Headers:
    """Return what of the headers of a 200 belongs on its 304 (section 15.4.5).

    The validators, ``Cache-Control``, ``Expires``, ``Vary``, ``Content-Location``, and every field
    that does not describe the content, such as ``Set-Cookie``.
    """
    return [header for header in headers if header[0].lower() not in _CONTENT_FIELDS]
