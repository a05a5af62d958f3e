"""Answer conditional requests: 304 where the client has the answer already, 412 where it expects another.

Adds ``ETag`` to whole answers that have no validator.

.. code-block:: toml

    [[layer]]
    use = "conditional"

Place it inside ``compress``: the tag is made of what the app sent, and nothing compressed is held
back for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from typing import TYPE_CHECKING

from lamella.stack.kernel.conditional import evaluate, has_precondition, not_modified_headers, parse_etag
from lamella.stack.kernel.environ import direct
from lamella.stack.kernel.http import ETag, parse_date, parse_list
from lamella.stack.kernel.options import Size, flag, size
from lamella.stack.kernel.order import Inside
from lamella.stack.kernel.response import ExcInfo, Headers, answer, close, get_header, substitute

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["ConditionalMiddleware"]


class ConditionalMiddleware:
    """Evaluate the preconditions of GET and HEAD requests, in the order of RFC 9110 section 13.2.2.

    An answer with status 200 or 206 is compared by its own ``ETag`` and ``Last-Modified``. One
    without either gets an ``ETag``, where the app returned its whole content as a list, or as one
    block of the length it promised: a stream is never held back for it. Other methods pass: only
    the app knows what they would change.

    Args:
        app: The application inside.
        weak: Make weak tags, for answers that a layer outside changes without changing their meaning.
        max_size: Longest content to make a tag of.

    Raises:
        ConfigError: *max_size* is no size.
    """

    provides = ()
    requires = ()
    order = (Inside("compress", "L107", "outside, it would wait for the compressed stream, and miss its tags"),)
    streams = True

    def __init__(self, app: WSGIApplication, *, weak: bool = False, max_size: Size = "4 MiB") -> None:
        flag("weak", weak)
        longest = size("max_size", max_size)
        inner = direct(app)

        def wsgi_closure(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            method = environ["REQUEST_METHOD"]
            if method != "GET" and method != "HEAD":
                return inner(environ, start_response)
            if not has_precondition(environ):
                return _with_etag(inner, environ, start_response, longest, weak)
            request = environ.copy()

            def tagged(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
                return _with_etag(inner, environ, start_response, longest, weak)

            return substitute(
                tagged, environ, start_response, lambda status, headers: _verdict(request, status, headers)
            )

        self.wsgi_closure = wsgi_closure

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self.wsgi_closure(environ, start_response)


def _verdict(environ: WSGIEnvironment, status: str, headers: Headers) -> WSGIApplication | None:
    """Return what answers instead of the app's 200 or 206; None to let it pass.

    Section 13.2.1: preconditions count only where the answer without them is a success.
    """
    if not status.startswith(("200", "206")):
        return None
    etag_field = get_header(headers, "etag")
    modified_field = get_header(headers, "last-modified")
    etag = parse_etag(etag_field) if etag_field else None
    modified = parse_date(modified_field) if modified_field else None
    verdict = evaluate(environ, etag, modified)
    if verdict == 304:
        kept = not_modified_headers(headers)
        return lambda environ, start_response: answer(environ, start_response, "304 Not Modified", b"", kept)
    if verdict == 412:
        mine = [header for header in headers if header[0].lower() in ("etag", "set-cookie")]
        text = b"the answer is another by now\n"
        return lambda environ, start_response: answer(environ, start_response, "412 Precondition Failed", text, mine)
    return None


def _with_etag(
    inner: WSGIApplication, environ: WSGIEnvironment, start_response: StartResponse, longest: int, weak: bool
) -> Iterable[bytes]:
    """Call *inner*, and add an ETag where it answers with a list and says none."""
    exchange = _Exchange(start_response)
    wrapper = environ.get("wsgi.file_wrapper")
    may_tag_blocks = environ["REQUEST_METHOD"] == "GET"
    body = inner(environ, exchange.start)
    held = exchange.held
    if held is None:
        exchange.open = True  # it starts later, or has written already
        return body
    status, headers, exc_info = held
    if _wants_etag(status, headers):
        promised = get_header(headers, "content-length")
        if type(body) is list or type(body) is tuple:
            length = sum(map(len, body))
            # The content of a HEAD is not there to be seen, and the tag of its GET must not differ.
            if 0 < length <= longest and (promised is None or promised == str(length)):
                headers = [*headers, ("ETag", _etag_of(body, weak))]
        elif (
            promised is not None
            and may_tag_blocks
            and _is_between(promised, 1, longest)
            and not (isinstance(wrapper, type) and isinstance(body, wrapper))
        ):
            return _TaggedBody(body, exchange, int(promised), weak)
    try:
        exchange.hand_on(status, headers, exc_info)
    except BaseException:  # the server refuses the headers, and never sees the body
        close(body)
        raise
    return body


def _etag_of(blocks: Iterable[bytes], weak: bool) -> str:
    """Return an ETag made of the content."""
    digest = blake2b(digest_size=16)
    for block in blocks:
        digest.update(block)
    return str(ETag(digest.hexdigest(), weak))


def _is_between(text: str, least: int, most: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19 and least <= int(text) <= most


def _wants_etag(status: str, headers: Headers) -> bool:
    """Tell whether an answer is complete, may be stored, and has no validator yet."""
    if not status.startswith("200"):
        return False
    for name, value in headers:
        name = name.lower()
        if name == "etag" or name == "last-modified":
            return False
        if name == "cache-control" and "no-store" in (item.lower() for item in parse_list(value)):
            return False
    return True


class _Exchange:
    """Keeps ``start_response`` back until it is known what the app returned."""

    __slots__ = ("_start_response", "_write", "held", "open")

    def __init__(self, start_response: StartResponse) -> None:
        self._start_response = start_response
        self._write: Callable[[bytes], object] | None = None
        #: What the app said, while it is kept back.
        self.held: tuple[str, Headers, ExcInfo] | None = None
        #: Whether it goes through from now on.
        self.open = False

    def start(self, status: str, headers: Headers, exc_info: ExcInfo = None, /) -> Callable[[bytes], object]:
        if not self.open:
            if self.held is not None and exc_info is None:
                raise AssertionError("start_response was called twice without exc_info")
            self.held = (status, headers, exc_info)
            return self.write
        return self.hand_on(status, headers, exc_info)

    def hand_on(self, status: str, headers: Headers, exc_info: ExcInfo) -> Callable[[bytes], object]:
        """Tell the outer ``start_response``, from now on at once."""
        self.open = True
        if exc_info is None:
            self._write = self._start_response(status, headers)
        else:
            self._write = self._start_response(status, headers, exc_info)
        return self._write

    def write(self, data: bytes, /) -> object:
        """The ``write()`` of an answer that was kept back: it cannot be any longer."""
        held, self.held = self.held, None
        if held is not None and not self.open:
            self.hand_on(*held)
        return None if self._write is None else self._write(data)


class _TaggedBody:
    """A body of known length: where its first block is all of it, the answer starts there, with a tag.

    Flask and Django return no list, but one block and its ``Content-Length``. Nothing is held back:
    the block goes out when it comes, as from an app that starts late.
    """

    __slots__ = ("_body", "_exchange", "_iterator", "_length", "_weak")

    def __init__(self, body: Iterable[bytes], exchange: _Exchange, length: int, weak: bool) -> None:
        self._body = body
        self._exchange = exchange
        self._iterator: Iterator[bytes] | None = None
        self._length = length
        self._weak = weak

    def __iter__(self) -> _TaggedBody:
        return self

    def __next__(self) -> bytes:
        if self._iterator is None:
            self._iterator = iter(self._body)
            try:
                block = next(self._iterator)
            except StopIteration:
                self._start(b"")
                raise
            self._start(block)
            return block
        return next(self._iterator)

    def _start(self, block: bytes) -> None:
        held = self._exchange.held
        if self._exchange.open or held is None:  # it has written, and so started
            return
        status, headers, exc_info = held
        if len(block) == self._length and _wants_etag(status, headers):
            headers = [*headers, ("ETag", _etag_of((block,), self._weak))]
        self._exchange.hand_on(status, headers, exc_info)

    def close(self) -> None:
        """Close the inner body."""
        close(self._body)
