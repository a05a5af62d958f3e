"""One request as one line: common, combined, JSON, logfmt. Fixed for ASCII.

No input puts a control character, a line break, a bidirectional override or an unescaped quote into
a line, and no line is longer than ``PIPE_BUF``. The escapes can be undone:

- ``common`` and ``combined``: ``\\xhh`` (one byte of the request), ``\\uhhhh``, ``\\"``, ``\\\\`` in fields;
  the target is percent-encoded. ``-`` stands for an absent field, ``\\x2d`` for a lone dash.
- ``json`` and the quoted values of ``logfmt``: JSON strings (RFC 8259 section 7), all non-ASCII escaped.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from operator import itemgetter
from typing import Any, Final, Protocol, TypeAlias, cast

from lamella.stack.kernel.records import Record
from lamella.stack.kernel.redact import is_secret

from ._access_escape import (
    Escape,
    Hiding,
    Memo,
    bare,
    hiding,
    json_text,
    logfmt_text,
    path_text,
    query_text,
    quoted,
    remember,
)

__all__ = ["FORMATS", "LONGEST", "NO_MORE", "Asked", "Format", "More", "make_format", "read_loosely", "read_request"]

#: Longest line in bytes: what POSIX guarantees to be written to a pipe in one piece (PIPE_BUF on Linux).
LONGEST: Final = 4096
FORMATS: Final = ("common", "combined", "json", "logfmt")
# Characters of each field that are kept where a line would be too long, tried in turn.
_CUTS: Final = (768, 192, 48, 12)
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

# --- what a line is made of ---------------------------------------------------------------------

_FIELDS: Final = (
    *("REMOTE_ADDR", "REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO"),
    *("QUERY_STRING", "SERVER_PROTOCOL", "HTTP_USER_AGENT"),
)

#: Address, method, script name, path, query, protocol and user agent, as they were sent.
Request: TypeAlias = tuple[str, str, str, str, str, str, str]
#: Reads them in one call; a KeyError where one is absent.
read_request: Final[Callable[[dict[str, Any]], Request]] = itemgetter(*_FIELDS)
#: What only structured formats show: host, request identifier, headers to log.
More: TypeAlias = tuple[str, str, tuple[tuple[str, str], ...]]
#: What was known when the request came: ``perf_counter``, the request, referrer and more; the record of what is set
#: inside, and the environ, which the app may change. Tuples without names, because each request makes one.
Asked: TypeAlias = tuple[float, Request, str, More, dict[str, Any], dict[str, Any]]
#: Where none of it is shown.
NO_MORE: Final[More] = ("", "", ())


class Format(Protocol):
    """Makes the line, its newline included."""

    def __call__(
        self, asked: Asked, status: str, sent: int | None, first: float, last: float, ended: bool, exception: str, /
    ) -> str:
        """Write the line.

        Args:
            asked: What was known when the request came.
            status: Its three digits; empty where there was none.
            sent: Bytes handed to the server; None where only the server knows.
            first: When the first byte was, by ``perf_counter``; only for formats that show it.
            last: When the end was, likewise.
            ended: Whether the body came to its end.
            exception: The class of what the app raised, or empty.
        """


def read_loosely(environ: dict[str, Any]) -> Request:
    """The same where some are absent: PEP 3333 lets servers leave out what is empty."""
    found: Any = tuple([environ.get(name, "") for name in _FIELDS])
    return cast("Request", found)


def make_format(name: str, hides: Callable[[str], bool] = is_secret, sample: float = 1.0) -> tuple[Format, Format]:
    """Return what makes a line of the format *name*, and what makes it anew where it is longer than ``LONGEST``.

    *hides* says which query parameters are secret.
    """
    hidden = hiding(hides)
    if name in ("common", "combined"):
        line = _clf(name == "combined", hidden)
    elif name == "json":
        line = _json_lines(hidden, sample)
    else:
        line = _logfmt_lines(hidden, sample)

    def shorter(
        asked: Asked, status: str, sent: int | None, first: float, last: float, ended: bool, exception: str, /
    ) -> str:
        # A hidden value must not show because its name was cut off: hide first, then cut.
        begun, request, referer, *rest = asked
        client, method, script, path, query, *others = request
        texts = (client, method, "", script + path, hidden.query(query), *others)
        shown: Any = (begun, texts, hidden.referer(referer), *rest)
        for cut in _CUTS:
            text = line(_shortened(shown, cut), status, sent, first, last, ended, _cut(exception, cut))
            if len(text) <= LONGEST:
                return text
        begun, request, referer, (host, identifier, _), record, environ = _shortened(shown, cut)
        shown = (begun, request, referer, (host, identifier, ()), record, environ)
        return line(shown, status, sent, first, last, ended, _cut(exception, cut))

    return line, shorter


def _shortened(asked: Asked, cut: int) -> Asked:
    """Return *asked* with each text cut to *cut* characters, and in its record what the app left."""
    begun, request, referer, (host, identifier, headers), record, environ = asked
    names = ("lamella.request_id", "lamella.mount", "lamella.client", "lamella.trace")
    found = [(name, _seen(record, environ, name)) for name in names]
    known = {name: _cut(value, cut) for name, value in found if value is not None}
    identity, route = _seen(record, environ, "lamella.identity"), _seen(record, environ, "lamella.route")
    known["REMOTE_USER"] = _cut(environ.get("REMOTE_USER", "") if identity is None else identity.user, cut)
    if route is not None:
        known["lamella.route"] = route._replace(pattern=_cut(route.pattern, cut))
    texts: Any = tuple([_cut(text, cut) for text in request])
    shown = tuple([(_cut(name, cut), _cut(value, cut)) for name, value in headers])
    return begun, texts, _cut(referer, cut), (_cut(host, cut), _cut(identifier, cut), shown), known, known


def _cut(value: Any, length: int) -> Any:
    return value[:length] + "..." if isinstance(value, str) and len(value) > length else value


def _seen(record: dict[str, Any], environ: dict[str, Any], key: str) -> Any:
    """What a layer set under *key*: inside, or in the environ; None where none did."""
    found = record.get(key)
    return environ.get(key) if found is None else found


# --- time ---------------------------------------------------------------------------------------

#: From when until when, by ``perf_counter``, the text is right.
_Second: TypeAlias = tuple[float, float, str]
_NO_SECOND: Final[_Second] = (0.0, 0.0, "")


def _second_of(at: float, write: Callable[[time.struct_time], str]) -> _Second:
    """Return the second of the clock on the wall in which *at* lies; so a time is formatted once a second."""
    now = time.time() - (time.perf_counter() - at)
    since = at - now % 1
    return since, since + 1, write(time.gmtime(now))


def _clf_time(t: time.struct_time) -> str:
    month = _MONTHS[t.tm_mon - 1]  # strftime would ask the locale
    return f"{t.tm_mday:02}/{month}/{t.tm_year:04}:{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02} +0000"


def _rfc3339_clock() -> Callable[[float], str]:
    """Return a function that writes a time of ``perf_counter`` as RFC 3339 does, in UTC with milliseconds."""
    kept = _NO_SECOND

    def stamp(at: float) -> str:
        nonlocal kept
        since, until, text = kept
        if not since <= at < until:
            kept = since, until, text = _second_of(at, lambda t: time.strftime("%Y-%m-%dT%H:%M:%S", t))
        return f"{text}.{min(999, int((at - since) * 1000)):03}Z"

    return stamp


# --- formats ------------------------------------------------------------------------------------


def _clf(combined: bool, hidden: Hiding) -> Format:
    """The NCSA common log format, and Apache's combined, which adds referrer and user agent."""
    # Plain dicts, because a look-up in a Memo costs twice as much.
    clients, users, methods, paths, queries, protocols, referrers, agents = _known(8)
    sizes: dict[int | None, str] = {None: "-"}
    kept = _NO_SECOND

    # What stands between two fields is kept with one of them: so a line has 12 pieces instead of 18.
    def client_of(text: str) -> str:
        return remember(clients, text, f"{bare(text)} - ")

    def user_of(text: str) -> str:
        return remember(users, text, f"{bare(text)} [")

    def method_of(text: str) -> str:
        return remember(methods, text, f'] "{bare(text)} ')

    def path_of(text: str) -> str:
        return remember(paths, text, path_text(text or "/"))

    def query_of(text: str) -> str:
        return remember(queries, text, "?" + query_text(hidden.query(text)) if text else "")

    def protocol_of(text: str) -> str:
        return remember(protocols, text, f' {bare(text)}" ')

    def referrer_of(text: str) -> str:
        return remember(referrers, text, f' "{quoted(hidden.referer(text))}"' if combined else "")

    def agent_of(text: str) -> str:
        return remember(agents, text, f' "{quoted(text)}"\n' if combined else "\n")

    def size_of(sent: int | None) -> str:
        if sent is None:
            return "-"
        if len(sizes) < 1024:  # answers have few sizes, and formatting one costs as much as four look-ups
            sizes[sent] = str(sent)
        return str(sent)

    # Each line costs this, so nothing is called but look-ups in C.
    def line(
        asked: Asked, status: str, sent: int | None, first: float, last: float, ended: bool, exception: str, /
    ) -> str:
        nonlocal kept
        begun, request, referrer, _, record, environ = asked
        client, method, script, path, query, protocol, agent = request
        since, until, stamp = kept
        if begun < since or begun >= until:
            kept = since, until, stamp = _second_of(begun, _clf_time)
        identity = proxied = None
        if record:
            identity, proxied = record.get("lamella.identity"), record.get("lamella.client")
        if proxied is not None:
            client = proxied.address
        elif "lamella.client" in environ:
            client = environ["lamella.client"].address
        if identity is not None:
            user = identity.user
        elif "lamella.identity" in environ:
            user = environ["lamella.identity"].user
        else:
            user = environ["REMOTE_USER"] if "REMOTE_USER" in environ else ""  # noqa: SIM401  twice as fast
        try:
            return (
                f"{clients[client]}{users[user]}{stamp}{methods[method]}{paths[script + path]}{queries[query]}"
                f"{protocols[protocol]}{status or '-'} {sizes[sent]}{referrers[referrer]}{agents[agent]}"
            )
        except KeyError:  # something is new: the same, escaped and remembered
            return (
                f"{client_of(client)}{user_of(user)}{stamp}{method_of(method)}{path_of(script + path)}{query_of(query)}"
                f"{protocol_of(protocol)}{status or '-'} {size_of(sent)}{referrer_of(referrer)}{agent_of(agent)}"
            )

    return line


def _known(number: int) -> list[dict[str, str]]:
    return [{} for _ in range(number)]


class _Escapes(Record):
    """The memos of a structured format: each field as it stands in the line, *absent* where it is empty."""

    text: Memo
    path: Memo
    query: Memo
    referer: Memo


def _escapes(write: Escape, absent: str, hidden: Hiding) -> _Escapes:
    def escape(text: str) -> str:
        return write(text) if text else absent

    return _Escapes(
        Memo(escape),
        Memo(lambda path: escape(path_text(path or "/"))),
        Memo(lambda query: escape(query_text(hidden.query(query)))),
        Memo(lambda referer: escape(hidden.referer(referer))),
    )


def _json_lines(hidden: Hiding, sample: float) -> Format:
    """One JSON object a line, with every key in each."""
    text_of, path_of, query_of, referer_of = _escapes(json_text, "null", hidden)
    stamp = _rfc3339_clock()
    last_keys = f',"sample":{sample:g}' if sample < 1 else ""

    def line(
        asked: Asked, status: str, sent: int | None, first: float, last: float, ended: bool, exception: str, /
    ) -> str:
        begun, request, referer, (host, request_id, headers), record, environ = asked
        client, method, script, path, query, protocol, agent = request
        inside, outside = record.get, environ.get
        proxied = inside("lamella.client") or outside("lamella.client")
        identity = inside("lamella.identity") or outside("lamella.identity")
        mount = inside("lamella.mount") or outside("lamella.mount")
        route = inside("lamella.route") or outside("lamella.route")
        trace = inside("lamella.trace") or outside("lamella.trace")
        user = environ.get("REMOTE_USER", "") if identity is None else identity.user
        request_id = request_id or inside("lamella.request_id") or outside("lamella.request_id") or ""
        shown = ""
        if headers:
            shown = f',"headers":{{{",".join([f"{json_text(name)}:{json_text(value)}" for name, value in headers])}}}'
        return (
            f'{{"time":"{stamp(begun)}","client":{text_of[client if proxied is None else proxied.address]},'
            f'"user":{text_of[user]},"method":{text_of[method]},'
            f'"path":{path_of[script + path]},"query":{query_of[query]},"protocol":{text_of[protocol]},'
            f'"status":{status or "null"},"bytes":{"null" if sent is None else sent},'
            f'"first_byte_ms":{(first - begun) * 1000:.3f},"duration_ms":{(last - begun) * 1000:.3f},'
            f'"aborted":{"false" if ended else "true"},'
            f'"exception":{text_of[exception]},"request_id":{json_text(request_id) if request_id else "null"},'
            f'"trace_id":{"null" if trace is None else json_text(trace.trace_id)},'
            f'"mount":{"null" if mount is None else text_of[mount]},'
            f'"route":{"null" if route is None else text_of[route.pattern]},"host":{text_of[host]},'
            f'"referer":{referer_of[referer]},"user_agent":{text_of[agent]}{last_keys}{shown}}}\n'
        )

    return line


def _logfmt_lines(hidden: Hiding, sample: float) -> Format:
    """``key=value`` pairs, those with a value only."""
    text_of, path_of, query_of, referer_of = _escapes(logfmt_text, "", hidden)
    stamp = _rfc3339_clock()
    sampled = f"{sample:g}" if sample < 1 else ""

    def line(
        asked: Asked, status: str, sent: int | None, first: float, last: float, ended: bool, exception: str, /
    ) -> str:
        begun, request, referer, (host, request_id, headers), record, environ = asked
        client, method, script, path, query, protocol, agent = request
        inside, outside = record.get, environ.get
        proxied = inside("lamella.client") or outside("lamella.client")
        identity = inside("lamella.identity") or outside("lamella.identity")
        mount = inside("lamella.mount") or outside("lamella.mount")
        route = inside("lamella.route") or outside("lamella.route")
        trace = inside("lamella.trace") or outside("lamella.trace")
        user = environ.get("REMOTE_USER", "") if identity is None else identity.user
        request_id = request_id or inside("lamella.request_id") or outside("lamella.request_id") or ""
        fields = (
            ("time", stamp(begun)),
            ("client", text_of[client if proxied is None else proxied.address]),
            ("user", text_of[user]),
            ("method", text_of[method]),
            ("path", path_of[script + path]),
            ("query", query_of[query]),
            ("protocol", text_of[protocol]),
            ("status", status),
            ("bytes", "" if sent is None else str(sent)),
            ("first_byte_ms", f"{(first - begun) * 1000:.3f}"),
            ("duration_ms", f"{(last - begun) * 1000:.3f}"),
            ("aborted", "false" if ended else "true"),
            ("exception", text_of[exception]),
            ("request_id", logfmt_text(request_id) if request_id else ""),
            ("trace_id", "" if trace is None else trace.trace_id),
            ("mount", "" if mount is None else text_of[mount]),
            ("route", "" if route is None else text_of[route.pattern]),
            ("host", text_of[host]),
            ("referer", referer_of[referer]),
            ("user_agent", text_of[agent]),
            ("sample", sampled),
        )
        pairs = [f"{name}={value}" for name, value in fields if value]
        pairs += [f"header_{name.replace('-', '_')}={logfmt_text(value)}" for name, value in headers]
        return " ".join(pairs) + "\n"

    return line
