"""The pure half of the ASGI bridge: an environ becomes a scope, ASGI headers become WSGI ones."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_to_bytes

from lamella.stack.kernel.errors import BadRequestError
from lamella.stack.kernel.http import is_field_value, is_token, parse_list

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from wsgiref.types import WSGIEnvironment

    from lamella.stack.kernel.response import Headers

__all__ = ["http_scope", "response_headers", "status_line", "wants_websocket"]

#: ASGI 3.0; the HTTP messages are those of 2.4, in which ``send()`` after a disconnect raises an OSError.
ASGI = {"version": "3.0", "spec_version": "2.4"}

# RFC 3986 section 3.3: what stands in a path as it is.
_PATH_SAFE = "/!$&'()*+,;=:@-._~"
# What no query has: control characters and space; 8-bit characters are looked at one by one.
_NOT_IN_QUERY = re.compile(r"[\x00-\x20\x7f]")
_EIGHT_BIT = re.compile(r"[^\x00-\x7f]+")


def http_scope(environ: WSGIEnvironment, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scope of one request.

    Args:
        environ: The request.
        state: What the app's lifespan left; each request gets a shallow copy.

    Raises:
        BadRequestError: The path is not UTF-8 or not absolute, or the query cannot be one.
    """
    root_path = _decoded(environ.get("SCRIPT_NAME", ""))
    path_info: str = environ.get("PATH_INFO", "")
    if path_info and not path_info.startswith("/"):
        raise BadRequestError("the path does not start with a slash")
    path = root_path + _decoded(path_info)
    protocol: str = environ.get("SERVER_PROTOCOL", "HTTP/1.1")
    version = protocol.rpartition("/")[2]
    return {
        "type": "http",
        "asgi": dict(ASGI),
        "http_version": "2" if version == "2.0" else version,
        "method": environ["REQUEST_METHOD"].upper(),
        "scheme": environ.get("wsgi.url_scheme", "http"),
        # The whole path: ASGI's `path` holds `root_path`, where PEP 3333 cuts SCRIPT_NAME off.
        "path": path or "/",
        "raw_path": _raw_path(environ, path or "/"),
        "query_string": _query(environ.get("QUERY_STRING", "")),
        "root_path": root_path,
        "headers": _request_headers(environ),
        "client": _address(environ.get("REMOTE_ADDR"), environ.get("REMOTE_PORT")),
        "server": _address(environ.get("SERVER_NAME"), environ.get("SERVER_PORT")),
        "state": dict(state),
        "extensions": {},
    }


def _decoded(path: str) -> str:
    """Undo the latin-1 of PEP 3333."""
    if path.isascii():
        return path
    try:
        return path.encode("latin-1").decode("utf-8")
    except UnicodeError:
        raise BadRequestError("the path is not UTF-8") from None


def _raw_path(environ: WSGIEnvironment, path: str) -> bytes:
    """Return the path as the client wrote it, where the server tells; else as it is written."""
    sent: object = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if isinstance(sent, str) and sent.startswith("/") and sent.isascii():
        raw = sent.partition("?")[0]
        # A layer outside may have moved the request: then what the client wrote is another path.
        if unquote_to_bytes(raw) == path.encode("utf-8", "replace"):
            return raw.encode("ascii")
    return quote(path, safe=_PATH_SAFE).encode("ascii")


def _query(query: str) -> bytes:
    """Return the query; UTF-8 that a client left unencoded (as curl does) is percent-encoded."""
    if query.isascii() and _NOT_IN_QUERY.search(query) is None:
        return query.encode("ascii")
    if _NOT_IN_QUERY.search(query) is not None:
        raise BadRequestError("the query has a character that no address may have")
    try:
        query.encode("latin-1").decode("utf-8")
        encoded = _EIGHT_BIT.sub(lambda found: quote(found[0].encode("latin-1")), query)
    except UnicodeError:
        raise BadRequestError("the query is not UTF-8") from None
    return encoded.encode("ascii")


def _request_headers(environ: WSGIEnvironment) -> list[tuple[bytes, bytes]]:
    """Return the fields, their names in lower case; each once, as a WSGI server has joined equal names."""
    found = []
    for key, value in environ.items():
        if key.startswith("HTTP_"):
            name = key[5:]
            if name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
                continue  # the server's own variables are what it framed the body by
        elif key in ("CONTENT_TYPE", "CONTENT_LENGTH") and value:
            name = key
        else:
            continue
        if isinstance(value, str):
            name = name.replace("_", "-").lower()
            found.append((name.encode("latin-1", "replace"), value.encode("latin-1", "replace")))
    return found


def _address(host: str | None, port: str | int | None) -> tuple[str, int | None] | None:
    """Return host and port; None where the host is not known (a client on a unix socket has none)."""
    if not host:
        return None
    text = str(port or "")
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
    return host, number


def wants_websocket(environ: WSGIEnvironment) -> bool:
    """Tell whether the client asks for a websocket (RFC 6455 section 4.1)."""
    upgrade: str = environ.get("HTTP_UPGRADE", "")
    return any(protocol.strip().lower() == "websocket" for protocol in parse_list(upgrade))


def status_line(status: object) -> str:
    """Return the status line for a code.

    Raises:
        ValueError: Not a status code of a final answer.
    """
    if not isinstance(status, int) or not 200 <= status <= 599:
        raise ValueError(f"http.response.start: expected a status from 200 to 599, not {status!r}")
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    return f"{int(status)} {phrase}"


def response_headers(fields: Iterable[Iterable[bytes]]) -> tuple[Headers, int | None]:
    """Return the headers for ``start_response``, and the Content-Length among them.

    Hop-by-hop fields of the connection are the server's (PEP 3333) and are left out.

    Raises:
        ValueError: A name or value that no header may have.
    """
    headers: Headers = []
    length: int | None = None
    for field in fields:
        raw_name, raw_value = field
        name, value = bytes(raw_name).decode("latin-1"), bytes(raw_value).decode("latin-1").strip(" \t")
        if not is_token(name):
            raise ValueError(f"http.response.start: {name!r} is not a header name")
        if not is_field_value(value):
            raise ValueError(f"http.response.start: the value of {name} has a character that no header may have")
        lower = name.lower()
        if lower in _HOP_BY_HOP:
            continue
        if lower == "content-length":
            if not (value.isascii() and value.isdigit() and len(value) < 19) or length not in (None, int(value)):
                raise ValueError(f"http.response.start: the Content-Length {value!r} is not a number of bytes")
            if length is not None:
                continue
            length = int(value)
        headers.append((name, value))
    return headers, length


# RFC 9110 section 7.6.1, and what came before it.
_HOP_BY_HOP = frozenset(
    {
        "connection", "keep-alive", "proxy-authenticate", "proxy-connection",
        "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
