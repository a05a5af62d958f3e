"""One request as one line: common, combined, JSON, logfmt. Pure functions, fixed for ASCII.

No input puts a control character, a line break, a bidirectional override or an unescaped quote into
a line, and no line is longer than ``PIPE_BUF``. The escapes can be undone:

- ``common`` and ``combined``: ``\\xhh`` (one byte of the request), ``\\uhhhh``, ``\\"``, ``\\\\`` in fields;
  the target is percent-encoded. ``-`` stands for an absent field, ``\\x2d`` for a lone dash.
- ``json`` and the quoted values of ``logfmt``: JSON strings (RFC 8259 section 7), all non-ASCII escaped.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from json.encoder import encode_basestring_ascii
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import quote

from lamella.stack.kernel.redact import REDACTED, is_secret, redact_query, redact_url

__all__ = ["FORMATS", "LONGEST", "Entry", "Format", "make_format"]

#: Longest line in bytes: what POSIX guarantees to be written to a pipe in one piece (PIPE_BUF on Linux).
LONGEST: Final = 4096
FORMATS: Final = ("common", "combined", "json", "logfmt")
# Characters of each field that are kept where a line would be too long, tried in turn.
_CUTS: Final = (768, 192, 48, 12)

_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# Characters of RFC 3986 that need no encoding in a path: unreserved, sub-delims, ":" "@" "/".
_PATH_SAFE: Final = "/:@!$&'()*+,;=~"
# In a query, what browsers send besides; and "%", because a query is logged as it was sent.
_QUERY_SAFE: Final = _PATH_SAFE + "%?|[]{}^`<>#"
_PLAIN_PATH = re.compile(r"[A-Za-z0-9\-._~/:@!$&'()*+,;=]*")
_PLAIN_QUERY = re.compile(r"[A-Za-z0-9\-._~/:@!$&'()*+,;=%?|\[\]{}^`<>#]*")
_PLAIN_QUOTED = re.compile(r"[\x20\x21\x23-\x5b\x5d-\x7e]*")
_PLAIN_BARE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
_LOGFMT_BARE = re.compile(r"[\x21\x23-\x3c\x3e-\x5b\x5d-\x7e]+")
_UNSAFE_QUOTED = re.compile(r"[^\x20\x21\x23-\x5b\x5d-\x7e]")
_UNSAFE_BARE = re.compile(r"[^\x21\x23-\x5b\x5d-\x7e]")
# Escaped values seen before: most requests share browser, host and path. Bounded, never with a secret in a query.
_MEMO_ENTRIES: Final = 1024
_MEMO_LENGTH: Final = 512


class Entry(NamedTuple):
    """What is known of one request at its end. Text comes as it was sent; nothing is escaped yet."""

    began: float
    client: str
    method: str
    path: str
    query: str
    protocol: str
    referer: str
    agent: str
    host: str
    request_id: str
    headers: tuple[tuple[str, str], ...]
    status: str
    sent: int | None
    first_ms: float
    last_ms: float
    aborted: bool
    exception: str
    #: What was set inside, and the environ as the app left it.
    record: Mapping[str, Any]
    environ: Mapping[str, Any]

    def seen(self, key: str) -> Any:
        """What a layer set under *key*: inside, or in the environ; None where none did."""
        found = self.record.get(key)
        return self.environ.get(key) if found is None else found


#: Makes the line, its newline included.
Format: TypeAlias = Callable[[Entry], str]
Escape: TypeAlias = Callable[[str], str]


def make_format(name: str, hides: Callable[[str], bool] = is_secret, sample: float = 1.0) -> tuple[Format, Format]:
    """Return what makes a line of the format *name*, and what makes it anew where it is longer than ``LONGEST``.

    *hides* says which query parameters are secret.
    """

    def query_shown(query: str) -> str:
        return redact_query(query, hides)

    def referer_shown(referer: str) -> str:
        return redact_url(referer, hides) if "=" in referer or "@" in referer else referer

    if name in ("common", "combined"):
        line = _clf(name == "combined", query_shown, referer_shown)
    elif name == "json":
        line = _json_lines(query_shown, referer_shown, sample)
    else:
        line = _logfmt_lines(query_shown, referer_shown, sample)

    def shorter(entry: Entry) -> str:
        # A hidden value must not show because its name was cut off: hide first, then cut.
        entry = entry._replace(query=query_shown(entry.query), referer=referer_shown(entry.referer))
        for cut in _CUTS:
            text = line(_shortened(entry, cut))
            if len(text) <= LONGEST:
                return text
        return line(_shortened(entry._replace(headers=()), _CUTS[-1]))

    return line, shorter


def _shortened(entry: Entry, cut: int) -> Entry:
    """Return *entry* with each text cut to *cut* characters."""

    def short(text: str) -> str:
        return text if len(text) <= cut else text[:cut] + "..."

    def cut_text(value: Any) -> Any:
        return short(value) if isinstance(value, str) else value

    identity, route = entry.seen("lamella.identity"), entry.seen("lamella.route")
    known = {key: cut_text(value) for key in ("lamella.request_id", "lamella.mount") if (value := entry.seen(key))}
    known["REMOTE_USER"] = cut_text(identity.user if identity is not None else entry.environ.get("REMOTE_USER", ""))
    known["lamella.client"], known["lamella.trace"] = entry.seen("lamella.client"), entry.seen("lamella.trace")
    if route is not None:
        known["lamella.route"] = route._replace(pattern=short(route.pattern))
    fields = {name: cut_text(value) for name, value in entry._asdict().items()}
    fields.update(
        headers=tuple((short(name), short(value)) for name, value in entry.headers), record=known, environ=known
    )
    return Entry(**fields)


# --- escaping -----------------------------------------------------------------------------------


class _Memo(dict[str, str]):
    """Escaped texts, made at the first use: a request costs one look-up in C for each field."""

    __slots__ = ("_escape",)

    def __init__(self, escape: Escape) -> None:
        super().__init__()
        self._escape = escape

    def __missing__(self, text: str) -> str:
        found = self._escape(text)
        if len(text) <= _MEMO_LENGTH:
            if len(self) >= _MEMO_ENTRIES:
                self.clear()
            self[text] = found
        return found


class _QueryMemo(_Memo):
    """The same for queries and addresses; one that holds a secret is not kept in memory."""

    __slots__ = ()

    def __missing__(self, text: str) -> str:
        found = super().__missing__(text)
        if REDACTED in found:
            self.pop(text, None)
        return found


def _hexadecimal(match: re.Match[str]) -> str:
    character = match[0]
    if character in '"\\':
        return "\\" + character
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _quoted(text: str) -> str:
    """Escape what stands between quotes in a CLF line."""
    if _PLAIN_QUOTED.fullmatch(text) is None:
        return _UNSAFE_QUOTED.sub(_hexadecimal, text)
    return ("\\x2d" if text == "-" else text) or "-"


def _bare(text: str) -> str:
    """Escape what stands between spaces in a CLF line."""
    if text in ("", "-"):
        return "\\x2d" if text else "-"
    return text if _PLAIN_BARE.fullmatch(text) is not None else _UNSAFE_BARE.sub(_hexadecimal, text)


def _path(text: str) -> str:
    """Percent-encode the bytes of a path, as a client has to (RFC 3986 section 2.1)."""
    if _PLAIN_PATH.fullmatch(text) is not None:
        return text
    return quote(_octets(text), safe=_PATH_SAFE)


def _query(text: str) -> str:
    """Percent-encode what no query may have; existing escapes stay."""
    if _PLAIN_QUERY.fullmatch(text) is not None:
        return text
    return quote(_octets(text), safe=_QUERY_SAFE)


def _octets(text: str) -> bytes:
    """The bytes that a WSGI string stands for."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:  # no server's environ has that; a log must take it anyway
        return text.encode("utf-8", "surrogatepass")


def _json(text: str) -> str:
    """Write a JSON string in which DEL is escaped too, which the standard library leaves as it is."""
    return encode_basestring_ascii(text).replace("\x7f", "\\u007f")


def _logfmt(text: str) -> str:
    """Write a logfmt value: bare where it may be, else a JSON string."""
    return text if _LOGFMT_BARE.fullmatch(text) is not None else _json(text)


# --- time ---------------------------------------------------------------------------------------


def _clf_clock() -> Callable[[float], str]:
    """Return a function that writes a time as CLF does, in UTC; formatting happens once a second."""
    kept: tuple[int, str] = (-1, "")

    def stamp(now: float) -> str:
        nonlocal kept
        second, text = kept
        if second != (whole := int(now)):
            t = time.gmtime(whole)
            month = _MONTHS[t.tm_mon - 1]
            text = f"{t.tm_mday:02}/{month}/{t.tm_year:04}:{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02} +0000"
            kept = (whole, text)
        return text

    return stamp


def _rfc3339_clock() -> Callable[[float], str]:
    """Return a function that writes a time as RFC 3339 does, in UTC with milliseconds."""
    kept: tuple[int, str] = (-1, "")

    def stamp(now: float) -> str:
        nonlocal kept
        second, text = kept
        if second != (whole := int(now)):
            text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
            kept = (whole, text)
        return f"{text}.{int((now - whole) * 1000):03}Z"

    return stamp


# --- formats ------------------------------------------------------------------------------------


def _user(entry: Entry) -> str:
    """Who was asking, as the last auth layer established it."""
    found = entry.seen("lamella.identity")
    return str(found.user if found is not None else entry.seen("REMOTE_USER") or "")


def _client(entry: Entry) -> str:
    """The client's address, as the trusted proxies tell it where a layer asked them."""
    found = entry.seen("lamella.client")
    return entry.client if found is None else str(found.address)


def _clf(combined: bool, query_shown: Escape, referer_shown: Escape) -> Format:
    """The NCSA common log format, and Apache's combined, which adds referrer and user agent."""
    stamp, path_of, quoted, bare = _clf_clock(), _Memo(_path), _Memo(_quoted), _Memo(_bare)
    query_of = _QueryMemo(lambda query: "?" + _query(query_shown(query)) if query else "")
    referer_of = _QueryMemo(lambda referer: _quoted(referer_shown(referer)))

    def line(entry: Entry) -> str:
        # fmt: off
        (began, client, method, path, query, protocol, referer, agent, _, _, _,
         status, sent, _, _, _, _, record, environ) = entry
        # fmt: on
        # As _client and _user do, without their calls: this runs for each request.
        proxied = record.get("lamella.client") or environ.get("lamella.client")
        if proxied is not None:
            client = proxied.address
        identity = record.get("lamella.identity") or environ.get("lamella.identity")
        user = environ.get("REMOTE_USER", "") if identity is None else identity.user
        text = (
            f"{bare[client]} - {bare[user]} [{stamp(began)}] "
            f'"{bare[method]} {path_of[path]}{query_of[query]} {bare[protocol]}" '
            f"{status or '-'} {'-' if sent is None else sent}"
        )
        return f'{text} "{referer_of[referer]}" "{quoted[agent]}"\n' if combined else text + "\n"

    return line


class _Escapes(NamedTuple):
    """The memos of a structured format: each field as it stands in the line, *absent* where it is empty."""

    text: _Memo
    path: _Memo
    query: _QueryMemo
    referer: _QueryMemo


def _escapes(write: Escape, absent: str, query_shown: Escape, referer_shown: Escape) -> _Escapes:
    def escape(text: str) -> str:
        return write(text) if text else absent

    return _Escapes(
        _Memo(escape),
        _Memo(lambda path: escape(_path(path))),
        _QueryMemo(lambda query: escape(_query(query_shown(query)))),
        _QueryMemo(lambda referer: escape(referer_shown(referer))),
    )


def _json_lines(query_shown: Escape, referer_shown: Escape, sample: float) -> Format:
    """One JSON object a line, with every key in each."""
    text_of, path_of, query_of, referer_of = _escapes(_json, "null", query_shown, referer_shown)
    stamp = _rfc3339_clock()
    last_keys = f',"sample":{sample:g}' if sample < 1 else ""

    def line(entry: Entry) -> str:
        # fmt: off
        (began, client, method, path, query, protocol, referer, agent, host, request_id, headers,
         status, sent, first_ms, last_ms, aborted, exception, record, environ) = entry
        # fmt: on
        # As _client and _user do, without their calls: this runs for each request.
        proxied = record.get("lamella.client") or environ.get("lamella.client")
        if proxied is not None:
            client = proxied.address
        identity = record.get("lamella.identity") or environ.get("lamella.identity")
        user = environ.get("REMOTE_USER", "") if identity is None else identity.user
        mount, route, trace = entry.seen("lamella.mount"), entry.seen("lamella.route"), entry.seen("lamella.trace")
        request_id = request_id or entry.seen("lamella.request_id")
        shown = ""
        if headers:
            shown = f',"headers":{{{",".join([f"{_json(name)}:{_json(value)}" for name, value in headers])}}}'
        return (
            f'{{"time":"{stamp(began)}","client":{text_of[client]},"user":{text_of[user]},"method":{text_of[method]},'
            f'"path":{path_of[path]},"query":{query_of[query]},"protocol":{text_of[protocol]},'
            f'"status":{status or "null"},"bytes":{"null" if sent is None else sent},'
            f'"first_byte_ms":{first_ms:.3f},"duration_ms":{last_ms:.3f},"aborted":{"true" if aborted else "false"},'
            f'"exception":{text_of[exception]},"request_id":{_json(request_id) if request_id else "null"},'
            f'"trace_id":{"null" if trace is None else _json(trace.trace_id)},'
            f'"mount":{"null" if mount is None else _json(mount)},'
            f'"route":{"null" if route is None else text_of[route.pattern]},"host":{text_of[host]},'
            f'"referer":{referer_of[referer]},"user_agent":{text_of[agent]}{last_keys}{shown}}}\n'
        )

    return line


def _logfmt_lines(query_shown: Escape, referer_shown: Escape, sample: float) -> Format:
    """``key=value`` pairs, those with a value only."""
    text_of, path_of, query_of, referer_of = _escapes(_logfmt, "", query_shown, referer_shown)
    stamp = _rfc3339_clock()
    sampled = f"{sample:g}" if sample < 1 else ""

    def line(entry: Entry) -> str:
        mount, route, trace = entry.seen("lamella.mount"), entry.seen("lamella.route"), entry.seen("lamella.trace")
        request_id = entry.request_id or entry.seen("lamella.request_id")
        fields = (
            ("time", stamp(entry.began)),
            ("client", text_of[_client(entry)]),
            ("user", text_of[_user(entry)]),
            ("method", text_of[entry.method]),
            ("path", path_of[entry.path]),
            ("query", query_of[entry.query]),
            ("protocol", text_of[entry.protocol]),
            ("status", entry.status),
            ("bytes", "" if entry.sent is None else str(entry.sent)),
            ("first_byte_ms", f"{entry.first_ms:.3f}"),
            ("duration_ms", f"{entry.last_ms:.3f}"),
            ("aborted", "true" if entry.aborted else "false"),
            ("exception", text_of[entry.exception]),
            ("request_id", _logfmt(request_id) if request_id else ""),
            ("trace_id", "" if trace is None else trace.trace_id),
            ("mount", "" if mount is None else _logfmt(mount)),
            ("route", "" if route is None else text_of[route.pattern]),
            ("host", text_of[entry.host]),
            ("referer", referer_of[entry.referer]),
            ("user_agent", text_of[entry.agent]),
            ("sample", sampled),
        )
        pairs = [f"{name}={value}" for name, value in fields if value]
        pairs += [f"header_{name.replace('-', '_')}={_logfmt(value)}" for name, value in entry.headers]
        return " ".join(pairs) + "\n"

    return line
