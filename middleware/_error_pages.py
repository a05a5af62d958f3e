"""What an error looks like: a page, ``application/problem+json`` (RFC 9457), or text. Pure functions."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from html import escape
from http import HTTPStatus
from string import Template
from typing import Final, NamedTuple

from lamella.stack.kernel.http import accepts

__all__ = ["STYLE", "Page", "Problem", "choose", "content_policy", "render", "select_page", "status_line"]

# The server's favourite first: a program that names nothing (``*/*``) gets JSON, a browser names text/html.
_TYPES: Final = ("application/problem+json", "application/json", "text/html", "text/plain")

STYLE: Final = """
:root { color-scheme: light dark; --ink: #1d2430; --soft: #5c6675; --paper: #f6f7f9; --card: #fff; --line: #dfe3e8;
  --mark: #b4232c; --glow: #fdecec; --code: #f1f3f6 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --soft: #9aa4b2; --paper: #14171c; --card: #1c2027;
  --line: #303641; --mark: #ff8078; --glow: #3a2022; --code: #14171c } }
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif }
main { max-width: 34rem; margin: 18vh auto 2rem; padding: 0 1.5rem }
main.wide { max-width: 66rem; margin-top: 2.5rem }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .6rem; overflow-wrap: anywhere }
h2 { font-size: .8rem; letter-spacing: .06em; text-transform: uppercase; color: var(--soft); margin: 2.2rem 0 .6rem }
h2.message { text-transform: none; letter-spacing: 0; font-size: 1rem; color: var(--ink); overflow-wrap: anywhere }
p { margin: 0 0 .8rem }
.code { color: var(--soft); font-size: 4rem; line-height: 1; font-weight: 700; margin: 0 0 1rem }
.soft { color: var(--soft); font-size: .875rem; overflow-wrap: anywhere }
.kind { color: var(--mark); font-weight: 600; font-family: ui-monospace, monospace; margin: 0 0 .3rem }
code, pre, td { font: 13px/1.55 ui-monospace, Menlo, Consolas, monospace }
details { background: var(--card); border: 1px solid var(--line); border-radius: 8px; margin: 0 0 .5rem;
  overflow: hidden }
summary { cursor: pointer; padding: .55rem .9rem; overflow-wrap: anywhere } summary b { font-weight: 600 }
pre { margin: 0; padding: .5rem 0; background: var(--code); border-top: 1px solid var(--line);
  overflow-x: auto }
pre span { display: block; padding: 0 .9rem; white-space: pre } pre span.here { background: var(--glow) }
pre i { display: inline-block; width: 3.2em; color: var(--soft); font-style: normal; user-select: none }
table { width: 100%; border-collapse: collapse; background: var(--card); border: 1px solid var(--line) }
td { padding: .3rem .9rem; border-top: 1px solid var(--line); vertical-align: top; overflow-wrap: anywhere }
td:first-child { width: 17rem; color: var(--soft) }
ol.layers { list-style: none; margin: 0; padding: 0; display: flex; flex-wrap: wrap; gap: .4rem .2rem;
  align-items: center }
ol.layers li { font: 13px ui-monospace, monospace; padding: .25rem .6rem; border: 1px solid var(--line);
  border-radius: 6px; background: var(--card) }
ol.layers li + li { margin-left: 1.1rem; position: relative }
ol.layers li + li::before { content: "\\203a"; position: absolute; left: -1.05rem; color: var(--soft) }
ol.layers li.failed { border-color: var(--mark); color: var(--mark) }
"""


def content_policy(style: str) -> str:
    """Return a Content-Security-Policy that allows nothing but *style*."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    nothing = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    return f"{nothing}; style-src 'sha256-{digest}'"


_POLICY: Final = content_policy(STYLE)


class Problem(NamedTuple):
    """An error to show."""

    #: Status line.
    status: str
    request_id: str = ""
    #: More words, safe to show.
    detail: str = ""

    @property
    def code(self) -> int:
        """The status code."""
        return int(self.status[:3])

    @property
    def reason(self) -> str:
        """The reason phrase."""
        return self.status[4:].strip() or "Error"


class Page(NamedTuple):
    """A rendered error: what to send."""

    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


def status_line(code: int) -> str:
    """Return the status line of *code*."""
    try:
        return f"{code} {HTTPStatus(code).phrase}"
    except ValueError:
        return f"{code} Error"


def choose(accept: str) -> str:
    """Return what the client would like to read: ``html``, ``json`` or ``text``."""
    liked = accepts(accept, _TYPES) or "text/plain"
    return {"text/html": "html", "text/plain": "text"}.get(liked, "json")


def select_page(pages: Mapping[str, str], code: int) -> str | None:
    """Return the site's own page for *code*: by number, by class, or the default."""
    return pages.get(str(code)) or pages.get(f"{code // 100}xx") or pages.get("default")


def render(problem: Problem, accept: str, pages: Mapping[str, str]) -> Page:
    """Return the error in the form that the client likes best."""
    liked = choose(accept)
    if liked == "json":
        return Page("application/problem+json", problem_json(problem))
    if liked == "text":
        return Page("text/plain; charset=utf-8", _text(problem))
    own = select_page(pages, problem.code)
    if own is not None:
        values = {"status": str(problem.code), "reason": problem.reason}
        values |= {"request_id": problem.request_id, "detail": problem.detail}
        filled = Template(own).safe_substitute({name: escape(value) for name, value in values.items()})
        return Page("text/html; charset=utf-8", filled.encode("utf-8", "replace"))
    return Page("text/html; charset=utf-8", _html(problem), (("Content-Security-Policy", _POLICY),))


def problem_json(problem: Problem, **more: object) -> bytes:
    """Return *problem* as RFC 9457 has it; absent members are left out."""
    members: dict[str, object] = {"type": "about:blank", "title": problem.reason, "status": problem.code}
    if problem.detail:
        members["detail"] = problem.detail
    if problem.request_id:
        members["request_id"] = problem.request_id
    return json.dumps(members | more).encode() + b"\n"


def _text(problem: Problem) -> bytes:
    lines = [f"{problem.code} {problem.reason}", problem.detail]
    lines.append(f"request {problem.request_id}" if problem.request_id else "")
    return "".join(f"{line}\n" for line in lines if line).encode("utf-8", "replace")


_SENTENCES: Final = {
    400: "The request could not be understood.",
    401: "You need to sign in to see this.",
    403: "You may not see this.",
    404: "There is nothing at this address.",
    405: "This address does not work that way.",
    410: "What was here is gone.",
    413: "That was too large.",
    429: "That was too often. Try again in a while.",
    503: "The service is not available right now. Try again in a while.",
}


def _html(problem: Problem) -> bytes:
    known = _SENTENCES.get(problem.code)
    sentence = known or ("Something went wrong on our side." if problem.code >= 500 else "That did not work.")
    note = f'<p class="soft">Request <code>{escape(problem.request_id)}</code></p>' if problem.request_id else ""
    detail = f"<p>{escape(problem.detail)}</p>" if problem.detail else ""
    title = escape(f"{problem.code} {problem.reason}")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n'
        f'<body><main><p class="code">{problem.code}</p><h1>{escape(problem.reason)}</h1>\n'
        f"<p>{sentence}</p>{detail}{note}</main></body></html>\n"
    ).encode("utf-8", "replace")
