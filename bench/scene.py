"""What every stack of the comparison does: one site, one user, one session; and the proof that it does it.

``/app/hello/<name>`` answers ``hello <name>``, ``/app/read/<name>`` reads one key of the session and
``/app/write/<name>`` writes one; all behind Basic auth, CORS and an access log that writes each line at
once, beside static files under ``/static/``.
"""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

USER, PASSWORD, REALM = "alice", "wonderland", "bench"
#: The password "wonderland", by bcrypt at the lowest cost: it is hashed once, then remembered.
PASSWORD_HASH = "$2b$04$MLuG3hKQrvh5bLQMMP0m6uUoVIM4lx8qiy18XVKayYnnVQgTLBOI6"
SECRET = "b7e1f0c9d3a84e55a6f2c1d09e8b7a6655443322110ffeeddccbbaa998877665"
ORIGIN = "https://shop.example"
CREDENTIALS = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
#: What a session holds besides the key that is read and written: 64 bytes of JSON in all.
SESSION = {"user": "bob", "theme": "dark", "cart": [3, 17, 4711]}
STYLE = b"body { margin: 0 }\n" * 54  # 1 KB

_EMPTY = io.BytesIO()
_written = itertools.count()


class Answer(NamedTuple):
    """What a WSGI application answered."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes

    def get(self, name: str) -> str | None:
        """The first header of that name."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def cookies(self) -> str:
        """All cookies that it sets, as the browser sends them back."""
        lines = [value for key, value in self.headers if key.lower() == "set-cookie"]
        return "; ".join(line.partition(";")[0] for line in lines)


def environ(path: str = "/", method: str = "GET", **fields: str) -> dict[str, Any]:
    """A request as a server hands it over, with the headers of a browser."""
    path, _, query = path.partition("?")
    return {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": "bench",
        "REMOTE_ADDR": "192.0.2.7",
        "REMOTE_PORT": "40000",
        "HTTP_HOST": "shop.example",
        "HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
        "HTTP_ACCEPT": "text/html,application/xhtml+xml,*/*;q=0.8",
        "HTTP_ACCEPT_LANGUAGE": "en-GB,en;q=0.5",
        "HTTP_ACCEPT_ENCODING": "identity",
        "HTTP_CONNECTION": "keep-alive",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": _EMPTY,
        "wsgi.errors": _Nowhere(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        **fields,
    }


class _Nowhere(io.TextIOBase):
    def write(self, text: str, /) -> int:
        return len(text)


def ask(app: Callable[..., Any], request: dict[str, Any]) -> Answer:
    """Send one request, in process."""
    started: list[Any] = []
    written: list[bytes] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> Callable[..., Any]:
        started[:] = [status, list(headers)]
        return written.append

    body = app(request.copy(), start_response)
    try:
        content = b"".join(written + list(body))
    finally:
        if hasattr(body, "close"):
            body.close()
    return Answer(started[0], started[1], content)


def signed_in(path: str, **fields: str) -> dict[str, Any]:
    """A request of a page of ``ORIGIN``, with the user's password."""
    return environ(path, HTTP_ORIGIN=ORIGIN, HTTP_AUTHORIZATION=CREDENTIALS, **fields)


def prepare(folder: Path) -> None:
    """Lay out what a stack needs on the disk."""
    (folder / "static").mkdir(parents=True, exist_ok=True)
    (folder / "static" / "style.css").write_bytes(STYLE)


def next_value() -> int:
    """What ``/app/write`` stores: another one each time."""
    return next(_written) % 90 + 10


def requests(app: Callable[..., Any]) -> dict[str, dict[str, Any]]:
    """The requests of the comparison, by the name of their column; those with a session carry the app's own cookie."""
    cookie = ask(app, signed_in("/app/write/bob")).cookies()
    return {
        "untouched": signed_in("/app/hello/bob", HTTP_COOKIE=cookie),
        "read": signed_in("/app/read/bob", HTTP_COOKIE=cookie),
        "write": signed_in("/app/write/bob", HTTP_COOKIE=cookie),
        "anonymous": environ("/app/hello/bob", HTTP_ORIGIN=ORIGIN, HTTP_COOKIE=cookie),
        "404": signed_in("/app/nothing/here", HTTP_COOKIE=cookie),
        "preflight": environ("/app/hello/bob", "OPTIONS", HTTP_ORIGIN=ORIGIN, HTTP_ACCESS_CONTROL_REQUEST_METHOD="GET"),
    }


def check_duties(app: Callable[..., Any], folder: Path) -> None:
    """Fail unless *app* does all that is asked of a stack: nobody is fast by leaving work out."""
    log = folder / "access.log"
    asked = requests(app)

    before = log.read_text().count("\n")
    answer = ask(app, asked["untouched"])
    expect(answer.status.startswith("200") and answer.body == b"hello bob", answer)
    expect(answer.get("Access-Control-Allow-Origin") == ORIGIN, answer)
    expect(answer.get("Set-Cookie") is None, answer)
    lines = log.read_text().splitlines()
    expect(len(lines) == before + 1 and "/app/hello/bob" in lines[-1] and "200" in lines[-1], lines[-3:])

    answer = ask(app, asked["anonymous"])
    expect(answer.status.startswith("401") and "basic" in (answer.get("WWW-Authenticate") or "").lower(), answer)
    wrong = "Basic " + base64.b64encode(b"alice:wrong").decode()
    expect(ask(app, asked["untouched"] | {"HTTP_AUTHORIZATION": wrong}).status.startswith("401"), "a wrong password")

    answer = ask(app, asked["preflight"])
    expect(answer.status[0] == "2" and answer.get("Access-Control-Allow-Origin") == ORIGIN, answer)
    expect("GET" in (answer.get("Access-Control-Allow-Methods") or ""), answer)
    stranger = ask(app, asked["untouched"] | {"HTTP_ORIGIN": "https://evil.example"})
    expect(stranger.get("Access-Control-Allow-Origin") is None, stranger)

    answer = ask(app, asked["write"])
    expect("session=" in answer.cookies() and answer.body.startswith(b"wrote "), answer)
    value = answer.body.removeprefix(b"wrote ")
    answer = ask(app, asked["read"] | {"HTTP_COOKIE": answer.cookies()})
    expect(answer.body == b"read " + value, answer)
    forged = asked["read"]["HTTP_COOKIE"][:-3] + "xyz"
    expect(ask(app, asked["read"] | {"HTTP_COOKIE": forged}).body == b"read None", "a forged session")

    expect(ask(app, asked["404"]).status.startswith("404"), "no such page")
    answer = ask(app, environ("/static/style.css"))
    expect(answer.status.startswith("200") and answer.body == STYLE, answer.status)


def expect(met: bool, found: object) -> None:
    """Fail where a duty is not met."""
    if not met:
        raise AssertionError(f"a duty is not met: {found}")
