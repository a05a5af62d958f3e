"""SessionMiddleware: what is kept, what the answer says, what is refused."""

from __future__ import annotations

import base64
import json
import logging
import os
import random
import sys
import time
from collections.abc import Callable
from typing import Any
from wsgiref.types import WSGIApplication

import pytest

from lamella.middleware._session_store import Record, StoreDownError, open_store
from lamella.middleware.session import (
    SessionMiddleware,
    SessionTooLargeError,
    SessionUnavailableError,
    SessionWriteError,
)
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.options import Secret
from lamella.stack.testing import RecordingApp, Response, call, conformance, environ, lint

SECRET = "0123456789abcdefghijklmnopqrstuvwxyzABCDEF"
OLD_SECRET = "zyxwvutsrqponmlkjihgfedcba9876543210ZYXWVU"
STORES = ["cookie", "memory:"]
# Of each kind of cookie. A million of each take five minutes: LAMELLA_MUTATIONS=1000000.
MUTATIONS = int(os.environ.get("LAMELLA_MUTATIONS") or (50_000 if os.environ.get("LAMELLA_FULL") else 5_000))

Visit = Callable[[Any], object]


class Browser:
    """Asks an app, and sends back the cookies it was given.

    ``get(visit)`` runs *visit* on the session inside the app.
    """

    def __init__(self, **options: Any) -> None:
        self.inner = RecordingApp(before=self._visit)
        self.layer = layer(self.inner, **options)
        self.cookies: dict[str, str] = {}
        self._next: Visit | None = None
        self.seen: Any = None

    def _visit(self, request: dict[str, Any]) -> None:
        if self._next is not None:
            self.seen = self._next(request["lamella.session"])

    def get(self, visit: Visit | None = None, **more: Any) -> Response:
        """Ask with the cookies kept so far."""
        self._next = visit
        if self.cookies:
            more.setdefault("cookie", "; ".join(f"{name}={value}" for name, value in self.cookies.items()))
        response = call(self.layer, environ("GET", "/", **more))
        for line in response.header_list("Set-Cookie"):
            name, _, value = line.partition(";")[0].partition("=")
            if "Max-Age=0" in line:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value
        return response

    def look(self) -> dict[str, Any]:
        """What the session holds."""
        self.get(dict)
        found: dict[str, Any] = self.seen
        return found


def layer(app: WSGIApplication, **options: Any) -> WSGIApplication:
    """The layer under test, with the linter on both of its sides."""
    options.setdefault("secret", SECRET)
    return lint(SessionMiddleware(lint(app), **options))


def put(**values: Any) -> Visit:
    """A visit that sets keys."""
    return lambda session: session.update(values)


class Clock:
    """A time that a test moves."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class DownStore:
    """A store that fails while it is told to, over one in memory."""

    single_process = None

    def __init__(self) -> None:
        self.down = False
        self.asked = 0
        self._store = open_store("memory:", time.time)

    def __getattr__(self, name: str) -> Any:
        def ask(*args: Any) -> Any:
            self.asked += 1
            if self.down:
                raise StoreDownError("nobody is there")
            return getattr(self._store, name)(*args)

        if name not in ("load", "create", "commit", "delete", "touch", "acquire", "release", "count", "purge", "close"):
            raise AttributeError(name)
        return ask


@pytest.fixture(params=STORES)
def browser(request: pytest.FixtureRequest) -> Browser:
    """A browser before an app with a session, in its cookie and in a store."""
    return Browser(store=request.param)


# --- what is kept -------------------------------------------------------------------------------


def test_keeps_what_was_written(browser: Browser) -> None:
    """The next request of the browser finds it, and a changed value after that."""
    for expected in (1, 2, 3):
        browser.get(lambda session: session.update(n=session.get("n", 0) + 1))
        assert browser.look() == {"n": expected}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda session: session["cart"].append("b"), id="a list"),
        pytest.param(lambda session: session.get("cart").append("b"), id="by get"),
        pytest.param(lambda session: next(iter(session.values())).append("b"), id="by values"),
        pytest.param(lambda session: session.setdefault("cart", []).append("b"), id="by setdefault"),
    ],
)
def test_notices_nested_changes(browser: Browser, change: Visit) -> None:
    """A change inside of a value needs no mark."""
    browser.get(put(cart=["a"]))
    browser.get(change)

    assert browser.look() == {"cart": ["a", "b"]}


def test_tells_true_from_one(browser: Browser) -> None:
    """Values that compare equal in Python are different JSON."""
    browser.get(put(a=1, b=[1]))
    browser.get(put(a=True, b=[True]))

    assert [type(value) for value in (browser.look()["a"], browser.look()["b"][0])] == [bool, bool]


def test_deletes_keys(browser: Browser) -> None:
    """``del``, ``pop``, ``clear``."""
    browser.get(put(a=1, b=2, c=3))
    browser.get(lambda session: (session.pop("a"), session.pop("none", None), session.__delitem__("b")))
    assert browser.look() == {"c": 3}

    browser.get(lambda session: session.clear())
    assert browser.look() == {}


def test_is_a_mapping(browser: Browser) -> None:
    """With everything that a mapping does."""
    browser.get(put(a=1))

    def look(session: Any) -> None:
        assert (len(session), list(session), "a" in session, "b" in session) == (1, ["a"], True, False)
        assert (session.get("b"), session.get("b", 7), bool(session), session == {"a": 1}) == (None, 7, True, True)
        assert repr(session) == "<Session loaded>"
        with pytest.raises(KeyError):
            session["b"]
        with pytest.raises(KeyError):
            del session["b"]

    browser.get(look)


def test_flashes_once(browser: Browser) -> None:
    """Messages come in order, once, with their categories."""
    browser.get(lambda session: (session.flash("saved"), session.flash("full", "warning")))
    browser.get(lambda session: session.flashes())
    assert browser.seen == [("message", "saved"), ("warning", "full")]

    browser.get(lambda session: session.flashes())
    assert browser.seen == []


def test_knows_how_old_it_is() -> None:
    """``created`` stays, ``is_new`` is for the first request only."""
    clock = Clock()
    for store in STORES:
        browser = Browser(store=store, clock=clock)
        begun = clock.now
        browser.get(lambda session: (session.update(a=1), session.created, session.is_new))
        assert browser.seen == (None, begun, True)

        clock.now += 100
        browser.get(lambda session: (session.created, session.is_new))
        assert browser.seen == (begun, False)


def test_keeps_its_beginning_over_many_writes() -> None:
    """To the millisecond, however often the cookie is written anew."""
    browser = Browser(clock=(clock := Clock()))
    clock.now += 0.123
    browser.get(put(n=0))
    browser.get(lambda session: session.created)
    begun = browser.seen
    for number in range(50):
        browser.get(put(n=number))

    browser.get(lambda session: session.created)
    assert browser.seen == begun


def test_outlives_the_browser_when_permanent() -> None:
    """``permanent`` gives the cookie the session's own end."""
    clock = Clock()
    for store in STORES:
        browser = Browser(store=store, clock=clock, idle="1h", absolute="90m")
        plain = browser.get(put(a=1))
        assert "Max-Age" not in str(plain.header("Set-Cookie"))

        lasting = browser.get(lambda session: setattr(session, "permanent", True))
        assert "; Max-Age=3600" in str(lasting.header("Set-Cookie"))
        browser.get(lambda session: session.permanent)
        assert browser.seen is True


def test_rotates() -> None:
    """A new cookie, the same values; on a server the old one is dead."""
    browser = Browser(store="memory:")
    browser.get(put(a=1))
    old = dict(browser.cookies)
    browser.get(lambda session: session.rotate())

    assert browser.cookies != old
    assert browser.look() == {"a": 1}
    browser.cookies = old
    assert browser.look() == {}


def test_invalidates(browser: Browser) -> None:
    """The cookie is expired, and what is written after is a session of its own."""
    browser.get(put(secret=1))
    old = dict(browser.cookies)
    answer = browser.get(lambda session: session.invalidate())
    assert "Max-Age=0" in str(answer.header("Set-Cookie"))
    assert browser.cookies == {}

    browser.cookies = dict(old)
    browser.get(lambda session: (session.invalidate(), session.flash("bye")))
    assert browser.cookies != old
    assert browser.look() == {"_flashes": [["message", "bye"]]}


# --- what it costs to leave it alone ------------------------------------------------------------


def test_leaves_an_answer_alone_that_did_not_look() -> None:
    """No store call, no cookie, no header."""
    store = DownStore()
    browser = Browser(store=store)
    browser.get(put(a=1))
    asked = store.asked

    answer = browser.get()

    assert answer.headers == [("Content-Type", "text/plain; charset=utf-8")]
    assert store.asked == asked


def test_sets_no_cookie_for_a_look() -> None:
    """Reading sends nothing, nor does writing what is there already."""
    for store in STORES:
        browser = Browser(store=store)
        browser.get(put(a=1, b=[1]))
        for visit in (dict, put(a=1), put(b=[1]), lambda session: session["b"]):
            assert browser.get(visit).header("Set-Cookie") is None


def test_makes_no_record_for_a_crawler() -> None:
    """10,000 requests without a cookie, to pages that look but do not write: no record, and no question."""
    store = DownStore()
    app = RecordingApp(before=lambda request: request["lamella.session"].get("user"))
    crawled = SessionMiddleware(app, secret=SECRET, store=store)  # type: ignore[arg-type]
    for _ in range(10_000):
        call(crawled, environ("GET", "/"))

    assert store.asked == 0


LOOKS = {
    "in": lambda session: "a" in session,
    "len": len,
    "pop": lambda session: session.pop("a", None),
    "iter": list,
    "get": lambda session: session.get("a"),
    "bool": bool,
    "is_new": lambda session: session.is_new,
    "created": lambda session: session.created,
    "permanent": lambda session: session.permanent,
    "flashes": lambda session: session.flashes(),
    "set": lambda session: session.update(a=1),
    "rotate": lambda session: session.rotate(),
    "invalidate": lambda session: session.invalidate(),
}


@pytest.mark.parametrize("look", LOOKS)
def test_tells_caches_of_every_look(browser: Browser, look: str) -> None:
    """``Vary: Cookie`` and ``Cache-Control: private``, however little was looked at (CVE-2023-30861)."""
    answer = browser.get(LOOKS[look])

    assert (answer.header("Vary"), answer.header("Cache-Control")) == ("Cookie", "private")


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ("no-store", "no-store"),
        ("public, max-age=60", "max-age=60, private"),
        ("max-age=60, s-maxage=600", "max-age=60, private"),
        ("private, no-cache", "no-cache, private"),
        ('private="Set-Cookie", max-age=1', "max-age=1, private"),
        ("No-Store, Public", "No-Store"),
        ('x="unclosed', "no-store"),
    ],
)
def test_never_weakens_cache_control(sent: str, expected: str) -> None:
    """What the app said of its caching stays, but for what would share it."""
    app = RecordingApp(
        headers=[("Content-Type", "text/plain"), ("Cache-Control", sent), ("vary", "Accept")],
        before=lambda r: len(r["lamella.session"]),
    )

    answer = call(layer(app), environ())

    assert (answer.header("Cache-Control"), answer.header("Vary")) == (expected, "Accept, Cookie")


# --- too late -----------------------------------------------------------------------------------


def late_write(request: dict[str, Any], start_response: Any) -> Any:
    """An app that writes after its first block."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"first"
    request["lamella.session"]["late"] = 1


@pytest.mark.parametrize(
    "change",
    [
        lambda session: session.update(a=2),
        lambda session: session.pop("a"),
        lambda session: session.rotate(),
        lambda session: session.invalidate(),
        lambda session: session.flash("x"),
        lambda session: setattr(session, "permanent", True),
    ],
)
def test_refuses_changes_after_the_start(change: Visit) -> None:
    """They could not reach the browser any more: an error, not silence."""
    browser = Browser()
    browser.get(put(a=1))
    (cookie,) = (f"{name}={value}" for name, value in browser.cookies.items())

    def app(request: dict[str, Any], start_response: Any) -> Any:
        session = request["lamella.session"]
        len(session)
        start_response("200 OK", [("Content-Type", "text/plain")])
        with pytest.raises(SessionWriteError, match="start_response"):
            change(session)
        assert session["a"] == 1  # reading goes on
        return [b""]

    assert call(layer(app), environ(cookie=cookie)).header("Set-Cookie") is None


def test_refuses_a_first_look_after_the_headers() -> None:
    """They lack ``Vary`` for ever."""
    with pytest.raises(SessionWriteError):
        call(layer(late_write), environ())


def test_tells_of_a_nested_change_that_came_too_late() -> None:
    """When the body is closed, naming the key."""

    def app(request: dict[str, Any], start_response: Any) -> Any:
        request["lamella.session"]["cart"] = []
        start_response("200 OK", [("Content-Type", "text/plain")])
        request["lamella.session"]["cart"].append("lost")
        return [b""]

    with pytest.raises(SessionWriteError, match="'cart'"):
        call(layer(app), environ())


def test_takes_a_look_between_start_and_body() -> None:
    """An app that starts before it reads still gets its ``Vary``: the headers are held that long."""

    def app(request: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(len(request["lamella.session"])).encode()]

    def late(request: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield str(len(request["lamella.session"])).encode()

    for inner in (app, late):
        answer = call(layer(inner), environ())
        assert (answer.body, answer.header("Vary")) == (b"0", "Cookie")


@pytest.mark.parametrize("shape", [{"late": True}, {"write": [b"written"]}, {"body": []}, {"late": True, "body": []}])
def test_commits_before_the_headers(shape: dict[str, Any]) -> None:
    """Whatever shape the app has: started late, written, empty."""
    app = RecordingApp(before=put_in_environ, **shape)

    assert call(layer(app), environ()).header_list("Set-Cookie") != []


def put_in_environ(request: dict[str, Any]) -> None:
    """Set a key of the session."""
    request["lamella.session"]["a"] = 1


def test_keeps_its_cookie_on_an_error_page() -> None:
    """A second start with ``exc_info`` takes over the answer, and the session's headers with it."""

    def app(request: dict[str, Any], start_response: Any) -> Any:
        put_in_environ(request)
        start_response("200 OK", [("Content-Type", "text/plain")])
        try:
            raise ValueError("no")
        except ValueError:
            start_response("500 Internal Server Error", [("Content-Type", "text/plain")], sys.exc_info())
        return [b"sorry"]

    answer = call(layer(app), environ())

    assert answer.code == 500
    assert len(answer.header_list("Set-Cookie")) == 1


def test_keeps_nothing_when_the_app_raises() -> None:
    """No answer, no commit."""
    store = DownStore()
    app = RecordingApp(before=put_in_environ, raises=ValueError("boom"))

    call(layer(app, store=store), environ(), keep_error=True)

    assert store.asked == 0


# --- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        object(),
        b"bytes",
        {1, 2},
        float("nan"),
        float("inf"),
        {1: "a"},
        [object()],
        pytest.param(10**5000, id="a huge number"),
        {"a": {"b": {3: 1}}},
    ],
)
def test_refuses_what_is_no_json(browser: Browser, value: Any) -> None:
    """Where it is set, with the name of its key; the rest of the request goes on."""

    def visit(session: Any) -> None:
        with pytest.raises(TypeError, match="cart"):
            session["cart"] = value
        session["fine"] = 1

    browser.get(visit)

    assert browser.look() == {"fine": 1}


def test_refuses_what_is_no_json_in_a_nested_change(browser: Browser) -> None:
    """At the commit, with the name of its key."""
    browser.get(put(cart=[]))

    with pytest.raises(TypeError, match="cart"):
        browser.get(lambda session: session["cart"].append(object()))


def test_refuses_keys_that_are_no_text(browser: Browser) -> None:
    """They would come back as text."""
    with pytest.raises(TypeError, match="no text"):
        browser.get(lambda session: session.__setitem__(1, "a"))


def test_refuses_bottomless_values(browser: Browser) -> None:
    """A list in itself has no JSON."""
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(TypeError, match="100 deep"):
        browser.get(put(loop=loop))


# --- lifetimes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("store", STORES)
def test_ends_when_idle(store: str) -> None:
    """Each use prolongs it; a pause ends it."""
    clock = Clock()
    browser = Browser(store=store, idle="30m", clock=clock)
    browser.get(put(a=1))
    for _ in range(5):
        clock.now += 25 * 60
        assert browser.look() == {"a": 1}

    clock.now += 31 * 60
    assert browser.look() == {}


@pytest.mark.parametrize("store", STORES)
def test_ends_absolutely(store: str) -> None:
    """However much it is used; the browser cannot prolong it."""
    clock = Clock()
    browser = Browser(store=store, idle="30m", absolute="1h", clock=clock)
    browser.get(put(n=0))
    for _ in range(5):
        clock.now += 11 * 60
        browser.get(lambda session: session.update(n=session["n"] + 1))

    clock.now += 11 * 60
    assert browser.look() == {}


@pytest.mark.parametrize("store", STORES)
def test_ends_without_limits_too(store: str) -> None:
    """After 14 days without use: nothing lives for ever."""
    clock = Clock()
    browser = Browser(store=store, clock=clock)
    browser.get(put(a=1))

    clock.now += 13 * 86400
    assert browser.look() == {"a": 1}
    clock.now += 15 * 86400
    assert browser.look() == {}


def test_notes_its_use_rarely() -> None:
    """A cookie, or a store call, for a mere look comes at most twenty times in an idle period."""
    clock = Clock()
    store = DownStore()
    for browser in (Browser(idle="1h", clock=clock), Browser(store=store, idle="1h", clock=clock)):
        browser.get(put(a=1))
        sent = 0
        for _ in range(360):
            clock.now += 10
            sent += browser.get(dict).header("Set-Cookie") is not None
        assert sent <= 20
    assert store.asked <= 1 + 360 + 20


# --- cookies ------------------------------------------------------------------------------------


def test_sets_its_attributes() -> None:
    """Safe ones, unless told otherwise."""
    plain = Browser().get(put(a=1))
    other = Browser(
        cookie_name="__Secure-s", path="/x", domain="example.com", same_site="None", http_only=False, partitioned=True
    ).get(put(a=1))

    assert str(plain.header("Set-Cookie")).endswith("; Path=/; Secure; HttpOnly; SameSite=Lax")
    assert str(other.header("Set-Cookie")).endswith("; Path=/x; Domain=example.com; Secure; SameSite=None; Partitioned")


@pytest.mark.parametrize("encrypt", [False, True])
def test_cuts_a_long_session(encrypt: bool) -> None:
    """Into lines of at most 4096 bytes; cookies that are needed no longer are expired."""
    browser = Browser(max_bytes="36 KiB", encrypt=encrypt)
    values = random.Random(7).randbytes(9000).hex()
    answer = browser.get(put(long=values))
    lines = answer.header_list("Set-Cookie")

    assert len(lines) > 4
    assert max(map(len, lines)) <= 4096
    assert browser.look() == {"long": values}

    browser.get(put(long=values[:5000]))
    assert browser.look() == {"long": values[:5000]}
    browser.get(lambda session: session.pop("long") and session.update(a=1))
    assert list(browser.cookies) == ["session"]
    browser.get(lambda session: session.invalidate())
    assert browser.cookies == {}


def test_expires_the_chunks_it_was_sent_and_no_others() -> None:
    """Whatever numbers a browser has left, and never a cookie that is only called like one."""
    browser = Browser()
    browser.get(put(long="x" * 4000))
    browser.cookies |= {"session-5": "stale", "session-20": "other", "my-session-3": "other", "session-x": "other"}
    before = dict(browser.cookies)
    browser.get(put(long="y" * 4000))
    expired = before.keys() - browser.cookies.keys()
    browser.get(lambda session: session.clear())

    assert expired == {"session-5"}
    assert browser.cookies.keys() == {"session-20", "my-session-3", "session-x"}


def test_refuses_a_session_over_the_limit() -> None:
    """A clear error at the write, nothing cut off."""
    browser = Browser()
    browser.get(put(a=1))

    with pytest.raises(SessionTooLargeError, match="server-side store"):
        browser.get(put(long="x" * 6000))
    assert browser.look() == {"a": 1}


def test_loses_the_whole_of_a_session_that_lacks_a_chunk() -> None:
    """A part alone, or parts of two sessions, are no session."""
    browser, other = Browser(), Browser()
    browser.get(put(long="x" * 4000))
    other.get(put(long="y" * 4000))
    whole = dict(browser.cookies)
    assert len(whole) == 2

    browser.cookies = {"session": whole["session"]}
    assert browser.look() == {}
    browser.cookies = whole | {"session-1": other.cookies["session-1"]}
    assert browser.look() == {}


@pytest.mark.parametrize("store", STORES)
def test_changes_its_key(store: str) -> None:
    """The first signs, all verify; a cookie of an old key is sent anew, so that the old one can go."""
    browser = Browser(secret=OLD_SECRET, store=store if store == "cookie" else (shared := DownStore()))
    browser.get(put(a=1))
    more = {"store": "cookie"} if store == "cookie" else {"store": shared}
    rotated = Browser(secret=[SECRET, OLD_SECRET], **more)
    rotated.cookies = dict(browser.cookies)

    assert rotated.look() == {"a": 1}
    assert rotated.cookies != browser.cookies
    only_new = Browser(secret=[SECRET], **more)
    only_new.cookies = dict(rotated.cookies)
    assert only_new.look() == {"a": 1}
    only_new.cookies = dict(browser.cookies)
    assert only_new.look() == {}


def test_takes_no_cookie_of_another_name() -> None:
    """The same secret and two names: the key is derived over the name, with its length."""
    for store in STORES:
        one = Browser(cookie_name="a", store=store)
        one.get(put(user="root"))
        other = Browser(cookie_name="b", store=store)
        other.cookies = {"b": one.cookies["a"]}
        assert other.look() == {}


def test_takes_no_cookie_of_another_purpose() -> None:
    """Encrypted, signed, or only an id: none stands in for another."""
    kinds: list[dict[str, Any]] = [{}, {"encrypt": True}, {"store": "memory:"}]
    browsers = [Browser(**kind) for kind in kinds]
    for browser in browsers:
        browser.get(put(a=1))
    for browser in browsers:
        for other in browsers:
            if other is not browser:
                stranger = Browser(**kinds[browsers.index(browser)])
                stranger.cookies = dict(other.cookies)
                assert stranger.look() == {}


def test_prefers_what_holds_to_what_was_tossed() -> None:
    """A sub-domain's worthless cookie of the same name does not log anybody out."""
    browser = Browser()
    browser.get(put(a=1))
    good = browser.cookies["session"]

    for header in (f"session=junk; session={good}", f"session={good}; session=junk", f"=session=junk; session={good}"):
        browser.get(dict, cookie=header)
        assert browser.seen == {"a": 1}


def test_adopts_no_unknown_id() -> None:
    """An id that the store does not know gets a new one, also where it was once ours (fixation)."""
    browser = Browser(store="memory:")
    browser.get(put(a=1))
    planted = dict(browser.cookies)
    browser.get(lambda session: session.invalidate())
    browser.cookies = dict(planted)
    browser.get(put(mine=1))

    assert browser.cookies != planted
    browser.cookies = planted
    assert browser.look() == {}


@pytest.mark.parametrize(
    "value",
    ["x\r\nFLUSHALL", "../../etc/passwd", "a\x00b", "a" * 43, "a" * 87, "é" * 87, "a" * 43 + "." + "b" * 43, ""],
)
def test_asks_no_store_for_a_strange_id(value: str) -> None:
    """Length, letters and signature come first."""
    store = DownStore()
    app = RecordingApp(before=lambda request: len(request["lamella.session"]))

    call(SessionMiddleware(app, secret=SECRET, store=store), environ(cookie=f"session={value}"))  # type: ignore[arg-type]

    assert store.asked == 0


# --- forgery ------------------------------------------------------------------------------------


def mutate(token: str, other: str, chance: random.Random) -> str:
    """A cookie value that is not *token*."""
    at = chance.randrange(len(token))
    letters = 'ABCabc012-_=.~+/ %"\\,é\x00'
    kind = chance.randrange(12)
    if kind == 0:
        return token[:at] + chance.choice(letters) + token[at + 1 :]
    if kind == 1:
        return token[:at]
    if kind == 2:
        return token[:at] + other[at:]
    if kind == 3:
        return token[:at] + chance.choice(letters) + token[at:]
    if kind == 4:
        return token + chance.choice(["=", "==", "A", ".", " x", "~"])
    if kind == 5:
        return token.replace("-", "+").replace("_", "/") if set("-_") & set(token) else token + "=="
    if kind == 6:
        return token[:at] + token[at + 1 :]
    if kind == 7:
        return chance.choice(["2~", "1~", "10~", "99999999999~"]) + token
    if kind == 8:
        return token.swapcase()
    if kind == 9:
        payload = base64.urlsafe_b64encode(json.dumps([0, 1e13, 0, {"admin": True}]).encode()).decode().rstrip("=")
        return f"{payload}.{token.rpartition('.')[2]}"
    if kind == 10:
        flipped = chr(ord(token[at]) ^ (1 << chance.randrange(7)))
        return token[:at] + flipped + token[at + 1 :]
    return base64.b64encode(token.encode()).decode()


@pytest.mark.parametrize("options", [{}, {"encrypt": True}, {"store": "memory:"}], ids=["signed", "encrypted", "id"])
def test_accepts_no_mutated_cookie(options: dict[str, Any]) -> None:
    """Bits, splices, other spellings, other keys: none is taken, none raises."""
    browser, foreign = Browser(**options), Browser(**options | {"secret": OLD_SECRET})
    browser.get(put(user="alice"))
    foreign.get(put(user="mallory", admin=True))
    token, other = browser.cookies["session"], foreign.cookies["session"]
    seen: list[Any] = []
    app = RecordingApp(before=lambda request: seen.append(dict(request["lamella.session"])))
    attacked = SessionMiddleware(app, **{"secret": SECRET, **options})
    chance = random.Random(20261121)
    altered = 0
    for _ in range(MUTATIONS):
        value = mutate(token, other, chance)
        # The field's own grammar: a value ends at a semicolon and has no space around it.
        if value.strip(" \t") != token:
            call(attacked, environ(cookie=f"session={value}"))
            altered += seen.pop() != {}
    call(attacked, environ(cookie=f"session={other}"))

    assert altered == 0
    assert seen.pop() == {}


@pytest.mark.timing
def test_refuses_in_the_same_time_however_much_matches() -> None:
    """One digest over all, compared as a whole: a signature wrong at its start or at its end."""
    browser = Browser()
    browser.get(put(user="alice"))
    token = browser.cookies["session"]
    from lamella.middleware._session_cookie import signing

    unseal = signing([SECRET.encode()], "session").unseal
    head = token[:-43]

    def fastest(value: str) -> float:
        best = 1.0
        for _ in range(40):
            begun = time.perf_counter()
            for _ in range(100):
                unseal(value)
            best = min(best, time.perf_counter() - begun)
        return best

    early = fastest(head + ("A" if token[-43] != "A" else "B") + token[-42:])
    late = fastest(token[:-1] + ("A" if token[-1] != "A" else "E"))

    assert 0.6 < early / late < 1.7


@pytest.mark.timing
@pytest.mark.parametrize("options", [{}, {"encrypt": True}, {"store": "memory:"}], ids=["signed", "encrypted", "id"])
@pytest.mark.parametrize(
    "header",
    [
        "session=x.y;" * 8_000,
        "session=2~x; session-1=y;" * 4_000,
        "session=2~x.;" * 2_000 + "session-1=" + "y" * 70_000,
        "session=10~x.;" * 60 + "".join(f"session-{number}={'y' * 9_000};" for number in range(1, 10)),
        f"session={'a' * 43}.{'b' * 43};" * 1_000,
        "session-" * 12_000,
        "session=10~" * 9_000,
    ],
    ids=["forged", "chunked", "a long chunk", "long chunks", "ids", "names", "counts"],
)
def test_is_linear_on_any_cookies(options: dict[str, Any], header: str) -> None:
    """100 kB of anything take less than 50 ms, to read and to expire."""
    app = RecordingApp(before=lambda request: request["lamella.session"].invalidate())
    attacked = SessionMiddleware(app, **{"secret": SECRET, **options})
    call(attacked, environ(cookie="session=x"))
    begun = time.thread_time()
    call(attacked, environ(cookie=header))

    assert time.thread_time() - begun < 0.3


def test_takes_the_first_chunk_of_each_number() -> None:
    """By the grammar of the field, whatever stands around, and not a cookie that is only called like a chunk."""
    browser = Browser()
    browser.get(put(long="x" * 4000))
    first, second = (browser.cookies[name] for name in ("session", "session-1"))

    def held(field: str) -> bool:
        browser.get(dict, cookie=field)
        return bool(browser.seen == {"long": "x" * 4000})

    assert held(f"session={first};session-1={second}")
    assert held(f" session-1 =\t{second} ;a=b;\tsession = {first} ; session-1=tossed")
    assert held(f"session=2~tossed; my-session-1=x; session-1={second}; session={first}; session-10=x")
    assert not held(f"session={first}; session-1=tossed; session-1={second}")
    assert not held(f"session={first}; my-session-1={second}")
    assert not held(f"session={first}; session-1={second}x")


# --- the store is down --------------------------------------------------------------------------


def test_says_503_while_the_store_is_down(caplog: pytest.LogCaptureFixture) -> None:
    """Also for an app that catches everything; said once in the log; well again by itself."""
    store = DownStore()

    def app(request: dict[str, Any], start_response: Any) -> Any:
        try:
            body = str(dict(request["lamella.session"])).encode()
        except Exception:
            start_response("500 Internal Server Error", [("Content-Type", "text/plain")])
            return [b"caught"]
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [body]

    browser = Browser(store=store)
    browser.get(put(a=1))
    (cookie,) = (f"{name}={value}" for name, value in browser.cookies.items())
    careless, catching = (
        layer(RecordingApp(before=lambda r: len(r["lamella.session"])), store=store),
        layer(app, store=store),
    )
    store.down = True
    with caplog.at_level(logging.INFO, "lamella.session"):
        for tried in (careless, catching):
            for _ in range(5):
                answer = call(tried, environ(cookie=cookie))
                assert (answer.code, answer.header("Retry-After")) == (503, "1")
                assert answer.header("Set-Cookie") is None
                assert b"caught" not in answer.body
        assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]  # one for each layer
        store.down = False
        time.sleep(0.55)
        assert call(catching, environ(cookie=cookie)).body == b"{'a': 1}"
    assert "answers again" in caplog.text


@pytest.mark.parametrize("late", [False, True])
def test_says_503_when_it_cannot_be_kept(late: bool) -> None:
    """A write that is not kept is never reported as done."""
    store = DownStore()
    store.down = True

    answer = call(layer(RecordingApp(before=put_in_environ, late=late), store=store), environ())

    assert (answer.code, answer.header("Set-Cookie")) == (503, None)


def test_goes_on_as_anonymous_where_told_to() -> None:
    """An empty session that keeps nothing; the cookie stays, and so does the session."""
    store = DownStore()
    browser = Browser(store=store, on_error="anonymous")
    browser.get(put(a=1))
    cookies = dict(browser.cookies)
    store.down = True
    for _ in range(3):
        answer = browser.get(lambda session: (dict(session), session.update(b=1)))
        assert (answer.code, answer.header("Set-Cookie"), browser.seen[0]) == (200, None, {})

    store.down = False
    time.sleep(0.55)
    assert browser.cookies == cookies
    assert browser.look() == {"a": 1}


def test_never_reports_a_logout_that_was_not_done() -> None:
    """Also an anonymous session says 503 then."""
    store = DownStore()
    browser = Browser(store=store, on_error="anonymous")
    browser.get(put(a=1))
    store.down = True

    assert browser.get(lambda session: session.invalidate()).code == 503


def test_frees_its_lock_when_the_app_raises() -> None:
    """The next request need not wait for the lock to end."""
    browser = Browser(store="memory:", lock=True)
    browser.get(put(n=1))

    def fail(session: Any) -> None:
        assert session["n"] == 1
        raise ValueError("boom")

    for _ in range(2):
        with pytest.raises(ValueError, match="boom"):
            browser.get(fail)
    assert browser.look() == {"n": 1}


@pytest.mark.parametrize("options", [{}, {"encrypt": True}, {"store": "memory:"}, {"store": "memory:", "lock": True}])
def test_keeps_every_rule_in_every_mode(options: dict[str, Any]) -> None:
    """The conformance suite, with the session left alone and with one that every request writes."""

    def writing(app: WSGIApplication, **more: Any) -> WSGIApplication:
        def write(request: dict[str, Any], start_response: Any) -> Any:
            request["lamella.session"]["cart"] = [1]
            return app(request, start_response)

        return SessionMiddleware(write, secret=SECRET, **more)

    assert conformance(SessionMiddleware, secret=SECRET, **options).failures == []
    assert conformance(writing, **options).failures == []


# --- options ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"secret": "short"}, "secret"),
        ({"secret": []}, "secret"),
        ({"secret": [SECRET, "short"]}, "secret"),
        ({"secret": "a" * 40}, "secret"),
        ({"secret": None}, "secret"),
        ({"idle": "soon"}, "idle"),
        ({"absolute": 0}, "absolute"),
        ({"on_error": "500"}, "on_error"),
        ({"store": "nowhere"}, "store"),
        ({"store": 7}, "store"),
        ({"lock": True}, "lock"),
        ({"encrypt": True, "store": "memory:"}, "encrypt"),
        ({"same_site": "None", "secure": False}, "same_site"),
        ({"cookie_name": "__Host-s", "path": "/x"}, "path"),
        ({"max_bytes": "much"}, "max_bytes"),
    ],
)
def test_refuses_options_that_cannot_work(options: dict[str, Any], option: str) -> None:
    """When the stack is built, by the name of the option, never showing a secret."""
    with pytest.raises(ConfigError) as caught:
        SessionMiddleware(RecordingApp(), **{"secret": SECRET, **options})

    assert caught.value.option == option
    assert "short" not in str(caught.value)


def test_tells_what_is_right_in_one_process_only() -> None:
    """A store in memory, and a secret that other processes would not know."""

    def why(**options: Any) -> str | None:
        return SessionMiddleware(RecordingApp(), **{"secret": SECRET, **options}).single_process

    assert why() is None
    assert why(secret=Secret(SECRET, "env SHOP_KEY")) is None
    assert "memory:" in str(why(store="memory:"))
    assert "insecure" in str(why(secret=[Secret(SECRET, "env KEY"), Secret(OLD_SECRET, "insecure")]))


def test_needs_no_record_of_another_format() -> None:
    """A cookie signed by an older version, in a format of its own, is no session, and no error."""
    from lamella.middleware._session_cookie import signing

    seal = signing([SECRET.encode()], "session").seal
    for content in (b"", b"7", b"[1,2,3]", b'["a","b",0,{}]', b"{", b"[1,1,0,{}]extra", b"\x00", b"\xff", b'"\xff"'):
        browser = Browser()
        browser.cookies = {"session": seal(content)}
        assert browser.look() == {}


def test_raises_an_error_of_its_own_kind() -> None:
    """One that an app may catch, and that says what is wrong."""
    assert issubclass(SessionUnavailableError, ConnectionError)
    assert Record({}, 1, 0.0, 0.0, False).version == 1
