"""One answer of ``edge`` that is not plain: repaired while that is possible, replaced or cut where it is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from lamella.stack.kernel.errors import LamellaError
from lamella.stack.kernel.faults import BrokenAppError, app_name, fault_of_body, fault_of_status
from lamella.stack.kernel.keys import REQUEST_ID
from lamella.stack.kernel.late import late_logger
from lamella.stack.kernel.response import has_body

from ._edge import BadAnswerError, clean_headers, clean_status

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from lamella.stack.kernel.response import ExcInfo, Headers

__all__ = ["LENGTH", "MEMO_SIZE", "NAMES", "STATUSES", "STEADY", "Exchange", "IncompleteBodyError"]

_LOGGER = late_logger("lamella.edge")
#: How many status lines, header names and whole headers are remembered as good.
MEMO_SIZE: Final = 512
#: What is to be known of a header by its name: nothing, that it is the length, that its values repeat.
PLAIN, LENGTH, STEADY = 1, 2, 3
#: Header names that were seen, in the app's spelling.
NAMES: dict[str, int] = {"Content-Length": LENGTH, "content-length": LENGTH}
#: Status lines that were seen, and whether their answers have no body.
STATUSES: dict[str, bool] = {}
#: Fields whose values repeat from answer to answer, and are nobody's secret.
_STEADY_NAMES: Final = frozenset(
    """
    accept-ranges access-control-allow-credentials access-control-allow-headers access-control-allow-methods
    access-control-expose-headers access-control-max-age allow alt-svc cache-control content-encoding
    content-language content-security-policy content-security-policy-report-only content-type
    cross-origin-embedder-policy cross-origin-opener-policy cross-origin-resource-policy permissions-policy
    pragma referrer-policy reporting-endpoints server strict-transport-security vary x-content-type-options
    x-frame-options x-xss-protection
    """.split()  # noqa: SIM905
)


class IncompleteBodyError(LamellaError, RuntimeError):
    """An app sent fewer bytes than its Content-Length; raised at the end, so that the server cuts the connection."""


class Exchange:
    """One answer, held back until its first block, so that it can still be repaired.

    Nothing goes out before the first block anyway (PEP 3333, "The start_response() Callable"); and a server's
    own ``start_response`` is called only once, because gunicorn adds the headers of a second call to the first's.
    """

    # Class attributes, not set for each request: most requests need none of them changed.
    #: What the app said; empty before it did.
    status = ""
    _headers: Headers = []  # noqa: RUF012  (never changed in place)
    _write: Callable[[bytes], object] | None = None
    length: int | None = None
    #: Bytes that may still go out, where the length is known.
    left = 0
    _was_cut = False
    bodiless = False
    #: Whether the server has the headers.
    forwarded = False
    #: Blocks for a server without ``write()``.
    buffer: list[bytes] | None = None
    #: Goes out instead of the app's body.
    page: bytes | None = None

    def __init__(
        self, environ: WSGIEnvironment, start_response: StartResponse, method: str, path: str, app: WSGIApplication
    ) -> None:
        self._app = app
        self._environ = environ
        self._start_response = start_response
        self._method = method
        self._path = path

    def adopt(self, status: str, headers: Headers, length: str | None) -> None:
        """Take over an answer whose status and headers were checked already."""
        if length is not None and not (length.isdigit() and length.isascii() and len(length) < 19):
            self.start(status, headers)
            return
        self.status = status
        self._headers = headers
        if length is not None:
            self.length = self.left = int(length)
        self.bodiless = self._method == "HEAD"

    def start(self, status: str, headers: Headers, exc_info: ExcInfo = None, /) -> Callable[[bytes], object]:
        """The ``start_response`` that the app gets."""
        if self.status and exc_info is None:
            raise AssertionError("start_response was called twice without exc_info")
        if self.forwarded:
            return self._start_response(status, headers, exc_info)  # raises exc_info where a block is out
        if self.page is not None:
            return self.write
        length = None
        bodiless = STATUSES.get(status) if type(status) is str else None
        try:
            if bodiless is None:
                status, bodiless = self._unknown_status(status)
            for name, value in headers:
                kind = NAMES.get(name)
                if kind == LENGTH and length is None and value.isdigit() and value.isascii() and len(value) < 19:
                    length = int(value)
                elif kind is None or kind == LENGTH or not (value.isprintable() and value.isascii()):
                    headers, length = self._unusual_headers(headers)
                    break
            if bodiless and length is not None:
                headers, length = _without_length(status, headers, length)
        except (BadAnswerError, AttributeError, TypeError, ValueError) as error:
            self.refuse_answer(fault_of_status(status) or f"is at fault: {error}")
            return self.write
        self.status = status
        self._headers = headers[:]
        if length is not None or self.length is not None:
            self.length = length
            self.left = length or 0
        self.bodiless = bodiless or self._method == "HEAD"
        return self.write

    def _unknown_status(self, status: object) -> tuple[str, bool]:
        clean = clean_status(status)
        bodiless = not has_body(clean)
        if len(STATUSES) < MEMO_SIZE and clean == status:
            STATUSES[clean] = bodiless
        return clean, bodiless

    def _unusual_headers(self, headers: Headers) -> tuple[Headers, int | None]:
        kept, length, dropped = clean_headers(headers)
        for what in dropped:
            self._log("%s was dropped", what)
        for name, _ in kept:
            if name not in NAMES and len(NAMES) < MEMO_SIZE:
                lower = name.lower()
                NAMES[name] = LENGTH if lower == "content-length" else STEADY if lower in _STEADY_NAMES else PLAIN
        return kept, length

    def _log(self, message: str, *parts: object, exc_info: bool = False) -> None:
        _LOGGER.error("%s %a: " + message, self._method[:64], self._path[:200], *parts, exc_info=exc_info)

    def replace(self, why: str, *, exc_info: bool = False) -> None:
        """Answer 500 instead of what the app said."""
        self._log("answered with 500: %s", why, exc_info=exc_info)
        request_id = REQUEST_ID.get(self._environ)
        page = "Internal Server Error\n" + (f"Request: {request_id}\n" if request_id else "")
        self.page = page.encode("latin-1", "replace")
        self.status = "500 Internal Server Error"
        self._headers = [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(self.page))),
            ("Cache-Control", "no-store"),
        ]
        self.length = self.left = len(self.page)
        self.bodiless = self._method == "HEAD"
        self.buffer = None

    def refuse_answer(self, fault: str) -> None:
        """Answer 500, and say in the log which app did what, and what to write instead.

        Raises:
            BrokenAppError: A part of the answer is out: the server cuts the connection.
        """
        name = app_name(self._app, self._environ)
        if self.forwarded:
            raise BrokenAppError(name, fault)
        self.replace(f"{name} {fault}")

    def check(self, body: object, block: object) -> bool:
        """Tell whether a block can go out; where not, the app is named."""
        fault = fault_of_body(body, block)
        if fault is not None:
            self.refuse_answer(fault)
        return fault is None

    def crash(self) -> list[bytes]:
        """Answer for an app that raised; called while its exception is handled.

        Raises:
            Exception: The app's own, where a part of its answer is out: the server cuts the connection.
        """
        if self.forwarded:
            raise  # noqa: PLE0704
        self.replace("the app raised", exc_info=True)
        return self.send_page()

    def answers_itself(self) -> bool:
        """Tell whether no block of the app's body is sent: it has none, or a page stands for it."""
        return self.bodiless or self.page is not None

    def takes_file(self) -> bool:
        """Send the headers and tell whether the server may send the file that the app returned by itself."""
        if self.answers_itself() or self.buffer:
            return False
        if not self.forwarded:
            self.forward()
        return True

    def take_buffer(self) -> list[bytes]:
        """Return what went through ``write()`` and is not sent yet."""
        taken, self.buffer = self.buffer or [], None
        return taken

    def send_page(self) -> list[bytes]:
        """Send what stands for the app's body; nothing where it may have none."""
        self.forward()
        return [] if self.bodiless or self.page is None else [self.page]

    def forward(self) -> None:
        """Hand status and headers to the server."""
        self.forwarded = True
        self._write = self._start_response(self.status, self._headers)

    def write(self, data: bytes, /) -> None:
        """The ``write()`` that the app gets; a server without one gets the data as the body's first blocks."""
        if self.page is not None:
            return
        if not self.forwarded:
            self.forward()
        data = self.cut(data)
        if self._write is not None:
            self._write(data)
        elif data:
            self.buffer = [*(self.buffer or ()), data]

    def cut(self, block: bytes) -> bytes:
        """Return what of a block may go out."""
        if self.bodiless:
            return b""
        if self.length is None:
            return block
        if not self.left:
            if block and not self._was_cut:
                self._was_cut = True
                self._log("the body is longer than its Content-Length of %d and was cut", self.length)
            return b""
        left = self.left = self.left - len(block)
        if left >= 0:
            return block
        self._was_cut = True
        self._log("the body is longer than its Content-Length of %d and was cut", self.length)
        self.left = 0
        return block[:left]

    def finish(self, blocks: list[bytes]) -> list[bytes]:
        """Send an answer whose body is all there."""
        if self.page is not None:
            return self.send_page()
        if self.bodiless:
            if not self.forwarded:
                self.forward()
            return []
        for block in blocks:
            if type(block) is not bytes and not self.check(blocks, block):
                return self.send_page()
        if self.length is not None:
            total = sum(map(len, blocks))
            if total > self.left:
                blocks = [self.cut(block) for block in blocks]
            elif total < self.left:
                self._short(total)
        if not self.forwarded:
            self.forward()
        return blocks if self.buffer is None else [*self.buffer, *blocks]

    def _short(self, total: int) -> None:
        """Repair a length that is too long, or cut the connection: a client would wait for the rest."""
        self._log("the body has %d bytes less than its Content-Length of %d", self.left - total, self.length)
        if self.forwarded:
            raise IncompleteBodyError(f"the body is shorter than its Content-Length of {self.length}")
        self.length = self.left = total
        self._headers = [
            (name, str(total) if name.lower() == "content-length" else value) for name, value in self._headers
        ]

    def end(self) -> None:
        """Look at the end of a streamed body.

        Raises:
            IncompleteBodyError: Bytes are missing that the client waits for.
        """
        if self.left > 0 and not self.answers_itself():
            self._short(0)


def _without_length(status: str, headers: Headers, length: int) -> tuple[Headers, int | None]:
    """Drop a Content-Length that the status forbids (RFC 9110 section 8.6), or that says a 304's content is empty."""
    if status.startswith("304") and length:
        return headers, None
    return [item for item in headers if item[0].lower() != "content-length"], None
