"""The page of a developer: traceback with source, environ with secrets masked, the layers on the way."""

from __future__ import annotations

import linecache
import os
import sys
import traceback
from collections.abc import Iterator
from html import escape
from ipaddress import ip_address
from types import CodeType, FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lamella.middleware._error_pages import STYLE, Page, Problem, choose, content_policy, problem_json
from lamella.stack.kernel.http import parse_host
from lamella.stack.kernel.keys import CLIENT
from lamella.stack.kernel.redact import REDACTED, is_secret, redact_query, redact_url

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

__all__ = ["debug_page", "is_local", "masked_environ", "passed_layers"]

_CONTEXT: Final = 5
_LONGEST: Final = 1000
_DEEPEST: Final = 60
# A server on this machine that passes requests on says so in one of these.
_FORWARDING: Final = ("HTTP_FORWARDED", "HTTP_X_FORWARDED_FOR", "HTTP_X_REAL_IP", "HTTP_VIA", "HTTP_X_FORWARDED_HOST")
_QUERIES: Final = frozenset({"QUERY_STRING", "REQUEST_URI", "RAW_URI", "HTTP_REFERER"})
_POLICY: Final = content_policy(STYLE)


def is_local(environ: WSGIEnvironment) -> bool:
    """Tell whether the developer's own browser asks: this machine, by its own name, through no proxy.

    The name counts because a page elsewhere can let its name lead here (DNS rebinding).
    """
    client = CLIENT.get(environ)
    if client is None and any(key in environ for key in _FORWARDING):
        return False
    try:
        peer = ip_address(client.address if client is not None else environ.get("REMOTE_ADDR", ""))
    except ValueError:
        return False
    mapped = getattr(peer, "ipv4_mapped", None)
    if not (mapped or peer).is_loopback:
        return False
    named = parse_host(client.host if client is not None else environ.get("HTTP_HOST", ""))
    if named is None:
        return False
    host = named.host.strip("[]").removesuffix(".")
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761 section 6.3
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def debug_page(problem: Problem, error: BaseException, environ: WSGIEnvironment, accept: str) -> Page:
    """Return all that is known of *error*, in the form that the client likes best."""
    liked = choose(accept)
    if liked == "html":
        return Page("text/html; charset=utf-8", _html(problem, error, environ), (("Content-Security-Policy", _POLICY),))
    lines = "".join(traceback.format_exception(error))
    if liked == "text":
        return Page("text/plain; charset=utf-8", lines.encode("utf-8", "backslashreplace"))
    more = {"exception": _class_name(error), "message": _message(error), "traceback": lines.splitlines()}
    return Page("application/problem+json", problem_json(problem, **more))


class _Step(NamedTuple):
    """One frame of a traceback."""

    file: str
    line: int
    code: CodeType
    module: str


def _steps(error: BaseException) -> list[_Step]:
    """The frames of *error*, outermost first; of a deep recursion both ends."""
    found = []
    at: TracebackType | None = error.__traceback__
    while at is not None:
        frame = at.tb_frame
        found.append(_Step(frame.f_code.co_filename, at.tb_lineno, frame.f_code, frame.f_globals.get("__name__", "")))
        at = at.tb_next
    half = _DEEPEST // 2
    return found if len(found) <= _DEEPEST else found[:half] + found[-half:]


def passed_layers(error: BaseException) -> list[str]:
    """Return the layers and apps that the request had entered when *error* was raised, outermost first."""
    outside = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        outside.append((frame.f_code, frame.f_globals.get("__name__", "")))
        frame = frame.f_back
    names: list[str] = []
    for code, module in [*reversed(outside), *((step.code, step.module) for step in _steps(error))]:
        name = _layer_name(code, module)
        if name and (not names or names[-1] != name):
            names.append(name)
    return names


def _layer_name(code: CodeType, module: str) -> str:
    """The name of the layer or app whose code runs; empty where it is neither."""
    if module.startswith("lamella.middleware."):
        name = module.removeprefix("lamella.middleware.")
        return "" if name.startswith("_") else name
    arguments = code.co_varnames[: code.co_argcount]
    if "start_response" not in arguments or module.startswith("lamella.stack."):
        return ""
    name = code.co_qualname.replace(".<locals>", "").removesuffix(".__call__")
    return f"{module}:{name}"


def masked_environ(environ: WSGIEnvironment) -> list[tuple[str, str]]:
    """Return (key, shown value), sorted; secrets by name, objects by a short ``repr``."""
    return [
        (str(key), _shown(str(key), value)) for key, value in sorted(environ.items(), key=lambda item: str(item[0]))
    ]


def _shown(key: str, value: Any) -> str:
    name = key.removeprefix("HTTP_")
    # A session and what a credential claims are secrets whatever their keys are called.
    if is_secret(name) or name.lower().rpartition(".")[2] in ("session", "identity", "csrf", "record", "original"):
        return REDACTED
    if isinstance(value, str):
        text = value
        if key in _QUERIES:
            text = redact_query(value) if key == "QUERY_STRING" else redact_url(value)
        elif "://" in value:  # an address from the process's environment may carry a password
            text = redact_url(value)
    elif isinstance(value, (bool, int, float, tuple)) or value is None:
        text = _safe_repr(value)
    else:  # a repr may hold anything
        text = f"<{type(value).__module__}.{type(value).__qualname__}>"
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def _safe_repr(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001  it is somebody's __repr__
        return f"<{type(value).__qualname__}>"


def _class_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  it is somebody's __str__
        return ""


def _chain(error: BaseException) -> Iterator[tuple[str, BaseException]]:
    """The exception, then what led to it, each with the words that connect them."""
    words = ""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen and len(seen) < 10:
        seen.add(id(current))
        yield words, current
        if current.__cause__ is not None:
            words, current = "Caused by", current.__cause__
        elif current.__context__ is not None and not current.__suppress_context__:
            words, current = "While handling", current.__context__
        else:
            current = None


def _html(problem: Problem, error: BaseException, environ: WSGIEnvironment) -> bytes:
    request = f"{environ.get('REQUEST_METHOD', '')} {environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}"
    note = f" · request <code>{escape(problem.request_id)}</code>" if problem.request_id else ""
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        f"<title>{escape(_class_name(error))}: {escape(_message(error)[:200])}</title>",
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>',
        f'<body><main class="wide"><p class="kind">{escape(_class_name(error))}</p>',
        f"<h1>{escape(_message(error)[: 4 * _LONGEST]) or 'no message'}</h1>",
        f'<p class="soft">{escape(request)}{note} · only this machine sees this page</p>',
    ]
    layers = passed_layers(error)
    if layers:
        items = [f"<li>{escape(name)}</li>" for name in layers[:-1]]
        parts.append(
            f'<h2>Layers</h2><ol class="layers">{"".join(items)}<li class="failed">{escape(layers[-1])}</li></ol>'
        )
    for words, each in _chain(error):
        parts.append(_traceback_html(words, each))
    rows = "".join(f"<tr><td>{escape(key)}<td>{escape(value)}" for key, value in masked_environ(environ))
    parts.append(f"<h2>Environ</h2><table>{rows}</table></main></body></html>\n")
    return "\n".join(parts).encode("utf-8", "backslashreplace")


def _traceback_html(words: str, error: BaseException) -> str:
    """The frames, innermost first; those of the user's own code unfolded."""
    title = f"{words} {_class_name(error)}: {_message(error)[:_LONGEST]}" if words else "Traceback, innermost first"
    steps = list(reversed(_steps(error)))
    own = [index for index, step in enumerate(steps) if _is_own(step)]
    unfolded = {0, *own[:2]}
    frames = "".join(_frame_html(step, index in unfolded) for index, step in enumerate(steps))
    kind = ' class="message"' if words else ""
    return f"<h2{kind}>{escape(title)}</h2>{frames}"


def _is_own(step: _Step) -> bool:
    """Tell whether a frame is the user's own code: not a library, not ours."""
    return not step.module.startswith("lamella.") and f"{os.sep}site-packages{os.sep}" not in step.file


def _frame_html(step: _Step, unfolded: bool) -> str:
    place = f"<b>{escape(step.code.co_qualname)}</b> <span class=soft>{escape(step.file)}:{step.line}</span>"
    rows = []
    for number in range(max(1, step.line - _CONTEXT), step.line + _CONTEXT + 1):
        text = linecache.getline(step.file, number)
        if text:
            here = ' class="here"' if number == step.line else ""
            rows.append(f"<span{here}><i>{number}</i>{escape(text.rstrip()[:_LONGEST])}</span>")
    source = f"<pre>{''.join(rows)}</pre>" if rows else ""
    return f"<details{' open' if unfolded else ''}><summary>{place}</summary>{source}</details>"
