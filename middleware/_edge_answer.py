"""The answer half of ``edge``: what is right goes through as it is, anything else becomes an exchange."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from lamella.stack.kernel.response import close

from ._edge_exchange import LENGTH, MEMO_SIZE, NAMES, STATUSES, STEADY, Exchange

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from lamella.stack.kernel.response import ExcInfo, Headers

__all__ = ["NOT_YET", "PlainAnswer", "send"]

#: The status of an answer that was not begun.
NOT_YET: str | None = None
#: Values that were found good, of fields where they repeat: a look at 25 characters costs four times as much.
_GOOD_VALUES: set[str] = set()
_GOOD_LENGTH: Final = 1024
# What apps return by mistake: nothing, text, bytes without a list.
_NO_BODIES: Final = frozenset({type(None), str, bytes, bytearray})


class PlainAnswer:
    """An answer that needs nothing: its headers are looked at and handed on, its body is the app's own list.

    Whatever needs more makes an :class:`Exchange`, which takes over from there. There is no ``__init__``: the layer
    sets the attributes by itself, 550 instructions instead of 2,200 of 12,400.
    """

    __slots__ = ("app", "environ", "exchange", "headers", "length", "method", "path", "start_response", "status")

    app: WSGIApplication
    environ: WSGIEnvironment
    start_response: StartResponse
    method: str
    path: str
    #: What took over.
    exchange: Exchange | None
    #: What the app said, checked; None before it did, empty once an exchange has taken over.
    status: str | None
    headers: Headers
    #: Its Content-Length, unread.
    length: str | None

    def start(self, status: str, headers: Headers, exc_info: ExcInfo = None, /) -> Callable[[bytes], object]:
        """The ``start_response`` that the app gets."""
        if self.status is None and exc_info is None:
            try:
                if STATUSES[status]:
                    raise KeyError
                length = None
                for name, value in headers:
                    if NAMES[name] is LENGTH:
                        if length is not None:
                            raise ValueError
                        length = value
                    elif value not in _GOOD_VALUES:
                        if not (value.isprintable() and value.isascii()):
                            raise ValueError
                        if NAMES[name] is STEADY:
                            _remember(value)
                self.headers = headers.copy()
                self.length = length
                self.status = status
                return self
            except (LookupError, TypeError, ValueError, AttributeError):
                pass
        return self.look().start(status, headers, exc_info)

    def __call__(self, data: bytes, /) -> None:
        """The ``write()`` that the app gets."""
        self.look().write(data)

    def look(self) -> Exchange:
        """Return the exchange that takes over, with what was said so far."""
        exchange = self.exchange
        if exchange is None:
            exchange = Exchange(self.environ, self.start_response, self.method, self.path, self.app)
            self.exchange = exchange
            if self.status:
                exchange.adopt(self.status, self.headers, self.length)
            self.status = ""
        return exchange


def _remember(value: str) -> None:
    if len(value) > _GOOD_LENGTH or "'nonce-" in value:
        return
    if len(_GOOD_VALUES) >= MEMO_SIZE:
        _GOOD_VALUES.clear()
    _GOOD_VALUES.add(value)


def send(exchange: Exchange, body: Iterable[bytes], environ: WSGIEnvironment) -> Iterable[bytes]:
    """Return what the server gets as the body of an answer that is not plain."""
    kind = type(body)
    wrapper = environ.get("wsgi.file_wrapper")
    if exchange.status:
        if kind is list or kind is tuple:  # all there, and without a close()
            return exchange.finish(list(body))
        if isinstance(wrapper, type) and isinstance(body, wrapper) and exchange.takes_file():
            return body
    late = _Body(body, exchange)
    if environ.get("SERVER_SOFTWARE") == "Granian":
        # It looks at the status when the app returns; every other server waits for the first block.
        late.prime()
    return late


class _Body:
    """A streamed body, looked at block by block."""

    __slots__ = ("_blocks", "_body", "_exchange", "_primed")

    def __init__(self, body: Iterable[bytes], exchange: Exchange) -> None:
        self._body: Iterable[bytes] | None = body
        self._exchange = exchange
        self._blocks = _stream(body, exchange)
        self._primed: list[bytes] = []

    def __iter__(self) -> Iterator[bytes]:
        if self._primed:
            from itertools import chain

            return chain(self._primed, self._blocks)
        return self._blocks

    def prime(self) -> None:
        """Ask the app until it has called ``start_response``, and hand that on."""
        exchange = self._exchange
        if exchange.status and not exchange.answers_itself():
            if not exchange.forwarded:
                exchange.forward()
            return
        for block in self._blocks:
            self._primed.append(block)
            if exchange.forwarded:
                break

    def close(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            close(body)


def _stream(body: Iterable[bytes], exchange: Exchange) -> Iterator[bytes]:
    """Yield what may go out of a body; the headers go before the first block."""
    if not exchange.answers_itself():
        try:
            if type(body) in _NO_BODIES and not exchange.check(body, b""):
                body = ()
            for block in body:
                if type(block) is not bytes and not exchange.check(body, block):
                    break
                if not exchange.forwarded:
                    if not exchange.status:
                        if not block:
                            yield block
                            continue
                        exchange.replace("the app sent a block before it called start_response")
                    if exchange.answers_itself():
                        break
                    exchange.forward()
                elif exchange.bodiless:  # the headers went with a write()
                    break
                if exchange.buffer:
                    yield from exchange.take_buffer()
                yield block if exchange.length is None else exchange.cut(block)
            else:
                if not exchange.status:
                    exchange.replace("the app never called start_response")
                exchange.end()
        except Exception:
            if exchange.forwarded:
                raise
            exchange.replace("the body raised before its first block", exc_info=True)
    if not exchange.forwarded:
        yield from exchange.send_page()
    if exchange.buffer:
        yield from exchange.take_buffer()
