"""The stores of a session: each keeps the same promises, against the real servers."""

from __future__ import annotations

import multiprocessing
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from lamella.middleware._session_store import (
    MOST_NAMES,
    MOVED_SECONDS,
    Change,
    ConflictError,
    GoneError,
    Record,
    Store,
    StoreDownError,
    open_store,
)
from lamella.middleware.session import SessionMiddleware
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.testing import RecordingApp, Response, call, environ

SECRET = "0123456789abcdefghijklmnopqrstuvwxyzABCDEF"
KINDS = ["memory", "sqlite", "sqlalchemy", "postgresql", "redis", "memcached"]
SHARED = [kind for kind in KINDS if kind != "memory"]
# Continuous integration plays every round; by hand a part will do.
ROUNDS = 1000 if os.environ.get("LAMELLA_FULL") else 60
KEY = "a" * 64


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where sessions are kept, by kind."""
    kind: str = request.param
    if kind == "memory":
        return "memory:"
    if kind == "sqlite":
        return f"sqlite:///{tmp_path}/sessions.db"
    if kind == "sqlalchemy":
        return f"sqlite+pysqlite:///{tmp_path}/sessions.db"
    found: str = request.getfixturevalue({"postgresql": "postgres_url"}.get(kind, f"{kind}_url"))
    return found


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """A store that is closed at the end."""
    opened = open_store(url, time.time)
    yield opened
    opened.delete(KEY)
    opened.close()


def record(**data: Any) -> Record:
    """A record that lives for a minute."""
    now = time.time()
    return Record(data, 1, now, now + 60, False)


def change(data: dict[str, Any], *dels: str, **more: Any) -> Change:
    """A change that sets all of *data*."""
    from lamella.middleware._session_json import encode

    return Change(data, {k: encode(v) for k, v in data.items()}, list(dels), time.time() + 60, False, **more)


def new_keys(number: int) -> list[str]:
    """Names that no other test had."""
    return [secrets.token_hex(32) for _ in range(number)]


every_store = pytest.mark.parametrize("url", KINDS, indirect=True)
shared_store = pytest.mark.parametrize("url", SHARED, indirect=True)
pytestmark = pytest.mark.server


# --- the protocol -------------------------------------------------------------------------------


@every_store
def test_gives_back_what_was_created(store: Store) -> None:
    """Values, age and end come back as they went in."""
    given = record(text="äöü😀\x00\ud800", number=1.5, nested={"list": [1, None, True]})._replace(permanent=True)

    assert store.create(KEY, given)
    assert store.load(KEY) == given


@every_store
def test_never_creates_over_a_record(store: Store) -> None:
    """A second create of one key is refused and changes nothing."""
    assert store.create(KEY, record(mine=1))
    assert not store.create(KEY, record(theirs=1))

    found = store.load(KEY)
    assert found is not None
    assert found.data == {"mine": 1}


@every_store
def test_merges_commits_by_key(store: Store) -> None:
    """Two that loaded the same version keep each other's keys; deletions too."""
    store.create(KEY, record(a=1, b=1))
    loaded = store.load(KEY)
    assert loaded is not None

    store.commit(KEY, loaded.version, Change({"a": 2, "b": 1}, {"a": "2"}, [], time.time() + 60, False))
    store.commit(KEY, loaded.version, Change({"a": 1, "c": 3}, {"c": "3"}, ["b"], time.time() + 60, True))

    found = store.load(KEY)
    assert found is not None
    assert (found.data, found.permanent) == ({"a": 2, "c": 3}, True)
    assert found.version > loaded.version


@every_store
def test_refuses_a_strict_commit_of_an_old_version(store: Store) -> None:
    """Where a lock was lost, nothing is merged over the other's work."""
    store.create(KEY, record(n=1))
    store.commit(KEY, 1, change({"n": 2}))

    with pytest.raises(ConflictError):
        store.commit(KEY, 1, change({"n": 3}, strict=True))


@every_store
def test_never_revives_a_deleted_record(store: Store) -> None:
    """Neither commit nor touch brings it back."""
    store.create(KEY, record(n=1))
    store.delete(KEY)

    with pytest.raises(GoneError):
        store.commit(KEY, 1, change({"n": 2}))
    store.touch(KEY, time.time() + 60)
    assert store.load(KEY) is None


@every_store
def test_renames_in_a_commit(store: Store) -> None:
    """The old name is dead, for reading and for writing; the new one has everything."""
    new = "b" * 64
    store.create(KEY, record(a=1))
    store.commit(KEY, 1, change({"a": 1, "b": 2}, rename=new))
    try:
        assert store.load(KEY) is None
        with pytest.raises(GoneError):
            store.commit(KEY, 1, change({"late": 1}))
        found = store.load(new)
        assert found is not None
        assert found.data == {"a": 1, "b": 2}
    finally:
        store.delete(new)


@every_store
def test_deletes_a_record_by_the_names_it_had(store: Store) -> None:
    """Who knows it by an old name only, because it was renamed meanwhile, deletes it all the same; once."""
    first, second, third = new_keys(3)
    store.create(first, record(a=1))
    store.commit(first, 1, change({"a": 1}, rename=second))
    store.commit(second, 2, change({"a": 1}, rename=third))

    store.delete(first)

    assert store.load(third) is None
    with pytest.raises(GoneError):
        store.commit(third, 3, change({"late": 1}))
    for key in (first, second, third):  # every trace is gone with it
        assert store.create(key, record(other=1))
    store.delete(first)
    assert store.load(third) is not None
    store.delete(second)
    store.delete(third)


@every_store
def test_an_old_name_is_of_no_other_use(store: Store) -> None:
    """It is neither read, nor written, nor prolonged, nor in the way of a lock."""
    old, new = new_keys(2)
    store.create(old, record(a=1))
    store.commit(old, 1, change({"a": 1}, rename=new))

    store.touch(old, time.time() + 3600)
    assert store.acquire(old, "one", 30)
    store.release(old, "one")
    assert store.load(old) is None
    for strict in (False, True):
        with pytest.raises(GoneError):
            store.commit(old, 1, change({"late": 1}, strict=strict))
    found = store.load(new)
    assert found is not None
    assert (found.data, found.version) == ({"a": 1}, 2)
    store.delete(new)


@every_store
def test_renames_what_was_merged(store: Store) -> None:
    """A commit came between: the new name has the keys of both."""
    old, new = new_keys(2)
    given = record(a=1)
    store.create(old, given)
    store.commit(old, 1, change({"a": 1, "b": 2}))
    store.commit(old, 1, Change({"a": 3}, {"a": "3"}, [], given.expires + 5, True, new))

    assert store.load(new) == given._replace(
        data={"a": 3, "b": 2}, version=3, expires=given.expires + 5, permanent=True
    )
    store.delete(new)


@every_store
def test_says_when_it_cannot_follow_every_name(store: Store) -> None:
    """A logout that was not carried out is never reported as done."""
    keys = new_keys(MOST_NAMES + 2)
    store.create(keys[0], record(a=1))
    for version, (old, new) in enumerate(pairwise(keys), 1):
        store.commit(old, version, change({"a": 1}, rename=new))

    with pytest.raises(StoreDownError, match="too often"):
        store.delete(keys[0])
    store.delete(keys[-2])
    assert store.load(keys[-1]) is None


@pytest.mark.parametrize("url", ["memory", "sqlite", "sqlalchemy", "postgresql"], indirect=True)
def test_forgets_old_names(url: str) -> None:
    """They are not counted, lead nowhere after some minutes, and are removed then."""
    now = [1_000_000.0]
    store = open_store(url, lambda: now[0])
    old, new, gone, later = new_keys(4)
    for key, end in ((old, 90_000), (gone, 60)):
        store.create(key, Record({}, 1, now[0], now[0] + end, False))
    store.commit(old, 1, Change({}, {}, [], now[0] + 90_000, False, new))
    store.commit(gone, 1, Change({}, {}, [], now[0] + 60, False, later))
    assert store.count() == 2

    now[0] += MOVED_SECONDS + 1
    store.delete(old)

    assert store.load(new) is not None
    assert store.count() == 1
    store.purge()
    assert store.purge() == 0
    assert traces_of(store, old, gone, later) == []
    store.delete(new)
    store.close()


def traces_of(store: Any, *keys: str) -> list[str]:
    """Which of the keys a store has anything of, alive or not."""
    if hasattr(store, "_records"):
        return [key for key in keys if key in store._records or key in store._moved]
    if hasattr(store, "_path"):
        import sqlite3

        with closing(sqlite3.connect(store._path)) as connection:
            rows = connection.execute("SELECT id FROM lamella_session").fetchall()
    else:
        import sqlalchemy

        with store._engine().connect() as connection:
            rows = connection.execute(sqlalchemy.text("SELECT id FROM lamella_session")).fetchall()
    return [key for key in keys if key in {row[0] for row in rows}]


def test_redis_forgets_old_names(redis_url: str) -> None:
    """By itself, some minutes later."""
    import redis

    store = open_store(redis_url, time.time)
    old, new = new_keys(2)
    store.create(old, record(a=1))
    store.commit(old, 1, change({"a": 1}, rename=new))

    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        left = {key: client.pttl(key) for key in client.scan_iter(f"*{old}*")}

    assert len(left) == 1
    assert all(0 < milliseconds <= MOVED_SECONDS * 1000 for milliseconds in left.values())
    store.delete(new)
    store.close()


@every_store
def test_forgets_expired_records(store: Store) -> None:
    """What has ended is gone, is not counted and cannot be written."""
    now = time.time()
    store.create(KEY, Record({"n": 1}, 1, now, now + 0.05, False))
    time.sleep(0.1)

    assert store.load(KEY) is None
    with pytest.raises(GoneError):
        store.commit(KEY, 1, change({"n": 2}))


@every_store
def test_lets_a_record_live_longer(store: Store) -> None:
    """``touch`` moves the end."""
    store.create(KEY, record(n=1))
    later = time.time() + 3600
    store.touch(KEY, later)

    found = store.load(KEY)
    assert found is not None
    assert found.expires == later


@every_store
def test_locks_for_one_holder(store: Store) -> None:
    """Another waits until the holder lets go; a stranger cannot let go for it."""
    store.create(KEY, record())

    assert store.acquire(KEY, "one", 30)
    assert not store.acquire(KEY, "two", 30)
    store.release(KEY, "two")
    assert not store.acquire(KEY, "two", 30)
    store.release(KEY, "one")
    assert store.acquire(KEY, "two", 30)
    store.release(KEY, "two")


@pytest.mark.parametrize("url", ["memory", "sqlite", "sqlalchemy", "postgresql"], indirect=True)
def test_purges_expired_rows_without_an_operator(url: str) -> None:
    """Making a session removes what expired, at most once a minute."""
    now = [1_000_000.0]
    store = open_store(url, lambda: now[0])
    names = [f"{number:064x}" for number in range(20)]
    for name in names:
        store.create(name, Record({}, 1, now[0], now[0] + 10, False))
    assert store.count() == 20

    now[0] += 3600
    store.create(KEY, Record({}, 1, now[0], now[0] + 10, False))

    assert store.count() == 1
    assert store.purge() == 0  # already done
    store.delete(KEY)
    store.close()


# --- the layer over each store ------------------------------------------------------------------


class Counter:
    """An app that sets keys by query: ``/?set=a``, ``/?count``, ``/logout``, ``/login``, ``/read``."""

    def __call__(self, request: dict[str, Any], start_response: Any) -> list[bytes]:
        session = request["lamella.session"]
        what, _, key = request["QUERY_STRING"].partition("=")
        if what == "set":
            session[key] = 1
        elif what == "count":
            session["n"] = session.get("n", 0) + 1
        elif what == "logout":
            session.invalidate()
        elif what == "login":
            session["user"] = key
            session.rotate()
        body = ",".join(sorted(f"{name}={session[name]}" for name in session)).encode()
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]


def ask(app: Any, query: str, cookie: str = "") -> Response:
    """One request."""
    more: dict[str, Any] = {"cookie": cookie} if cookie else {}
    return call(app, environ("GET", f"/?{query}", **more))


def cookie_of(response: Response) -> str:
    """The cookie that an answer sets."""
    (line,) = response.header_list("Set-Cookie")
    return line.partition(";")[0]


def in_two_processes(work: Callable[[int], None]) -> None:
    """Run *work* twice at a time, each in a process forked from this one."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=work, args=(number,)) for number in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]


def in_two_threads(work: Callable[[int], None]) -> None:
    """Run *work* twice at a time, in threads that start together."""
    errors: list[BaseException] = []
    gate = threading.Barrier(2)

    def run(number: int) -> None:
        try:
            gate.wait(30)
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert errors == []


@shared_store
def test_loses_no_key_of_four_parallel_writers(url: str) -> None:
    """Four writers on different keys, in two processes of two threads, round after round: none is lost."""
    app = SessionMiddleware(Counter(), secret=SECRET, store=url)
    cookies = [cookie_of(ask(app, "set=first")) for _ in range(ROUNDS)]
    gate = multiprocessing.get_context("fork").Barrier(4)

    def process(number: int) -> None:
        def write(thread: int) -> None:
            for cookie in cookies:
                gate.wait(30)
                assert ask(app, f"set=k{number}{thread}", cookie).code == 200

        in_two_threads(write)

    in_two_processes(process)

    kept = [ask(app, "read", cookie).text for cookie in cookies]
    assert kept == ["first=1,k00=1,k01=1,k10=1,k11=1"] * ROUNDS


@shared_store
def test_counts_right_under_a_lock(url: str) -> None:
    """In lock mode, as many increments as there were requests."""
    app = SessionMiddleware(Counter(), secret=SECRET, store=url, lock=True)
    cookie = cookie_of(ask(app, "count"))
    each = (ROUNDS - 1) // 4 + 1

    def process(number: int) -> None:
        def count(thread: int) -> None:
            for _ in range(each):
                assert ask(app, "count", cookie).code == 200

        in_two_threads(count)

    in_two_processes(process)

    assert ask(app, "read", cookie).text == f"n={1 + 4 * each}"


@every_store
def test_a_request_that_ends_after_logout_changes_nothing(url: str) -> None:
    """It loaded the session before, and writes after: the session stays gone, and no cookie is set."""
    slow: list[Any] = []

    def app(request: dict[str, Any], start_response: Any) -> Any:
        if request["QUERY_STRING"] != "slow":
            return Counter()(request, start_response)
        session = request["lamella.session"]
        session["late"] = len(session)
        slow.append(ask(layer, "logout", request["HTTP_COOKIE"]))
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b""]

    layer = SessionMiddleware(app, secret=SECRET, store=url)
    cookie = cookie_of(ask(layer, "set=a"))

    answer = ask(layer, "slow", cookie)

    assert "Max-Age=0" in slow[0].header("Set-Cookie")
    assert answer.header("Set-Cookie") is None
    assert ask(layer, "read", cookie).text == ""


class During:
    """``/?during=WHAT``: looks at the session, lets *others* happen, and only then does what ``Counter`` does."""

    def __init__(self) -> None:
        self.others: Callable[[], object] = lambda: None

    def __call__(self, request: dict[str, Any], start_response: Any) -> Any:
        query = request["QUERY_STRING"]
        if query.startswith("during="):
            len(request["lamella.session"])
            self.others()
            request["QUERY_STRING"] = query.removeprefix("during=")
        return Counter()(request, start_response)


@every_store
def test_a_logout_reaches_what_was_rotated_meanwhile(url: str) -> None:
    """The rotation was first, even several times: the new ids die with the old one."""
    app = During()
    layer = SessionMiddleware(app, secret=SECRET, store=url)
    cookies = [cookie_of(ask(layer, "set=a"))]

    def login() -> None:
        cookies.append(cookie_of(ask(layer, "login=alice", cookies[-1])))

    def thrice() -> None:
        for _ in range(3):
            login()

    app.others = thrice
    answer = ask(layer, "during=logout", cookies[0])

    assert "Max-Age=0" in str(answer.header("Set-Cookie"))
    assert len(set(cookies)) == 4
    assert [ask(layer, "read", cookie).text for cookie in cookies] == [""] * 4


@every_store
def test_a_rotation_does_not_survive_a_logout_meanwhile(url: str) -> None:
    """The logout was first: there is nothing to rotate, and no id is handed out."""
    app = During()
    layer = SessionMiddleware(app, secret=SECRET, store=url)
    cookie = cookie_of(ask(layer, "set=a"))
    app.others = lambda: ask(layer, "logout", cookie)

    answer = ask(layer, "during=login=alice", cookie)

    assert answer.header("Set-Cookie") is None
    assert ask(layer, "read", cookie).text == ""


@every_store
def test_a_logout_with_the_id_of_a_moment_ago_ends_the_session(url: str) -> None:
    """It was sent before the browser had the new id. It sees nothing of the session, and can do nothing else to it."""
    app = SessionMiddleware(Counter(), secret=SECRET, store=url)
    before = cookie_of(ask(app, "set=a"))
    after = cookie_of(ask(app, "login=alice", before))

    assert ask(app, "read", before).text == ""
    ask(app, "set=b", before)
    ask(app, "login=mallory", before)
    assert ask(app, "read", after).text == "a=1,user=alice"

    ask(app, "logout", before)
    assert ask(app, "read", after).text == ""


@every_store
def test_a_logout_beside_a_rotation_leaves_nothing(url: str) -> None:
    """At the same moment, in threads, again and again: whoever is first, no id is alive afterwards."""
    app = During()
    layer = SessionMiddleware(app, secret=SECRET, store=url)
    both = threading.Barrier(2)
    app.others = lambda: both.wait(30)
    for _ in range(max(20, ROUNDS // 10)):
        cookie = cookie_of(ask(layer, "set=a"))
        answers: dict[int, Response] = {}

        def race(number: int, cookie: str = cookie, answers: dict[int, Response] = answers) -> None:
            answers[number] = ask(layer, ("during=logout", "during=login=alice")[number], cookie)

        in_two_threads(race)

        assert [answer.code for answer in answers.values()] == [200, 200]
        assert ask(layer, "read", cookie).text == ""
        if answers[1].header("Set-Cookie"):
            assert ask(layer, "read", cookie_of(answers[1])).text == ""


@every_store
def test_a_rotation_takes_no_lock_along(url: str) -> None:
    """Under ``lock`` the next request has the new id at once, not after thirty seconds."""
    app = SessionMiddleware(Counter(), secret=SECRET, store=url, lock=True)
    after = cookie_of(ask(app, "login=alice", cookie_of(ask(app, "set=a"))))
    begun = time.monotonic()

    assert ask(app, "read", after).text == "a=1,user=alice"
    assert time.monotonic() - begun < 5


@every_store
def test_the_old_id_is_dead_after_a_login(url: str) -> None:
    """Who had planted or stolen the id before has nothing of the session after."""
    app = SessionMiddleware(Counter(), secret=SECRET, store=url)
    before = cookie_of(ask(app, "set=cart"))

    after = cookie_of(ask(app, "login=alice", before))

    assert after != before
    assert ask(app, "read", before).text == ""
    assert ask(app, "read", after).text == "cart=1,user=alice"


@shared_store
def test_keeps_what_a_killed_worker_acknowledged(url: str) -> None:
    """``kill -9`` of the process that wrote: everything it answered is there."""
    app = SessionMiddleware(Counter(), secret=SECRET, store=url)
    cookie = cookie_of(ask(app, "set=first"))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        number = 0
        while True:
            ask(app, f"set=k{number}", cookie)
            os.write(writing, b"x")
            number += 1
    acknowledged = 0
    while acknowledged < 25:
        acknowledged += len(os.read(reading, 1))
    os.kill(child, 9)
    os.waitpid(child, 0)
    os.close(writing)
    while more := os.read(reading, 1):
        acknowledged += len(more)
    os.close(reading)

    kept = ask(app, "read", cookie).text.split(",")

    assert {f"k{number}=1" for number in range(acknowledged)} <= set(kept)


@pytest.mark.parametrize(
    "url",
    ["sqlite:///", "sqlite://host/x", "sqlite:///no/such/folder/x.db", "nonsense", "ftp://x", "memcached://", "redis"],
)
def test_refuses_a_store_that_is_none(url: str) -> None:
    """A configuration error, when the stack is built."""
    with pytest.raises(ConfigError):
        SessionMiddleware(RecordingApp(), secret=SECRET, store=url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:1/0",
        "memcached://127.0.0.1:1",
        "postgresql://nobody@127.0.0.1:1/none",
    ],
)
def test_says_that_it_is_down(url: str) -> None:
    """Nobody listens: one kind of error for all, at once."""
    store = open_store(url, time.time)
    begun = time.monotonic()

    with pytest.raises(StoreDownError):
        store.load(KEY)

    assert time.monotonic() - begun < 3
    store.close()


def test_keeps_the_file_to_itself(tmp_path: Path) -> None:
    """The SQLite file is readable by its user alone."""
    store = open_store(f"sqlite:///{tmp_path}/s.db", time.time)
    store.create(KEY, record(a=1))

    assert (tmp_path / "s.db").stat().st_mode & 0o777 == 0o600
    store.close()


def test_keeps_only_hashes_of_ids(redis_url: str) -> None:
    """Who reads the store finds no id that a cookie could hold (CVE-2019-16782)."""
    import redis

    app = SessionMiddleware(Counter(), secret=SECRET, store=redis_url)
    cookie = cookie_of(ask(app, "set=a"))
    session_id = cookie.partition("=")[2].partition(".")[0]

    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        keys = list(client.scan_iter("*"))

    assert keys
    assert not any(session_id in key for key in keys)


def test_survives_a_restart_of_redis_with_persistence(services: Any, tmp_path: Path) -> None:
    """With its append-only file, a Redis that is killed and started again has everything that was acknowledged."""
    aof = ("--appendonly", "yes", "--appendfsync", "always")
    with services.redis(tmp_path, *aof) as (port, process):
        app = SessionMiddleware(Counter(), secret=SECRET, store=f"redis://127.0.0.1:{port}/0")
        cookie = cookie_of(ask(app, "set=first"))
        for number in range(20):
            ask(app, f"set=k{number}", cookie)
        process.kill()
        process.wait()
    with services.redis(tmp_path, *aof, port=port):
        deadline = time.monotonic() + 10
        while (answer := ask(app, "read", cookie)).code == 503 and time.monotonic() < deadline:
            time.sleep(0.05)
        kept = answer.text.split(",")

    assert len(kept) == 21


@pytest.mark.parametrize(
    "url",
    [
        *(
            "redis://:hunter2@[",
            "redis://u:hunter2/x@host:1/0",
            "redis://:hunter2@host/?db=x",
            "redis://hunter2:x@h:hunter2",
        ),
        *("memcached://u:hunter2@host:port", "memcached://hunter2/x", "memcached://h/?prefix=hunter2%20"),
        *("nodb://u:hunter2@host/db", "postgresql://u:hunter2@host:port/db"),
    ],
)
def test_a_wrong_url_is_refused_without_its_password(url: str) -> None:
    """Wherever a slip moves the password to, the error quotes neither the URL nor what a library says of it."""
    with pytest.raises(ConfigError) as caught:
        SessionMiddleware(RecordingApp(), secret="0123456789abcdefghijklmnopqrstuvwxyz", store=url)

    assert caught.value.option == "store"
    assert "hunter2" not in str(caught.value)
