"""Compress answers with zstd, Brotli or gzip, as the client likes best, without holding a block back.

Sets ``Content-Encoding``, and ``Vary: Accept-Encoding`` on whatever could be compressed.

.. code-block:: toml

    [[layer]]
    use = "compress"

Place it outside what makes answers, ``session`` and ``conditional`` among it. Files that were
compressed beforehand are better served by ``static``; both get along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from lamella.stack.kernel.environ import direct
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.http import accepted_codings, parse_list
from lamella.stack.kernel.options import Size, choice, size, strings
from lamella.stack.kernel.order import Outside
from lamella.stack.kernel.response import add_vary, get_header, has_body, name_kinds

from ._compress_exchange import Exchange, weakened
from ._compressors import CODINGS, Compressor, PaddedGzip, maker

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from lamella.stack.kernel.response import ExcInfo, Headers

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
        Outside("session", "L112", "it could not see that an answer is somebody's own"),
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
        could_shrink = _shrink_test(is_compressible, least)
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

        def make(
            environ: WSGIEnvironment, wanted: Sequence[str], status: str, headers: Headers
        ) -> tuple[Headers, Compressor | None, str]:
            """Decide for one answer: its headers, and what compresses it with which coding."""
            if status.startswith("304"):
                return _unchanged(environ, headers), None, ""
            if not could_shrink(status, headers):
                return headers, None, ""
            headers = add_vary(headers, "Accept-Encoding")
            if pads and _is_private(headers):
                if "gzip" not in wanted:
                    return headers, None, ""
                return headers, PaddedGzip(), "gzip"
            return headers, makers[wanted[0]](), wanted[0]

        def wsgi_closure(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            accept = environ.get("HTTP_ACCEPT_ENCODING", "")
            wanted = remembered.get(accept)
            if wanted is None:
                wanted = acceptable(accept)
            if wanted and wanted[0] != "identity":
                exchange = Exchange(environ, start_response, make, wanted)
                return exchange.body(inner(environ, exchange.start))

            # Nothing is compressed; a cache must know that for others it may be.
            def start(status: str, headers: Headers, exc_info: ExcInfo = None, /) -> Callable[[bytes], object]:
                if could_shrink(status, headers):
                    headers = add_vary(headers, "Accept-Encoding")
                if exc_info is None:
                    return start_response(status, headers)
                return start_response(status, headers, exc_info)

            return inner(environ, start)

        self.wsgi_closure = wsgi_closure

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self.wsgi_closure(environ, start_response)


def _shrink_test(is_compressible: Callable[[str], bool], least: int) -> Callable[[str, Headers], bool]:
    """Return what tells whether an answer could be compressed for some client."""
    kinds, kind_of = name_kinds(
        ("Content-Type", "Content-Encoding", "Content-Range", "Content-Length", "Cache-Control")
    )
    smallest = str(least)
    digits = len(smallest)

    def could_shrink(status: str, headers: Headers) -> bool:
        if status != "200 OK" and (not has_body(status) or status.startswith("206")):
            return False
        content_type = ""
        for name, value in headers:
            kind = kinds[name] if name in kinds else kind_of(name)
            if not kind:
                continue
            if kind == "content-type":
                content_type = value
            elif kind == "content-length":
                # Of as many digits, the smaller number comes first as text too.
                if (len(value) < digits or (len(value) == digits and value < smallest)) and value.isdigit():
                    return False
            elif kind != "cache-control" or "no-transform" in _directives(value):  # RFC 9111 section 5.2.2.6
                return False
        return bool(content_type) and is_compressible(content_type)

    return could_shrink


def _directives(cache_control: str) -> set[str]:
    return {item.partition("=")[0].strip().lower() for item in parse_list(cache_control)}


def _is_private(headers: Headers) -> bool:
    """Tell whether an answer is one person's: it may hold a secret beside what an attacker chose."""
    if get_header(headers, "set-cookie") is not None:
        return True
    if _directives(get_header(headers, "cache-control") or "") & {"private", "no-store"}:
        return True
    return bool({"cookie", "authorization"} & {name.lower() for name in parse_list(get_header(headers, "vary") or "")})


def _unchanged(environ: WSGIEnvironment, headers: Headers) -> Headers:
    """A 304 has the tag and the Vary of the answer that the client has kept (RFC 9110 section 15.4.5)."""
    tag = get_header(headers, "etag")
    sent = parse_list(environ.get("HTTP_IF_NONE_MATCH", ""))
    if tag is None or "W/" + tag.removeprefix("W/") not in sent:
        return headers
    return add_vary([weakened(header) for header in headers], "Accept-Encoding")


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
