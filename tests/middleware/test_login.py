"""LoginMiddleware: the form, who stays signed in, and what guards both."""

from __future__ import annotations

import html
import os
import re
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from wsgiref.types import WSGIApplication

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.middleware._remember import RememberStore
from lamella.middleware._throttle import Throttle
from lamella.middleware.access import AccessMiddleware
from lamella.middleware.csrf import CSRFMiddleware
from lamella.middleware.login import FORM, SIGNED_IN, LoginMiddleware
from lamella.middleware.session import SessionMiddleware
from lamella.stack.kernel.errors import ConfigError, MissingLayerError
from lamella.stack.kernel.keys import CLIENT, IDENTITY, SESSION, Client, Identity
from lamella.stack.testing import RecordingApp, call, environ, lint
from lamella.stack.testing.fakes import FakeSession

# alice-password, hashed cheaply.
USERS = {"alice": "$2y$04$e4lT0444YXMjQ4suE0Gz5.qSPOlXb2K8L5N2UbhV0EqO1s0a0WUjy"}
CONTRACT = {"headers": {SESSION.name: FakeSession()}}
BROWSER: dict[str, Any] = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8", "sec_fetch_mode": "navigate"}


def check(user: str, password: str) -> bool:
    """A callable that lets in whoever says his name twice."""
    return user == password


def layer(app: WSGIApplication, **options: Any) -> WSGIApplication:
    """The layer under test, with the linter on both of its sides."""
    options.setdefault("users", USERS)
    return lint(LoginMiddleware(lint(app), **options))


class Browser:
    """A browser with one session; the session is a fake that records."""

    def __init__(self, app: WSGIApplication, **headers: Any) -> None:
        self.app = app
        self.session = FakeSession()
        self.headers = headers
        self.cookie = ""

    def get(self, path: str, **headers: Any) -> Any:
        """One GET as a browser sends it."""
        return self._call("GET", path, **{**BROWSER, **headers})

    def form(self, path: str = "/login", **headers: Any) -> dict[str, str]:
        """The hidden fields of the form."""
        page = self.get(path, **headers).text
        pairs = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', page)
        return {name: html.unescape(value) for name, value in pairs}

    def post(self, path: str, fields: Any, **headers: Any) -> Any:
        """One form sent."""
        body = fields if isinstance(fields, bytes) else urlencode(fields).encode()
        headers = {"content_type": "application/x-www-form-urlencoded", **BROWSER, **headers}
        return self._call("POST", path, body=body, **headers)

    def sign_in(self, user: str = "alice", password: str = "alice-password", target: str = "", **fields: str) -> Any:
        """Open the form, fill it in, send it."""
        path = "/login" + ("?" + urlencode({"next": target}) if target else "")
        return self.post("/login", {**self.form(path), "username": user, "password": password, **fields})

    def _call(self, method: str, path: str, **headers: Any) -> Any:
        request = environ(method, path, **{**self.headers, **headers})
        SESSION.set(request, self.session)
        if self.cookie:
            request["HTTP_COOKIE"] = self.cookie
        answer = call(self.app, request)
        for line in answer.header_list("Set-Cookie"):
            pair = line.partition(";")[0]
            self.cookie = "" if "Max-Age=0" in line else pair
        return answer


def test_signs_in_and_stays_signed_in() -> None:
    """The form, then a redirect to where the user was going, then the identity on each request."""
    app = RecordingApp()
    browser = Browser(layer(app, roles={"staff": ["alice"]}))

    response = browser.sign_in(target="/notes?page=2")

    assert (response.code, response.header("Location")) == (303, "/notes?page=2")
    assert (browser.session.rotated, app.called) == (1, 0)
    assert browser.get("/notes").code == 200
    identity = IDENTITY.require(app.environ)
    assert (identity.user, identity.scheme, identity.roles) == ("alice", "session", frozenset({"staff"}))
    assert identity.claims["remembered"] is False
    assert abs(identity.claims["auth_time"] - time.time()) < 5
    assert (app.environ["REMOTE_USER"], app.environ["AUTH_TYPE"]) == ("alice", "session")


def test_the_next_user_finds_nothing_of_the_one_before() -> None:
    """What one user left in the session is not for another who signs in at the same browser; one's own stays."""
    browser = Browser(layer(RecordingApp(), users=lambda user, password: True))
    browser.session["cart"] = "of nobody yet"
    browser.sign_in("alice")
    assert browser.session["cart"] == "of nobody yet"
    browser.session["cart"] = "of alice"

    browser.sign_in("alice")
    assert browser.session["cart"] == "of alice"
    browser.sign_in("bob")

    assert "cart" not in browser.session
    assert browser.session.rotated == 3


def test_the_session_of_a_removed_user_is_emptied() -> None:
    """Who is no longer known is signed out, and leaves nothing to the next at the same browser."""
    users = dict(USERS)
    browser = Browser(layer(RecordingApp(), users=users))
    browser.sign_in("alice")
    browser.session["cart"] = "of alice"
    record = browser.session[SIGNED_IN]
    assert isinstance(record, dict)
    record["stamp"] = "of another password"

    browser.get("/")

    assert len(browser.session) == 0


@pytest.mark.parametrize(("user", "password"), [("alice", "wrong"), ("nobody", "x"), ("", ""), ("a\nb", "x")])
def test_a_wrong_password_shows_the_form_again(user: str, password: str) -> None:
    """One message for all mistakes; the name stays, the password does not."""
    browser = Browser(layer(RecordingApp()))

    response = browser.sign_in(user, password)

    assert response.code == 403
    assert "User name or password is wrong." in response.text
    assert not password or f'"{password}"' not in response.text
    assert SIGNED_IN not in browser.session
    assert browser.session.rotated == 0


def test_the_form_keeps_name_and_target_escaped() -> None:
    """What the client sent comes back as text, never as markup, and the password never."""
    browser = Browser(layer(RecordingApp()))

    response = browser.sign_in('"><script>', "pass-word-123", target='/x?"><script>')

    assert "<script>" not in response.text
    assert 'value="&quot;&gt;&lt;script&gt;"' in response.text
    assert "pass-word-123" not in response.text


def test_sends_a_browser_to_the_form() -> None:
    """A 401 from inside becomes a redirect that remembers the way; its body is dropped and closed."""
    app = RecordingApp(status="401 Unauthorized", body=[b"secret page"])
    for late in (False, True):
        app = RecordingApp(status="401 Unauthorized", body=[b"secret page"], late=late)
        response = Browser(layer(app)).get("/notes/caf%C3%A9?a=b&c")

        assert response.code == 303
        assert response.header("Location") == "/login?next=/notes/caf%25C3%25A9%3Fa%3Db%26c"
        assert response.header("Cache-Control") == "no-store"
        assert (response.body, app.closed) == (b"", 1)


def test_the_way_back_is_the_way_there() -> None:
    """Through redirect, form and login the address stays what it was."""
    browser = Browser(layer(RecordingApp(status="401 Unauthorized")))

    there = str(browser.get("/notes/caf%C3%A9?a=b&c=%20").header("Location"))
    fields = browser.form(there)
    response = browser.post("/login", {**fields, "username": "alice", "password": "alice-password"})

    assert response.header("Location") == "/notes/caf%C3%A9?a=b&c=%20"


@pytest.mark.parametrize(
    "headers",
    [
        {"accept": "application/json"},
        {"accept": "*/*"},
        {"accept": "text/html", "sec_fetch_mode": "cors"},
        {"accept": "text/html", "x_requested_with": "XMLHttpRequest"},
        {},
    ],
)
def test_a_client_that_is_no_browser_gets_the_401(headers: dict[str, Any]) -> None:
    """APIs and scripts are told, not led to a page."""
    app = layer(RecordingApp(status="401 Unauthorized"))
    request = environ("GET", "/", **headers)
    SESSION.set(request, FakeSession())

    response = call(app, request)

    assert response.code == 401
    assert response.header("WWW-Authenticate") == 'Cookie realm="restricted", form-action="/login"'


def test_required_asks_everybody() -> None:
    """With ``required`` nothing inside is asked without a login."""
    app = RecordingApp()
    browser = Browser(layer(app, required=True))

    assert browser.get("/x").header("Location") == "/login?next=/x"
    assert browser.get("/x", accept="application/json").code == 401
    assert app.called == 0
    browser.sign_in()
    assert browser.get("/x").code == 200


def test_a_form_that_failed_is_not_sent_again_after_login() -> None:
    """After a POST the way back cannot be a link: home it is."""
    browser = Browser(layer(RecordingApp(status="401 Unauthorized"), home="/start"))

    assert browser.post("/x", {}).header("Location") == "/login"
    assert browser.sign_in().header("Location") == "/start"


def test_works_below_a_mount() -> None:
    """All addresses carry the prefix."""
    browser = Browser(layer(RecordingApp(status="401 Unauthorized")), SCRIPT_NAME="/caf\u00c3\u00a9")

    assert browser.get("/x").header("Location") == "/caf%C3%A9/login?next=/caf%25C3%25A9/x"
    assert 'action="/caf%C3%A9/login"' in browser.get("/login").text
    assert browser.sign_in().header("Location") == "/caf%C3%A9/"
    assert browser.sign_in(target="next").header("Location") == "/caf%C3%A9/next"


def test_every_target_of_the_corpus_stays_on_the_site(corpus: Any) -> None:
    """Through the whole layer: nothing leads away, and each Location is clean ASCII."""
    data = corpus("redirect_targets")
    app = LoginMiddleware(RecordingApp(), users=check, path="/login/start", attempts=10_000)
    browser = Browser(app, host="app.example", **{"wsgi.url_scheme": "https"})
    fields = browser.form("/login/start")
    token = browser.session[FORM]

    def location(target: str) -> str:
        browser.session[FORM] = token
        sent = {**fields, "username": "a", "password": "a", "next": target.encode("utf-8", "surrogatepass")}
        return str(browser.post("/login/start", sent).header("Location"))

    for case in data["cases"]:
        found = location(case["target"])
        assert found.isascii()
        assert found.isprintable()
        assert re.match(r"/(?![/\\])", found)
        assert found == "/" or case["verdict"] == "same_origin"
    assert [
        target
        for target in data["must_allow"]
        if target.rstrip("/") not in ("", "https://app.example") and location(target) == "/"
    ] == []


# --- what guards the form -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:81"},
        {"origin": "\x00"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "x"},
    ],
)
def test_refuses_a_form_from_another_site(headers: dict[str, Any]) -> None:
    """Nobody can sign a browser in as somebody else (login CSRF), or out."""
    browser = Browser(layer(RecordingApp()))
    fields = {**browser.form(), "username": "alice", "password": "alice-password"}

    assert browser.post("/login", fields, **headers).code == 403
    assert SIGNED_IN not in browser.session
    browser.sign_in()
    assert browser.post("/logout", {}, **headers).code == 403
    assert browser.session.invalidated == 0


@pytest.mark.parametrize("token", [None, "", "x", "A" * 86, "\u00e9"])
def test_refuses_a_form_without_its_token(token: str | None) -> None:
    """A form must come from our page, in this session."""
    browser = Browser(layer(RecordingApp()))
    fields = browser.form()
    fields.pop("token")
    if token is not None:
        fields["token"] = token

    response = browser.post("/login", {**fields, "username": "alice", "password": "alice-password"})

    assert response.code == 403
    assert "expired" in response.text
    assert SIGNED_IN not in browser.session


def test_a_token_of_another_session_is_none() -> None:
    """Tokens differ each time, and none fits another session."""
    app = layer(RecordingApp())
    one, other = Browser(app), Browser(app)
    first, second = one.form()["token"], one.form()["token"]

    assert first != second
    stolen = {"token": first, "username": "alice", "password": "alice-password"}
    other.form()
    assert other.post("/login", stolen).code == 403
    assert one.post("/login", stolen).code == 303


@pytest.mark.parametrize(
    ("body", "headers", "code"),
    [
        (b"x" * 20_000, {}, 413),
        (b"a=%ff", {}, 400),
        (b"&".join(b"a=b" for _ in range(50)), {}, 400),
        (b"{}", {"content_type": "application/json"}, 415),
        (b"x", {"content_type": "\x00;="}, 415),
        (b"x", {"CONTENT_LENGTH": "-1"}, 400),
        (b"x", {"CONTENT_LENGTH": "5"}, 400),
        (b"x", {"CONTENT_LENGTH": "9" * 30}, 400),
    ],
)
def test_a_malformed_form_is_an_answer(body: bytes, headers: dict[str, Any], code: int) -> None:
    """Too large, cut off, of another type, not UTF-8: the right 4xx."""
    assert Browser(layer(RecordingApp())).post("/login", body, **headers).code == code


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=80))
def test_any_body_is_an_answer(body: bytes) -> None:
    """Random bytes are never an exception."""
    app = LoginMiddleware(RecordingApp(), users=check)

    assert Browser(app).post("/login", body).code in (400, 403)


def test_other_methods_are_refused() -> None:
    """The form is for GET and POST; HEAD has no body."""
    browser = Browser(layer(RecordingApp()))

    for path in ("/login", "/logout"):
        answer = browser._call("PUT", path)
        assert (answer.code, answer.header("Allow")) == (405, "GET, HEAD, POST")
        assert browser._call("HEAD", path).body == b""


def test_the_page_is_kept_from_frames_and_caches() -> None:
    """No framing, no storing, no scripts; its style is allowed by its hash."""
    response = Browser(layer(RecordingApp())).get("/login")

    policy = str(response.header("Content-Security-Policy"))
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert response.header("Cache-Control") == "no-store"
    assert response.header("X-Frame-Options") == "DENY"
    assert "<script" not in response.text


def test_refuses_an_ambiguous_path() -> None:
    """As every layer that decides by path."""
    assert Browser(layer(RecordingApp())).get("//login").code == 400


# --- throttle -----------------------------------------------------------------------------------


def test_throttles_a_user_from_one_address() -> None:
    """After five failures also the right password has to wait; others do not."""
    app = layer(RecordingApp(), users=check)
    browser = Browser(app)

    assert [browser.sign_in("alice", "x").code for _ in range(7)] == [403] * 5 + [429] * 2
    refused = browser.sign_in("alice", "alice")
    assert refused.code == 429
    assert 0 < int(str(refused.header("Retry-After"))) <= 301
    assert Browser(app).sign_in("bob", "bob").code == 303
    assert Browser(app, REMOTE_ADDR="192.0.2.9").sign_in("alice", "alice").code == 303


def test_success_is_not_counted() -> None:
    """Only failures count, however often somebody signs in."""
    browser = Browser(layer(RecordingApp(), users=check))

    assert [browser.sign_in("alice", "alice").code for _ in range(30)] == [303] * 30


def test_the_address_is_the_trusted_one() -> None:
    """Behind a trusted proxy it is the client's, not the proxy's."""
    throttled = layer(RecordingApp(), users=check, attempts=1)

    def attempt(address: str) -> int:
        browser = Browser(throttled)
        fields = {**browser.form(), "username": "a", "password": "x"}
        headers: dict[str, Any] = {CLIENT.name: Client("http", "localhost", address)}
        return int(browser.post("/login", fields, **headers).code)

    assert [attempt("192.0.2.1"), attempt("192.0.2.1"), attempt("192.0.2.2")] == [403, 429, 403]


def test_throttle_counts_by_address_by_user_and_by_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times the attempts for an address, ten times for a user; an IPv6 /64 is one; then the window ends."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    throttle = Throttle(2, 60)

    assert [throttle.begin("a", "::1") > 0 for _ in range(3)] == [False, False, True]
    assert [throttle.begin(f"u{i}", "192.0.2.1") > 0 for i in range(9)] == [False] * 8 + [True]
    assert [throttle.begin("b", f"192.0.3.{i}") > 0 for i in range(21)] == [False] * 20 + [True]
    throttle.begin("v", "2001:db8::1")
    throttle.begin("v", "2001:db8::2")
    assert throttle.begin("v", "2001:db8::3") > 0
    assert throttle.begin("v", "2001:db8:0:1::") == 0
    now[0] = 61
    assert throttle.begin("a", "::1") == 0


def test_throttle_keeps_no_names_and_little_memory() -> None:
    """A flood of names leaves a bounded number of digests."""
    throttle = Throttle(5, 60, entries=100)

    for i in range(1000):
        throttle.begin(f"name-{i}" * 20, f"not an address {i}")
    assert len(throttle._counters) == 100
    assert all(len(key) == 16 for key in throttle._counters)


def test_parallel_attempts_count_too() -> None:
    """An attempt is counted before it is made: eight threads have no more attempts than one."""
    throttle = Throttle(5, 60)
    made: list[float] = []
    threads = [
        threading.Thread(target=lambda: made.extend(throttle.begin("a", "::1") for _ in range(50))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert made.count(0.0) == 5


# --- staying, leaving ---------------------------------------------------------------------------


def test_a_changed_password_signs_out(tmp_path: Path) -> None:
    """So does a removed user, at the next request, in every browser."""
    path = tmp_path / "users"
    path.write_text(f"alice:{USERS['alice']}\n")
    app = RecordingApp()
    browser = Browser(layer(app, users=path))
    browser.sign_in()
    browser.get("/")
    assert IDENTITY.get(app.environ) is not None

    path.write_text("")
    browser.get("/")

    assert IDENTITY.get(app.environ) is None
    assert SIGNED_IN not in browser.session


@pytest.mark.parametrize(
    "record",
    [
        5,
        {},
        {"user": "alice"},
        {"user": "alice", "stamp": "x"},
        {"user": 5, "stamp": "x"},
        {"user": "a\n", "stamp": ""},
    ],
)
def test_a_broken_record_is_nobody(record: Any) -> None:
    """Whatever stands in the session: an identity or none, never an exception."""
    app = RecordingApp()
    browser = Browser(layer(app))
    browser.session[SIGNED_IN] = record

    assert browser.get("/").code == 200
    assert IDENTITY.get(app.environ) is None


def test_logout_asks_then_forgets() -> None:
    """A GET shows a button; the POST ends the session."""
    browser = Browser(layer(RecordingApp()))
    browser.sign_in()

    assert "Sign out" in browser.get("/logout").text
    assert browser.session.invalidated == 0
    response = browser.post("/logout", browser.form("/logout"))
    assert (response.code, response.header("Location")) == (303, "/")
    assert (browser.session.invalidated, dict(browser.session)) == (1, {})


def test_logout_believes_the_browser_or_the_token() -> None:
    """An app's own button needs no token where the browser says the page was ours; otherwise it does."""
    browser = Browser(layer(RecordingApp()))

    assert browser.post("/logout", {}, origin="http://localhost").code == 303
    assert browser.post("/logout", {}, sec_fetch_site="same-origin").code == 303
    assert browser.post("/logout", {}).code == 403


def test_a_callable_may_bring_roles_and_claims() -> None:
    """They are kept in the session, with what the option gives on top."""

    def users(user: str, password: str) -> Identity:
        return Identity(user, "x", {"mail": "a@b.example"}, frozenset({"editor"}))

    app = RecordingApp()
    browser = Browser(layer(app, users=users, roles={"admin": ["zoe"]}))
    browser.sign_in("zoe", "x")
    browser.get("/")

    identity = IDENTITY.require(app.environ)
    assert identity.roles == {"editor", "admin"}
    assert identity.claims["mail"] == "a@b.example"


def test_never_overwrites_an_identity_from_outside() -> None:
    """The layer outside was first, so it wins."""
    app = RecordingApp()
    browser = Browser(layer(app))
    browser.sign_in()

    browser.get("/", **{IDENTITY.name: Identity("carol", "bearer")})

    assert IDENTITY.require(app.environ).user == "carol"


def test_needs_a_session() -> None:
    """Without one the message names the layer to add."""
    with pytest.raises(MissingLayerError, match="session"):
        call(layer(RecordingApp()), environ("GET", "/"))


# --- remember me --------------------------------------------------------------------------------


@pytest.fixture
def remembering(tmp_path: Path) -> tuple[Any, RecordingApp, Path]:
    """The layer with remember-me, its app and its file."""
    app, path = RecordingApp(), tmp_path / "remember.db"
    return layer(app, remember="30d", remember_file=path, users=check), app, path


def test_remembers_after_the_session_has_ended(remembering: Any) -> None:
    """A new session is signed in by the cookie, which is replaced and works once."""
    built, app, path = remembering
    browser = Browser(built)
    assert "Keep me signed in" in browser.get("/login").text
    response = browser.sign_in("zoe", "zoe", remember="1")
    line = response.header_list("Set-Cookie")[0]
    first = browser.cookie

    assert "Max-Age=2592000" in line
    assert {"Secure", "HttpOnly", "SameSite=Lax"} <= set(line.split("; "))
    browser.session = FakeSession()
    browser.get("/")
    identity = IDENTITY.require(app.environ)
    assert (identity.user, identity.claims["remembered"]) == ("zoe", True)
    assert browser.session.rotated == 1
    assert browser.cookie != first
    stored = path.read_bytes() + Path(f"{path}-wal").read_bytes() if Path(f"{path}-wal").exists() else path.read_bytes()
    assert browser.cookie.partition(".")[2].encode() not in stored
    assert path.stat().st_mode & 0o077 == 0


def test_without_the_tick_nothing_is_remembered(remembering: Any) -> None:
    """The box is for the user to tick."""
    browser = Browser(remembering[0])

    assert browser.sign_in("zoe", "zoe").header_list("Set-Cookie") == []


def test_a_copied_token_ends_the_series(remembering: Any) -> None:
    """One that was replaced is a copy: both holders are out."""
    built, app, path = remembering
    browser, thief = Browser(built), Browser(built)
    browser.sign_in("zoe", "zoe", remember="1")
    thief.cookie = browser.cookie
    browser.session = FakeSession()
    browser.get("/")
    with sqlite3.connect(path) as database:
        database.execute("UPDATE remembered SET rotated = rotated - 100")
    database.close()

    thief.get("/")
    assert IDENTITY.get(app.environ) is None
    browser.session = FakeSession()
    browser.get("/")
    assert IDENTITY.get(app.environ) is None
    assert browser.cookie == ""


def test_requests_at_the_same_time_are_no_theft(remembering: Any) -> None:
    """A browser that sends the replaced token once more within a minute stays signed in."""
    built, app, _ = remembering
    browser, tab = Browser(built), Browser(built)
    browser.sign_in("zoe", "zoe", remember="1")
    tab.cookie = browser.cookie
    browser.session = FakeSession()

    browser.get("/")
    assert tab.get("/").header_list("Set-Cookie") == []
    assert IDENTITY.require(app.environ).user == "zoe"


def test_logout_revokes_the_token(remembering: Any) -> None:
    """After logout the cookie is gone, and a copy of it is worth nothing."""
    built, app, _ = remembering
    browser = Browser(built)
    browser.sign_in("zoe", "zoe", remember="1")
    kept = browser.cookie

    browser.post("/logout", {}, origin="http://localhost")
    assert browser.cookie == ""
    browser.cookie, browser.session = kept, FakeSession()
    browser.get("/")
    assert IDENTITY.get(app.environ) is None


def test_a_changed_password_revokes_the_token(tmp_path: Path) -> None:
    """Who sets a new password is signed out everywhere."""
    users = tmp_path / "users"
    users.write_text(f"alice:{USERS['alice']}\n")
    app = RecordingApp()
    browser = Browser(layer(app, users=users, remember="1d", remember_file=tmp_path / "db", secure=False))
    browser.sign_in(remember="1")
    users.write_text(f"alice:{USERS['alice'][:-1]}z\n")
    browser.session = FakeSession()

    browser.get("/")

    assert IDENTITY.get(app.environ) is None
    assert browser.cookie == ""


def test_a_store_forgets_what_is_old_or_revoked(tmp_path: Path) -> None:
    """Expired tokens, revoked users, malformed tokens: None."""
    store = RememberStore(tmp_path / "db")
    old, other = store.issue("a", "s", 10, 1000), store.issue("b", "s", 100, 1000)

    assert store.redeem(old, 1011) is None
    assert store.redeem("x", 1000) is None
    assert store.redeem("\x00" * 60, 1000) is None
    assert store.revoke_user("b") == 1
    assert store.redeem(other, 1000) is None
    RememberStore(tmp_path / "db")


def test_a_lost_file_costs_the_memory_only(remembering: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Without its database nobody is remembered, and all else works."""
    built, _, path = remembering
    browser = Browser(built)
    for file in path.parent.glob("remember.db*"):
        file.unlink()
    path.mkdir()

    assert browser.sign_in("zoe", "zoe", remember="1").code == 303
    browser.session, browser.cookie = FakeSession(), "remember=x"
    assert browser.get("/").code == 200
    assert "remembered" in caplog.text
    assert browser.post("/logout", {}, origin="http://localhost").code == 303


# --- options ------------------------------------------------------------------------------------


def test_takes_a_page_of_the_user_s_own(tmp_path: Path) -> None:
    """A template gets the same names; what is text is escaped."""
    page = tmp_path / "login.html"
    page.write_text(
        "<h1>{{ title }}</h1>{{ alert }}<form method=post action='{{action}}'>{{ fields }}{{ user }}</form>"
    )
    browser = Browser(layer(RecordingApp(), template=page, title="<Shop>"))

    assert "<h1>&lt;Shop&gt;</h1>" in browser.get("/login").text
    assert browser.sign_in().code == 303


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"path": "login"}, "path"),
        ({"path": "/l;x"}, "path"),
        ({"path": "//x"}, "path"),
        ({"path": "/\u00e9"}, "path"),
        ({"logout_path": "/login"}, "logout_path"),
        ({"home": "https://x"}, "home"),
        ({"attempts": 0}, "attempts"),
        ({"attempts": True}, "attempts"),
        ({"window": "soon"}, "window"),
        ({"title": ""}, "title"),
        ({"realm": "a\nb"}, "realm"),
        ({"required": 1}, "required"),
        ({"users": {"a": "plain-password"}}, "hash"),
        ({"template": "/no/such/file"}, "template"),
        ({"remember": "30d"}, "remember_file"),
        ({"remember": "1s", "remember_file": "x"}, "a minute"),
        ({"remember_file": "x"}, "remember too"),
        ({"remember": "1d", "remember_file": "/no/such/folder/x"}, "remember_file"),
        ({"remember": "1d", "remember_file": "x", "remember_cookie": "a b"}, "remember_cookie"),
    ],
)
def test_refuses_a_wrong_option_at_build(
    options: dict[str, Any], expected: str, tmp_path: Path, monkeypatch: Any
) -> None:
    """Each mistake names its option, and shows no password."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=expected) as caught:
        layer(RecordingApp(), **options)
    assert "plain-password" not in str(caught.value)


@pytest.mark.parametrize("text", ["{{ fields }}", "{{ action }}", "{{ action }}{{ fields }}{{ secret }}"])
def test_refuses_a_template_that_cannot_work(text: str, tmp_path: Path) -> None:
    """A form without its token, or an unknown name."""
    page = tmp_path / "page.html"
    page.write_text(text)

    with pytest.raises(ConfigError, match="template"):
        layer(RecordingApp(), template=page)


def test_shows_no_password(caplog: pytest.LogCaptureFixture) -> None:
    """Neither log, nor page, nor repr, nor session hold it."""
    built = LoginMiddleware(RecordingApp(), users=USERS)
    browser = Browser(built)
    with caplog.at_level(0):
        wrong = browser.sign_in("alice", "hunter2-hunter2")
        browser.sign_in()

    shown = caplog.text + wrong.text + str(wrong.headers) + repr(vars(built)) + str(dict(browser.session))
    assert "hunter2-hunter2" not in shown
    assert "alice-password" not in shown
    assert USERS["alice"] not in shown


# --- with the real session ----------------------------------------------------------------------


def whole(app: WSGIApplication, **options: Any) -> WSGIApplication:
    """Session, csrf, login and access, as a stack has them."""
    rules: list[Any] = [{"path": "/open", "allow": "anonymous"}, {"allow": "authenticated"}]
    guarded = AccessMiddleware(app, rules=rules)
    login = LoginMiddleware(guarded, users=USERS, **options)
    return lint(SessionMiddleware(CSRFMiddleware(login), secret="0123456789abcdefghijklmnopqrstuvwxyz", secure=False))


def test_the_whole_way_with_a_real_session() -> None:
    """Redirect, form (with the csrf layer's field too), login under a new cookie, page, logout."""
    app = RecordingApp()
    built = whole(app)

    def ask(method: str, path: str, cookie: str = "", fields: Any = None) -> Any:
        headers = {**BROWSER, "cookie": cookie}
        if fields is not None:
            headers |= {"content_type": "application/x-www-form-urlencoded", "body": urlencode(fields).encode()}
        return call(built, environ(method, path, **headers))

    assert ask("GET", "/open").code == 200
    assert ask("GET", "/x").header("Location") == "/login?next=/x"
    page = ask("GET", "/login?next=/x")
    cookie = page.header_list("Set-Cookie")[0].partition(";")[0]
    pairs = re.findall(r'type="hidden" name="([^"]*)" value="([^"]*)"', page.text)
    fields = {name: html.unescape(value) for name, value in pairs}
    done = ask("POST", "/login", cookie, {**fields, "username": "alice", "password": "alice-password"})
    assert (done.code, done.header("Location")) == (303, "/x")
    signed_in = done.header_list("Set-Cookie")[0].partition(";")[0]
    assert signed_in != cookie
    assert ask("GET", "/x", signed_in).code == 200
    assert app.environ["REMOTE_USER"] == "alice"
    assert ask("GET", "/x", cookie).code == 303
    out = call(built, environ("POST", "/logout", cookie=signed_in, origin="http://localhost", **BROWSER))
    assert out.code == 303
    assert "Max-Age=0" in str(out.header("Set-Cookie"))


@pytest.fixture
def site(services: Any) -> Iterator[str]:
    """The whole stack on a real port."""
    with services.wsgiref(whole(RecordingApp(headers=[("Content-Type", "text/plain")]))) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.mark.server
def test_a_real_browser_signs_in_and_out(site: str) -> None:
    """Chromium is led to the form, signs in, comes back, and signs out; the page's own policy lets its style in."""
    chromium = shutil.which("chromium")
    if chromium is None:
        assert not os.environ.get("CI"), "chromium is missing"
        pytest.skip("chromium is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.goto(f"{site}/notes?page=2")
        assert page.url == f"{site}/login?next=/notes%3Fpage%3D2"
        assert page.evaluate("getComputedStyle(document.querySelector('main')).borderTopLeftRadius") == "12px"
        assert complaints == []
        page.fill("#username", "alice")
        page.fill("#password", "wrong")
        page.click("button")
        assert page.text_content("[role=alert]") == "User name or password is wrong."
        page.fill("#password", "alice-password")
        page.click("button")
        assert (page.url, page.text_content("body")) == (f"{site}/notes?page=2", "hello")
        page.goto(f"{site}/logout")
        page.click("button")
        assert page.url == f"{site}/login?next=/"
        browser.close()
