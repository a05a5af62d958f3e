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
from lamella.stack.kernel.http import parse_date, parse_list
from lamella.stack.kernel.options import Size, flag, size
from lamella.stack.kernel.order import Inside
from lamella.stack.kernel.response import ExcInfo, Headers, answer, close, get_header, name_kinds, substitute

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["ConditionalMiddleware"]

#: What an exchange holds at first.
_NOTHING: tuple[str, Headers, ExcInfo] | None = None
_kinds, _kind_of = name_kinds(("ETag", "Last-Modified", "Content-Length", "Cache-Control"))


class ConditionalMiddleware:
    """Evaluate the preconditions of GET and HEAD requests, in the order of RFC 9110 section 13.2.2.

    An answer with status 200 or 206 is compared by its own ``ETag`` and ``Last-Modified``. One
    without either gets an ``ETag``, where the app returned its whole content as a list, or as one
    block of the length it promised: a stream is never held back for it. Other methods pass: only
    the app knows what they would change.

    Args:
        app: The application inside.
        etag: Make tags for answers without a validator. Turn it off where no two answers are alike; those of the app's
            own are compared all the same.
        weak: Make weak tags, for answers that a layer outside changes without changing their meaning.
        max_size: Longest content to make a tag of.

    Raises:
        ConfigError: *max_size* is no size, *etag* or *weak* no truth value.
    """

    provides = ()
    requires = ()
    order = (Inside("compress", "L107", "outside, it would wait for the compressed stream, and miss its tags"),)
    streams = True

    def __init__(
        self, app: WSGIApplication, *, etag: bool = True, weak: bool = False, max_size: Size = "4 MiB"
    ) -> None:
        flag("etag", etag)
        flag("weak", weak)
        longest = size("max_size", max_size)
        inner = direct(app)
        mark = 'W/"' if weak else '"'
        prepared = blake2b(digest_size=16)

        def tag_of(blocks: Iterable[bytes]) -> tuple[str, str]:
            """Return an ETag made of the content."""
            digest = prepared.copy()
            for block in blocks:
                digest.update(block)
            return "ETag", f'{mark}{digest.hexdigest()}"'

        def tagged(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            """Call the app, and add an ETag to a whole answer that has no validator."""
            method = environ["REQUEST_METHOD"]
            wrapper = environ.get("wsgi.file_wrapper")
            exchange = _Exchange()
            exchange.start_response = start_response
            exchange.held, exchange.write = _NOTHING, None
            body = inner(environ, exchange.start)
            held = exchange.held
            if held is None:
                exchange.open()  # it starts later, or has written already
                return body
            status, headers, exc_info = held
            promised = _untagged(status, headers)
            if promised is not None:
                if type(body) is list or type(body) is tuple:
                    length = len(body[0]) if len(body) == 1 else sum(map(len, body))
                    # The content of a HEAD is not there to be seen, and the tag of its GET must not differ.
                    if 0 < length <= longest and (not promised or promised == str(length)):
                        headers = [*headers, tag_of(body)]
                elif (
                    method == "GET"
                    and _is_between(promised, 1, longest)
                    and not (isinstance(wrapper, type) and isinstance(body, wrapper))
                ):
                    return _TaggedBody(body, exchange, int(promised), tag_of)
            try:
                if exc_info is None:
                    exchange.write = start_response(status, headers)
                else:
                    exchange.hand_on(status, headers, exc_info)
            except BaseException:  # the server refuses the headers, and never sees the body
                close(body)
                raise
            return body

        answer_to = tagged if etag else inner

        def wsgi_closure(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            method = environ["REQUEST_METHOD"]
            if method != "GET" and method != "HEAD":
                return inner(environ, start_response)
            if not has_precondition(environ):
                return answer_to(environ, start_response)
            request = environ.copy()
            return substitute(
                answer_to, environ, start_response, lambda status, headers: _verdict(request, status, headers)
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


def _is_between(text: str, least: int, most: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19 and least <= int(text) <= most


def _untagged(status: str, headers: Headers) -> str | None:
    """Return the Content-Length, or ``""``, of an answer that is complete, may be stored, and has no validator yet."""
    if status != "200 OK" and not status.startswith("200"):
        return None
    promised = ""
    for name, value in headers:
        kind = _kinds.get(name)
        if kind is None:
            kind = _kind_of(name)
        if kind == "content-length":
            promised = f"{promised}, {value}" if promised else value
        elif kind and (kind != "cache-control" or "no-store" in (item.lower() for item in parse_list(value))):
            return None
    return promised


class _Exchange:
    """Keeps ``start_response`` back until it is known what the app returned."""

    __slots__ = ("held", "start_response", "write")

    # Set by the layer for each request; an __init__ would cost 2,000 instructions of 11,000.
    start_response: StartResponse
    #: What the app said, while it is kept back.
    held: tuple[str, Headers, ExcInfo] | None
    #: What sends content; set where the answer goes through from now on.
    write: Callable[[bytes], object] | None

    def start(self, status: str, headers: Headers, exc_info: ExcInfo = None, /) -> Callable[[bytes], object]:
        """The ``start_response`` that the app gets."""
        if self.write is None:
            if self.held is not None and exc_info is None:
                raise AssertionError("start_response was called twice without exc_info")
            self.held = status, headers, exc_info
            return self
        return self.hand_on(status, headers, exc_info)

    def open(self) -> None:
        """Keep nothing back that comes from now on."""
        if self.write is None:
            self.write = _too_early

    def hand_on(self, status: str, headers: Headers, exc_info: ExcInfo) -> Callable[[bytes], object]:
        """Tell the outer ``start_response``, from now on at once."""
        self.open()
        if exc_info is None:
            self.write = self.start_response(status, headers)
        else:
            self.write = self.start_response(status, headers, exc_info)
        return self.write

    def __call__(self, data: bytes, /) -> object:
        """The ``write()`` of an answer that was kept back: it cannot be any longer."""
        held, self.held = self.held, None
        if held is not None and self.write is None:
            self.hand_on(*held)
        return None if self.write is None else self.write(data)


def _too_early(data: bytes, /) -> None:
    """Stands for a ``write()`` that the server has not given yet; nobody has it who could call it."""


class _TaggedBody:
    """A body of known length: where its first block is all of it, the answer starts there, with a tag.

    Flask and Django return no list, but one block and its ``Content-Length``. Nothing is held back:
    the block goes out when it comes, as from an app that starts late.
    """

    __slots__ = ("_body", "_exchange", "_iterator", "_length", "_tag_of")

    def __init__(
        self,
        body: Iterable[bytes],
        exchange: _Exchange,
        length: int,
        tag_of: Callable[[Iterable[bytes]], tuple[str, str]],
    ) -> None:
        self._body = body
        self._exchange = exchange
        self._iterator: Iterator[bytes] | None = None
        self._length = length
        self._tag_of = tag_of

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
        if self._exchange.write is not None or held is None:  # it has written, and so started
            return
        status, headers, exc_info = held
        if len(block) == self._length and _untagged(status, headers) is not None:
            headers = [*headers, self._tag_of((block,))]
        self._exchange.hand_on(status, headers, exc_info)

    def close(self) -> None:
        """Close the inner body."""
        close(self._body)
