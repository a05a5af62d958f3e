"""The pure half of ``edge``: what a request must be like, and what an answer may be like."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from lamella.stack.kernel.body import BodyReader
from lamella.stack.kernel.environ import content_length
from lamella.stack.kernel.errors import BadRequestError
from lamella.stack.kernel.http import HOP_BY_HOP, is_field_value, is_token, parse_host, parse_list
from lamella.stack.kernel.paths import AmbiguousPathError, check_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from wsgiref.types import WSGIEnvironment

    from lamella.stack.kernel.response import Headers

__all__ = [
    "BadAnswerError",
    "EmptyBody",
    "clean_headers",
    "clean_status",
    "frame_body",
    "leaked_keys",
    "normal_path",
    "split_cookies",
    "strip_authority",
    "wants_websocket",
]

# What a request's own environ holds; a process variable of such a name is not ours to remove.
# fmt: off
_REQUEST_KEYS = frozenset((
    "AUTH_TYPE", "CONTENT_LENGTH", "CONTENT_TYPE", "DOCUMENT_ROOT", "GATEWAY_INTERFACE", "HTTPS",
    "PATH_INFO", "PATH_TRANSLATED", "QUERY_STRING", "RAW_URI", "REMOTE_ADDR", "REMOTE_HOST",
    "REMOTE_IDENT", "REMOTE_PORT", "REMOTE_USER", "REQUEST_METHOD", "REQUEST_SCHEME", "REQUEST_URI",
    "SCRIPT_FILENAME", "SCRIPT_NAME", "SCRIPT_URI", "SCRIPT_URL", "SERVER_ADDR", "SERVER_ADMIN",
    "SERVER_NAME", "SERVER_PORT", "SERVER_PROTOCOL", "SERVER_SIGNATURE", "SERVER_SOFTWARE",
))
# fmt: on
# RFC 6265 section 4.2.1: a comma that a server put between two Cookie fields, where "; " belongs. Values with a
# comma occur; one that is followed by a name and "=" is taken for a joint.
_JOINT = re.compile(r",[ \t]*(?=[!#$%&'*+\-.^_`|~0-9A-Za-z]+=)")
_CODE = re.compile(r"[1-9][0-9]{2}")
_DOT_SEGMENT = re.compile(r"/{2,}|/\.{1,2}(?=/|\Z)")


class BadAnswerError(Exception):
    """The app's answer must not go out."""


class EmptyBody(BodyReader):
    """The ``wsgi.input`` of a request without a body; holds nothing, so that one serves all requests."""

    def __init__(self) -> None:
        super().__init__(self, 0)


# --- requests -----------------------------------------------------------------------------------


def leaked_keys(variables: Mapping[str, str]) -> tuple[str, ...]:
    """Return the process variables that a server may have copied into its environs (wsgiref and granian do).

    Where the process itself is one request (CGI), its ``HTTP_*`` are headers.
    """
    is_cgi = "REQUEST_METHOD" in variables
    return tuple(key for key in variables if key not in _REQUEST_KEYS and not (is_cgi and key.startswith("HTTP_")))


def remove_leaks(environ: WSGIEnvironment, keys: Iterable[str]) -> None:
    """Remove the process's variables; a header of the same name stays where its value is another."""
    for key in keys:
        if not key.startswith("HTTP_") or environ.get(key) == os.environ.get(key):
            environ.pop(key, None)


def strip_authority(path_info: str) -> tuple[str, str] | None:
    """Read an absolute-form target that a server left in ``PATH_INFO`` (RFC 9112 section 3.2.2).

    Returns:
        Authority and path, or None where it is no http or https URL.

    Raises:
        BadRequestError: The authority is malformed.
    """
    scheme, separator, rest = path_info.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        return None
    authority, slash, path = rest.partition("/")
    if parse_host(authority) is None:
        raise BadRequestError("the host of the request target is malformed")
    return authority, slash + path


def frame_body(environ: WSGIEnvironment, empty: EmptyBody) -> None:
    """Give the request a ``wsgi.input`` that ends with the body, and say so.

    Raises:
        BadRequestError: 400 for a malformed length or both ways of framing (RFC 9112 section 6.3),
            411 where the server cannot tell where a chunked body ends, 501 for another coding.
    """
    coding: str = environ.get("HTTP_TRANSFER_ENCODING", "")
    length = content_length(environ)
    if coding:
        if length is not None:
            raise BadRequestError("the request has a Content-Length and a Transfer-Encoding")
        codings = [item.lower() for item in parse_list(coding)]
        if codings != ["chunked"]:
            if codings[-1:] == ["chunked"] and codings.count("chunked") == 1:
                raise BadRequestError("the transfer coding is not supported", "501 Not Implemented")
            raise BadRequestError("the transfer coding is malformed")
        if not environ.get("wsgi.input_terminated"):
            # a2wsgi hands the decoded body on and does not say so.
            if "asgi.scope" not in environ:
                raise BadRequestError("the request needs a Content-Length", "411 Length Required")
            environ["wsgi.input_terminated"] = True
    elif not environ.get("wsgi.input_terminated"):
        environ["wsgi.input"] = BodyReader(environ["wsgi.input"], length) if length else empty
        environ["wsgi.input_terminated"] = True


def wants_websocket(environ: WSGIEnvironment) -> bool:
    """Tell whether the client asks for a websocket (RFC 6455 section 4.2.1)."""
    return any(item.lower() == "websocket" for item in parse_list(environ.get("HTTP_UPGRADE", "")))


def split_cookies(cookie: str) -> str:
    """Undo a server's joining of two Cookie fields with a comma."""
    return _JOINT.sub("; ", cookie)


def normal_path(environ: WSGIEnvironment) -> str | None:
    """Return the path to redirect to where only empty and dot segments made it ambiguous, percent-encoded.

    Returns:
        An absolute path that never starts with two slashes, with the query; None where nothing can be repaired.
    """
    path: str = environ.get("PATH_INFO", "")
    script_name: str = environ.get("SCRIPT_NAME", "")
    if not path.startswith("/") or _DOT_SEGMENT.search(path) is None:
        return None
    segments: list[str] = []
    parts = path.split("/")[1:]
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part in ("", ".", ".."):
            if part == ".." and segments:
                segments.pop()
            if last:
                segments.append("")
        else:
            segments.append(part)
    repaired = "/" + "/".join(segments)
    try:
        check_path(repaired)
        check_path(script_name)
    except AmbiguousPathError:
        return None
    target = quote((script_name + repaired).encode("latin-1", "replace"), safe="/!$&'()*+,=:@-._~")
    query: str = environ.get("QUERY_STRING", "")
    return f"{target}?{quote(query.encode('latin-1', 'replace'), safe='!$&()*+,;=:@/?-._~%')}" if query else target


# --- answers ------------------------------------------------------------------------------------


def clean_status(status: object) -> str:
    """Return a status line that every server takes.

    Raises:
        BadAnswerError: It has no code of three digits, or a character that would end the line.
    """
    if isinstance(status, str) and is_field_value(status) and _CODE.fullmatch(status[:3]):
        if len(status) > 4 and status[3] == " ":
            return status
        if len(status.rstrip()) == 3:
            from http.client import responses

            return f"{status[:3]} {responses.get(int(status[:3]), 'Unknown')}"
    raise BadAnswerError(f"the status {status!r:.100} is none")


def clean_headers(headers: object) -> tuple[Headers, int | None, list[str]]:
    """Return the headers that may go out, their Content-Length, and what was dropped for which reason.

    Raises:
        BadAnswerError: A name or value would split the answer, or is no text; lengths contradict each other.
    """
    if not isinstance(headers, list):
        raise BadAnswerError("the headers are not a list")
    kept: Headers = []
    dropped: list[str] = []
    length: int | None = None
    for item in headers:
        if not (isinstance(item, tuple) and len(item) == 2 and all(isinstance(part, str) for part in item)):
            raise BadAnswerError(f"the header {item!r:.100} is not a pair of texts")
        name, value = item
        if not is_token(name):
            raise BadAnswerError(f"the header name {name!r:.100} is none")
        if not is_field_value(value):
            raise BadAnswerError(f"the value of the header {name} has a character that no header may have")
        lower = name.lower()
        if lower in HOP_BY_HOP:
            dropped.append(f"the hop-by-hop header {name}")
            continue
        if lower == "content-length":
            digits = value.strip(" \t")
            if not (digits.isascii() and digits.isdigit()) or len(digits) > 18:
                dropped.append(f"the Content-Length {digits!r:.40}, which is no number of bytes")
                continue
            if length is not None:
                if length != int(digits):
                    raise BadAnswerError("the answer has two lengths")
                continue
            length, value = int(digits), digits
        kept.append((name, value))
    return kept, length, dropped
