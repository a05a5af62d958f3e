"""From a file and a request to an answer: method, coding, preconditions, ranges, hand-over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from os import urandom
from typing import TYPE_CHECKING
from urllib.parse import quote

from lamella.stack.kernel.conditional import evaluate, if_range_holds, parse_ranges
from lamella.stack.kernel.http import accepted_codings
from lamella.stack.kernel.records import Record
from lamella.stack.kernel.response import Headers, answer, remove_headers

from ._static_files import BLOCK, SMALL, FileEntry, FileSegments, Loader, Representation, multipart

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = [
    "Choose",
    "Respond",
    "Sendfile",
    "answer_busy",
    "answer_method",
    "chooser",
    "places_of",
    "plain_answer",
    "responder",
]

Respond = Callable[[FileEntry, "WSGIEnvironment", "StartResponse"], Iterable[bytes]]
Choose = Callable[[FileEntry, str], "Representation | None"]

_ALLOW = [("Allow", "GET, HEAD"), ("X-Content-Type-Options", "nosniff")]
# Accept-Encoding values remembered; browsers send a handful.
_MOST_ORDERS = 512


class Sendfile(Record):
    """How a front server is told to send a file itself."""

    #: ``X-Accel-Redirect`` or ``X-Sendfile``.
    header: str
    #: Folder to the place it has there; longest first.
    places: tuple[tuple[str, str], ...]

    def target(self, path: str) -> str:
        """Return the header's value for the file at *path*."""
        for folder, place in self.places:
            if path.startswith(folder + "/"):
                return quote(place.rstrip("/") + path[len(folder) :])
        return quote(path)


def chooser() -> Choose:
    """Return the function that chooses a representation by Accept-Encoding, with a memory of its own."""
    orders: dict[tuple[str, tuple[str, ...]], str | None] = {}

    def choose(entry: FileEntry, accept_encoding: str) -> Representation | None:
        key = (accept_encoding, entry.codings)
        try:
            coding = orders[key]
        except KeyError:
            coding = next(iter(accepted_codings(accept_encoding, entry.codings)), None)
            if len(accept_encoding) <= 200:
                if len(orders) >= _MOST_ORDERS:
                    orders.clear()
                orders[key] = coding
        if coding == "identity":
            return entry.identity
        return None if coding is None else entry.variants[coding]

    return choose


def answer_method(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """Answer 405: the path is a file, the method neither GET nor HEAD."""
    return answer(environ, start_response, "405 Method Not Allowed", b"a file is only read\n", _ALLOW)


def answer_busy(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """Answer 503: the system cannot open the file now."""
    headers = [("Retry-After", "1"), ("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")]
    return answer(environ, start_response, "503 Service Unavailable", b"try again\n", headers)


def responder(
    loader: Loader, choose: Choose, miss: WSGIApplication, max_ranges: int, sendfile: Sendfile | None
) -> Respond:
    """Return the function that answers a request with an entry.

    Args:
        loader: Opens files.
        choose: From :func:`chooser`.
        miss: Answers where the file has vanished.
        max_ranges: Most parts of a multipart answer.
        sendfile: Hand files over to a front server; None to send them.
    """

    def respond(entry: FileEntry, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        if method != "GET" and method != "HEAD":
            return answer_method(environ, start_response)
        if sendfile is not None:
            return _hand_over(sendfile, entry, start_response)
        representation = entry.identity
        accept_encoding = environ.get("HTTP_ACCEPT_ENCODING")
        if accept_encoding is not None and (entry.codings or "identity" in accept_encoding or "*" in accept_encoding):
            chosen = choose(entry, accept_encoding)
            if chosen is None:
                return _answer_unacceptable(environ, start_response)
            representation = chosen
        if "HTTP_IF_NONE_MATCH" in environ:
            # The usual browser: one tag, and it is still the one.
            if (
                environ["HTTP_IF_NONE_MATCH"] == representation.etag
                and "HTTP_IF_MATCH" not in environ
                and "HTTP_IF_UNMODIFIED_SINCE" not in environ
            ):
                start_response("304 Not Modified", representation.kept_headers.copy())
                return [b""]
            verdict = evaluate(environ, representation.etag_parsed, representation.modified)
        elif "HTTP_IF_MODIFIED_SINCE" in environ or "HTTP_IF_MATCH" in environ or "HTTP_IF_UNMODIFIED_SINCE" in environ:
            verdict = evaluate(environ, representation.etag_parsed, representation.modified)
        else:
            verdict = 0
        if verdict:
            return _answer_verdict(verdict, representation, environ, start_response)
        # Section 14.2: "A server MUST ignore a Range header field received with a request method that is
        # unrecognized or for which range handling is not defined", and it is defined for GET only.
        if "HTTP_RANGE" in environ and method == "GET":
            ranges = _ranges(representation, environ, max_ranges)
            if ranges is not None:
                return _send_ranges(loader, entry, representation, ranges, environ, start_response, respond_again)
        body = representation.body
        if body is not None:
            start_response("200 OK", representation.headers.copy())
            return [body] if method == "GET" else [b""]
        return _send_file(loader, entry, representation, environ, start_response, respond_again)

    def respond_again(entry: FileEntry, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer after the file was found to be another than the entry says."""
        tries = environ.get("lamella.static.tries", 0)
        if tries >= 3:
            return answer_busy(environ, start_response)
        environ["lamella.static.tries"] = tries + 1
        try:
            fresh = loader.load(entry.identity.root, entry.identity.relative)
        except OSError:
            return answer_busy(environ, start_response)
        if fresh is None:
            return miss(environ, start_response)
        return respond(fresh, environ, start_response)

    return respond


def _hand_over(sendfile: Sendfile, entry: FileEntry, start_response: StartResponse) -> list[bytes]:
    """Leave the sending, and with it conditions, ranges and codings, to the front server."""
    representation = entry.identity
    headers = remove_headers(representation.headers, "content-length", "etag", "last-modified", "accept-ranges", "vary")
    headers += [("Content-Length", "0"), (sendfile.header, sendfile.target(representation.path))]
    start_response("200 OK", headers)
    return [b""]


def _answer_unacceptable(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """Answer 406: the client refuses every coding there is, the identity included (section 12.5.3)."""
    headers = [("Vary", "Accept-Encoding"), ("X-Content-Type-Options", "nosniff")]
    return answer(environ, start_response, "406 Not Acceptable", b"no acceptable content coding\n", headers)


def _answer_verdict(
    verdict: int, representation: Representation, environ: WSGIEnvironment, start_response: StartResponse
) -> list[bytes]:
    """Answer 304 or 412."""
    if verdict == 304:
        start_response("304 Not Modified", representation.kept_headers.copy())
        return [b""]
    headers = [("ETag", representation.etag), ("X-Content-Type-Options", "nosniff")]
    return answer(environ, start_response, "412 Precondition Failed", b"the file is another by now\n", headers)


def _ranges(representation: Representation, environ: WSGIEnvironment, limit: int) -> list[tuple[int, int]] | None:
    """Return what of the representation is asked for; None for all of it (section 13.2.2, step 5)."""
    if_range = environ.get("HTTP_IF_RANGE")
    if if_range is not None and not if_range_holds(if_range, representation.etag_parsed, representation.modified):
        return None
    return parse_ranges(environ["HTTP_RANGE"], representation.size, limit=limit)


def _send_ranges(
    loader: Loader,
    entry: FileEntry,
    representation: Representation,
    ranges: list[tuple[int, int]],
    environ: WSGIEnvironment,
    start_response: StartResponse,
    again: Respond,
) -> Iterable[bytes]:
    """Answer 206 or 416."""
    size = representation.size
    if not ranges:
        headers = [("Content-Range", f"bytes */{size}"), ("X-Content-Type-Options", "nosniff")]
        if entry.codings:
            headers.append(("Vary", "Accept-Encoding"))
        text = b"no such part of the file\n"
        return answer(environ, start_response, "416 Range Not Satisfiable", text, headers)
    status = "206 Partial Content"
    segments: list[bytes | tuple[int, int]]
    headers = representation.headers.copy()
    body = representation.body
    if body is None and size <= SMALL:
        try:
            body = loader.read(representation)
        except OSError:
            return answer_busy(environ, start_response)
        if body is None:
            return again(entry, environ, start_response)
    if len(ranges) == 1:
        start, stop = ranges[0]
        headers[0] = ("Content-Length", str(stop - start))
        headers.append(("Content-Range", f"bytes {start}-{stop - 1}/{size}"))
        if body is not None:
            start_response(status, headers)
            return [body[start:stop]]
        segments = [(start, stop)]
    else:
        parts = multipart(headers, size, ranges, urandom(12).hex())
        if parts is None:
            status, segments = "200 OK", [(0, size)]
        else:
            headers, segments = parts
    if body is not None:
        start_response(status, headers)
        return [b"".join([part if isinstance(part, bytes) else body[part[0] : part[1]] for part in segments])]
    try:
        file = loader.open(representation)
    except OSError:
        return answer_busy(environ, start_response)
    if file is None:
        return again(entry, environ, start_response)
    start_response(status, headers)
    return FileSegments(file, segments)


def _send_file(
    loader: Loader,
    entry: FileEntry,
    representation: Representation,
    environ: WSGIEnvironment,
    start_response: StartResponse,
    again: Respond,
) -> Iterable[bytes]:
    """Answer 200 with a file that is not held in memory."""
    if environ["REQUEST_METHOD"] == "HEAD":
        start_response("200 OK", representation.headers.copy())
        return [b""]
    try:
        if representation.size <= SMALL:
            body = loader.read(representation)
            if body is None:
                return again(entry, environ, start_response)
            start_response("200 OK", representation.headers.copy())
            return [body]
        file = loader.open(representation)
    except OSError:
        return answer_busy(environ, start_response)
    if file is None:
        return again(entry, environ, start_response)
    start_response("200 OK", representation.headers.copy())
    wrapper = environ.get("wsgi.file_wrapper")
    if wrapper is not None:
        wrapped: Iterable[bytes] = wrapper(file, BLOCK)
        return wrapped
    return FileSegments(file, [(0, representation.size)])


def plain_answer(
    loader: Loader, entry: FileEntry, status: str, environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    """Answer with a whole file under another status, such as the page of a 404: no validators, no ranges."""
    representation = entry.identity
    headers: Headers = remove_headers(
        representation.headers, "etag", "last-modified", "accept-ranges", "cache-control", "vary"
    )
    headers += [("Cache-Control", "no-cache"), ("Vary", "Accept")]
    if environ["REQUEST_METHOD"] == "HEAD":
        start_response(status, headers)
        return [b""]
    body = representation.body
    if body is not None:
        start_response(status, headers)
        return [body]
    try:
        file = loader.open(representation)
    except OSError:
        file = None
    if file is None:
        return answer_busy(environ, start_response)
    start_response(status, headers)
    return FileSegments(file, [(0, representation.size)])


def places_of(mapping: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the mapping of :class:`Sendfile`, longest folder first."""
    return tuple(sorted(mapping.items(), key=lambda pair: -len(pair[0])))
