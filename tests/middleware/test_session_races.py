"""Sessions under a deterministic scheduler: requests that interleave at every call of the store.

Each request runs in a greenlet and gives way before each operation on the store, so that one
seed is one interleaving, and a failure can be repeated.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import greenlet  # type: ignore[import-untyped]
import pytest

from lamella.middleware._session_store import Record, Store, open_store
from lamella.middleware._store_memcached import MemcachedStore
from lamella.middleware.session import SessionMiddleware
from lamella.stack.testing import Response, call, environ

SECRET = "0123456789abcdefghijklmnopqrstuvwxyzABCDEF"
INTERLEAVINGS = 10_000 if os.environ.get("LAMELLA_FULL") else 1_500


class Scheduler:
    """Runs requests by turns, in an order that a seed decides."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._main = greenlet.getcurrent()

    def give_way(self) -> None:
        """Let another request go on; outside of a request, do nothing."""
        if greenlet.getcurrent() is not self._main:
            self._main.switch()

    def run(self, requests: dict[str, Callable[[], Response]]) -> dict[str, Response]:
        """Run all to their end."""
        answers: dict[str, Response] = {}
        waiting = []
        for name, request in requests.items():
            waiting.append(greenlet.greenlet(partial(_answer, answers, name, request)))
        while waiting:
            chosen = self._chance.choice(waiting)
            chosen.switch()
            if chosen.dead:
                waiting.remove(chosen)
        return answers


def _answer(answers: dict[str, Response], name: str, request: Callable[[], Response]) -> None:
    answers[name] = request()


class YieldingStore:
    """A store that gives way before each operation."""

    single_process = None

    def __init__(self, store: Store, scheduler: Callable[[], Scheduler]) -> None:
        self._store = store
        self._scheduler = scheduler

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._store, name)

        def yielding(*args: Any) -> Any:
            self._scheduler().give_way()
            return operation(*args)

        return yielding


class FakeMemcached:
    """The few commands of memcached that the store uses, with compare-and-set; gives way before each."""

    def __init__(self, scheduler: Callable[[], Scheduler]) -> None:
        self._items: dict[str, tuple[bytes, int]] = {}
        self._cas = 0
        self._scheduler = scheduler

    def _put(self, key: str, value: bytes) -> bool:
        self._cas += 1
        self._items[key] = (value, self._cas)
        return True

    def get(self, key: str) -> bytes | None:
        """Return a value."""
        return self.gets(key)[0]

    def gets(self, key: str) -> tuple[bytes | None, bytes | None]:
        """Return a value and its number."""
        self._scheduler().give_way()
        found = self._items.get(key)
        return (None, None) if found is None else (found[0], str(found[1]).encode())

    def add(self, key: str, value: bytes, expire: int = 0) -> bool:
        """Set a value that is not there."""
        self._scheduler().give_way()
        return key not in self._items and self._put(key, value)

    def set(self, key: str, value: bytes, expire: int = 0) -> bool:
        """Set a value."""
        self._scheduler().give_way()
        return self._put(key, value)

    def cas(self, key: str, value: bytes, cas: bytes, expire: int = 0) -> bool:
        """Set a value that nobody set since; one that has ended is not there."""
        self._scheduler().give_way()
        found = self._items.get(key)
        if found is None or str(found[1]).encode() != cas:
            return False
        if expire < 0:
            del self._items[key]
            return True
        return self._put(key, value)

    def delete(self, key: str) -> bool:
        """Remove a value."""
        self._scheduler().give_way()
        return self._items.pop(key, None) is not None

    def close(self) -> None:
        """Nothing to close."""


def app(request: dict[str, Any], start_response: Any) -> list[bytes]:
    """Reads, then does what the query says."""
    session = request["lamella.session"]
    body = ",".join(sorted(session)).encode()
    what = request["QUERY_STRING"]
    if what == "logout":
        session.invalidate()
    elif what in ("login", "login2"):
        session["user"] = "alice"
        session.rotate()
    elif what:
        session[what] = 1
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]


class World:
    """One layer, one session, many interleavings."""

    def __init__(self, kind: str) -> None:
        self.scheduler = Scheduler(0)
        if kind == "memcached":
            store = MemcachedStore("memcached://127.0.0.1:1", lambda: 1000.0)
            fake = FakeMemcached(lambda: self.scheduler)
            store._client = lambda: fake  # type: ignore[assignment]
            self.store: Any = store
        elif kind == "sql":
            self.store = open_store("sqlite+pysqlite://", lambda: 1000.0)
            ask = self.store._ask

            def yielding(statement: Any) -> Any:
                self.scheduler.give_way()
                return ask(statement)

            self.store._ask = yielding
        else:
            self.store = YieldingStore(open_store("memory:", lambda: 1000.0), lambda: self.scheduler)
        self.layer = SessionMiddleware(app, secret=SECRET, store=self.store, clock=lambda: 1000.0)

    def ask(self, what: str, cookie: str = "") -> Response:
        """One request."""
        more: dict[str, Any] = {"cookie": cookie} if cookie else {}
        return call(self.layer, environ("GET", f"/?{what}", **more))

    def race(self, seed: int, *requests: str) -> tuple[str, dict[str, Response]]:
        """Let requests with one cookie interleave; return the cookie and the answers."""
        self.scheduler = Scheduler(seed)
        cookie = cookie_of(self.ask("first"))
        return cookie, self.scheduler.run({name: partial(self.ask, name, cookie) for name in requests})


def cookie_of(response: Response) -> str:
    """The cookie that an answer sets."""
    (line,) = response.header_list("Set-Cookie")
    return line.partition(";")[0]


worlds = pytest.mark.parametrize("kind", ["memory", "memcached"])


@worlds
def test_no_interleaving_revives_a_session(kind: str) -> None:
    """Two writers, a login and a logout, in every order the seeds make: after the logout, nothing of it is left."""
    world = World(kind)
    for seed in range(INTERLEAVINGS):
        cookie, answers = world.race(seed, "a", "b", "logout")
        assert world.ask("", cookie).body == b"", f"seed {seed}"
        for name in "ab":  # who lost gets no cookie; who came later began anew
            started = answers[name].header_list("Set-Cookie")
            assert not started or answers[name].body == b"", f"seed {seed}"
            if started:
                assert world.ask("", cookie_of(answers[name])).text == name


@worlds
def test_no_interleaving_loses_a_key(kind: str) -> None:
    """Four writers on different keys: all four are kept."""
    world = World(kind)
    for seed in range(INTERLEAVINGS // 4):
        cookie, _ = world.race(seed, "a", "b", "c", "d")
        assert world.ask("", cookie).text == "a,b,c,d,first", f"seed {seed}"


@worlds
def test_no_interleaving_leaves_the_old_id_alive(kind: str) -> None:
    """Writers beside a login: the old id is dead, the new one has what was there before."""
    world = World(kind)
    for seed in range(INTERLEAVINGS // 4):
        cookie, answers = world.race(seed, "a", "login", "b")
        assert world.ask("", cookie).body == b"", f"seed {seed}"
        assert {"first", "user"} <= set(world.ask("", cookie_of(answers["login"])).text.split(",")), f"seed {seed}"


@pytest.mark.parametrize("kind", ["memory", "memcached", "sql"])
def test_no_interleaving_saves_a_rotated_session_from_a_logout(kind: str) -> None:
    """Two logins, a writer and a logout: in no order of single operations an id of the session lives on."""
    world = World(kind)
    for seed in range(INTERLEAVINGS // (10 if kind == "sql" else 1)):
        cookie, answers = world.race(seed, "login", "login2", "a", "logout")
        assert world.ask("", cookie).body == b"", f"seed {seed}"
        for name, answer in answers.items():
            if answer.body and answer.header("Set-Cookie"):  # it had the session, not a new one
                assert world.ask("", cookie_of(answer)).body == b"", f"seed {seed}, {name}"


def test_the_scheduler_would_find_a_careless_store() -> None:
    """A store that writes all of a session, whether it is there or not, is caught: the test can fail."""
    world = World("memory")
    careless: Any = world.store._store

    def commit(key: str, version: int, change: Any) -> None:
        careless._records[change.rename or key] = (
            {name: json.dumps(value) for name, value in change.data.items()},
            careless_record,
        )

    careless_record = Record({}, 1, 1000.0, 5000.0, False)
    careless.commit = commit

    revived = 0
    for seed in range(200):
        cookie, _ = world.race(seed, "a", "b", "logout")
        revived += world.ask("", cookie).body != b""

    assert revived > 0
