"""Compress answers with zstd, Brotli or gzip, as the client likes best, without holding a block back.

Sets ``Content-Encoding``, and ``Vary: Accept-Encoding`` on whatever could be compressed.

.. code-block:: toml

    [[layer]]
    use = "compress"

Place it outside what makes answers, ``session`` and ``conditional`` among it. Files that were
compressed beforehand are better served by ``static``; both get along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from lamella.stack.kernel.environ import direct
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.http import accepted_codings, parse_list
from lamella.stack.kernel.options import Size, choice, size, strings
from lamella.stack.kernel.order import Outside
from lamella.stack.kernel.response import ExcInfo, Headers, add_vary, close, get_header, has_body

from ._compressors import CODINGS, Compressor, PaddedGzip, maker

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["CompressMiddleware"]

#: Types that shrink. Images, audio, video, fonts in WOFF and archives are compressed already.
_TYPES = (
    "text/*",
    "application/json",
    "application/javascript",
    "application/xml",
    "application/wasm",
    "application/manifest+json",
    "application/x-ndjson",
    "application/graphql-response+json",
    "image/svg+xml",
    "image/bmp",
    "font/ttf",
    "font/otf",
    "*+json",
    "*+xml",
)
#: An event stream is decoded event by event, by clients that often cannot decompress.
_NEVER = frozenset({"text/event-stream"})
#: Fields that describe the bytes as they were (RFC 9110 sections 8.6 and 14.3; RFC 9530).
_OF_THE_BYTES = frozenset({"content-length", "accept-ranges", "content-md5", "digest", "content-digest"})
_REMEMBERED = 256


class CompressMiddleware:
    """Compress what shrinks, for clients that can decode it.

    Args:
        app: The application inside.
        encodings: Codings to use, the favourite first: of ``"zstd"`` and ``"br"`` (extra ``compress``),
            ``"gzip"``. The client's weights come before this order.
        min_size: Answers known to be shorter are left alone.
        types: Media types to compress; ``text/*`` and ``*+json`` are patterns. Event streams never are.
        breach: ``"pad"``: an answer that is somebody's own (it sets a cookie, depends on one, or is
            private) is only compressed with gzip, padded at random, so that its length says little of
            the secrets in it. ``"off"``: it is compressed like any other.

    Raises:
        ConfigError: An option is malformed.
        MissingExtraError: A coding's library is not installed.
    """

    provides = ()
    requires = ()
    order = (
        Outside(
            "conditional", "L107", "a tag made outside would be that of the compressed bytes, and need all of them"
        ),
        Outside("session", "L120", "it could not see that an answer is somebody's own"),
    )
    streams = True

    def __init__(
        self,
        app: WSGIApplication,
        *,
        encodings: Iterable[str] = CODINGS,
        min_size: Size = "500 B",
        types: Iterable[str] = _TYPES,
        breach: str = "pad",
    ) -> None:
        codings = tuple(dict.fromkeys(strings("encodings", encodings)))
        for coding in codings:
            choice("encodings", coding, CODINGS)
        if not codings:
            raise ConfigError("encodings", [], "at least one coding")
        makers = {coding: maker(coding) for coding in codings}
        least = size("min_size", min_size)
        is_compressible = _type_test(strings("types", types, _is_type, 'media types such as "text/*"'))
        pads = choice("breach", breach, ("pad", "off")) == "pad"
        inner = direct(app)
        remembered: dict[str, list[str]] = {}

        def acceptable(accept_encoding: str) -> list[str]:
            found = remembered.get(accept_encoding)
            if found is None:
                found = accepted_codings(accept_encoding, codings)
                if len(remembered) < _REMEMBERED and len(accept_encoding) < 200:
                    remembered[accept_encoding] = found
            return found

        def make(environ: WSGIEnvironment, status: str, headers: Headers) -> tuple[Headers, Compressor | None, str]:
            """Decide for one answer: its headers, and what compresses it with which coding."""
            accept = environ.get("HTTP_ACCEPT_ENCODING")
            if status.startswith("304"):
                return _unchanged(environ, headers, accept is not None and acceptable(accept)[:1]), None, ""
            if not _could_shrink(status, headers, is_compressible, least):
                return headers, None, ""
            headers = add_vary(headers, "Accept-Encoding")
            wanted = acceptable(accept) if accept is not None else []
            coding = wanted[0] if wanted else "identity"
            if coding == "identity":
                return headers, None, ""
            if pads and _is_private(headers):
                if "gzip" not in wanted:
                    return headers, None, ""
                return headers, PaddedGzip(), "gzip"
            return headers, makers[coding](), coding

        def wsgi_closure(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            exchange = _Exchange(environ, start_response, make)
            body = inner(environ, exchange.start)
            return exchange.body(body)

        self.wsgi_closure = wsgi_closure

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self.wsgi_closure(environ, start_response)


Make = Callable[["WSGIEnvironment", str, Headers], tuple[Headers, "Compressor | None", str]]


class _Exchange:
    """One answer: its start is held back until the app has returned, so that a whole body keeps its length."""

    __slots__ = ("_compressor", "_environ", "_held", "_make", "_returned", "_start_response", "_write", "is_head")

    def __init__(self, environ: WSGIEnvironment, start_response: StartResponse, make: Make) -> None:
        self._environ = environ
        self.is_head = environ.get("REQUEST_METHOD") == "HEAD"  # now: the app may do to environ what it wants
        self._start_response = start_response
        self._make = make
        self._compressor: Compressor | None = None
        self._held: tuple[str, Headers, str, ExcInfo] | None = None
        self._returned = False
        self._write: Callable[[bytes], object] | None = None

    def start(self, status: str, headers: Headers, exc_info: ExcInfo = None, /) -> Callable[[bytes], object]:
        """``start_response`` for the app inside."""
        if self._write is not None:  # begun already: the server decides what a second call is worth
            return self._begin(status, headers, exc_info)
        headers, self._compressor, coding = self._make(self._environ, status, headers)
        if self._compressor is None:
            self._held = None
            self._write = self._begin(status, headers, exc_info)
            return self._write
        if self._held is not None and exc_info is None:
            return self._begin(status, headers, None)  # twice without exc_info: let the server say so
        self._held = (status, headers, coding, exc_info)
        if self._returned:
            self._release()
        return self._write_compressed

    def _begin(self, status: str, headers: Headers, exc_info: ExcInfo) -> Callable[[bytes], object]:
        if exc_info is None:
            return self._start_response(status, headers)
        return self._start_response(status, headers, exc_info)

    def _release(self, length: int | None = None) -> None:
        """Start the compressed answer."""
        if self._held is None:
            return
        (status, headers, coding, exc_info), self._held = self._held, None
        fields = _encoded(headers, coding)
        if length is not None:
            fields.append(("Content-Length", str(length)))
        self._write = self._begin(status, fields, exc_info)

    def _write_compressed(self, data: bytes, /) -> object:
        self._release()
        if self._write is None or self._compressor is None:
            return None
        return self._write(data if self.is_head else self._compressor.block(data))

    def body(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """Return what the server iterates."""
        self._returned = True
        if self._held is not None and not self.is_head and type(body) in (list, tuple) and len(body) == 1:  # type: ignore[arg-type]
            return self._whole(next(iter(body)))
        try:
            self._release()
        except BaseException:
            close(body)  # the server refused the headers, and will never see this body
            raise
        if self._write is not None and (self._compressor is None or self.is_head):
            return body
        return _Compressed(body, self)

    def _whole(self, data: bytes) -> list[bytes]:
        """A body of one block: compressed at once, with its true length, if that is shorter at all."""
        if self._held is None or self._compressor is None:
            return [data]
        compressed = self._compressor.last(data)
        if len(compressed) < len(data):
            self._release(len(compressed))
            return [compressed]
        (status, headers, _, exc_info), self._held = self._held, None
        self._compressor = None
        self._write = self._begin(status, headers, exc_info)
        return [data]


class _Compressed:
    """The body, block by block: each is flushed, none is held back."""

    __slots__ = ("_body", "_ended", "_exchange", "_iterator")

    def __init__(self, body: Iterable[bytes], exchange: _Exchange) -> None:
        self._body = body
        self._exchange = exchange
        self._iterator: Iterator[bytes] | None = None
        self._ended = False

    def __iter__(self) -> _Compressed:
        return self

    def __next__(self) -> bytes:
        if self._ended:
            raise StopIteration
        if self._iterator is None:
            self._iterator = iter(self._body)
        block = next(self._iterator, None)
        # An app that starts late has made the compressor only now.
        exchange = self._exchange
        compressor = None if exchange.is_head else exchange._compressor
        if block is None:
            self._ended = True
            if compressor is None:
                raise StopIteration
            return compressor.last()
        return block if compressor is None or not block else compressor.block(block)

    def close(self) -> None:
        close(self._body)


def _could_shrink(status: str, headers: Headers, is_compressible: Callable[[str], bool], least: int) -> bool:
    """Tell whether an answer could be compressed for some client."""
    if not has_body(status) or status.startswith("206"):
        return False
    content_type = ""
    for name, value in headers:
        lower = name.lower()
        if lower == "content-type":
            content_type = value
        elif (
            lower in ("content-encoding", "content-range")
            or (lower == "content-length" and value.isdigit() and int(value) < least)
            or (lower == "cache-control" and "no-transform" in _directives(value))  # RFC 9111 section 5.2.2.6
        ):
            return False
    return bool(content_type) and is_compressible(content_type)


def _directives(cache_control: str) -> set[str]:
    return {item.partition("=")[0].strip().lower() for item in parse_list(cache_control)}


def _is_private(headers: Headers) -> bool:
    """Tell whether an answer is one person's: it may hold a secret beside what an attacker chose."""
    if get_header(headers, "set-cookie") is not None:
        return True
    if _directives(get_header(headers, "cache-control") or "") & {"private", "no-store"}:
        return True
    return bool({"cookie", "authorization"} & {name.lower() for name in parse_list(get_header(headers, "vary") or "")})


def _encoded(headers: Headers, coding: str) -> Headers:
    """The headers of the compressed answer; a strong tag becomes weak, for its bytes are others now."""
    fields = [_weakened(header) for header in headers if header[0].lower() not in _OF_THE_BYTES]
    fields.append(("Content-Encoding", coding))
    return fields


def _weakened(header: tuple[str, str]) -> tuple[str, str]:
    name, value = header
    return (name, "W/" + value) if name.lower() == "etag" and value.startswith('"') else header


def _unchanged(environ: WSGIEnvironment, headers: Headers, wanted: Any) -> Headers:
    """A 304 has the tag and the Vary of the answer that the client has kept (RFC 9110 section 15.4.5)."""
    if not wanted or wanted == ["identity"]:
        return headers
    tag = get_header(headers, "etag")
    sent = parse_list(environ.get("HTTP_IF_NONE_MATCH", ""))
    if tag is None or "W/" + tag.removeprefix("W/") not in sent:
        return headers
    return add_vary([_weakened(header) for header in headers], "Accept-Encoding")


def _is_type(text: str) -> bool:
    kind, slash, subtype = text.partition("/")
    return (bool(slash) and bool(kind) and bool(subtype)) or text.startswith("*+")


def _type_test(types: tuple[str, ...]) -> Callable[[str], bool]:
    exact = frozenset(item.lower() for item in types if "*" not in item)
    prefixes = tuple(item[:-1].lower() for item in types if item.endswith("/*"))
    suffixes = tuple(item[1:].lower() for item in types if item.startswith("*+"))
    remembered: dict[str, bool] = {}

    def matches(content_type: str) -> bool:
        known = remembered.get(content_type)
        if known is None:
            media_type = content_type.partition(";")[0].strip().lower()
            found = media_type in exact or media_type.startswith(prefixes) or media_type.endswith(suffixes)
            known = found and media_type not in _NEVER
            if len(remembered) < _REMEMBERED:
                remembered[content_type] = known
        return known

    return matches
