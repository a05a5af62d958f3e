"""The operator's view of stored sessions, and the file of a secret."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from lamella.middleware.session import SessionMiddleware
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.session_tools import StoreError, count, create_secret, purge, show
from lamella.stack.testing import RecordingApp, call, environ


def session_in(url: str) -> str:
    """Make a session; return its cookie."""
    app = RecordingApp(before=lambda request: request["lamella.session"].update(user="alice"))
    layer = SessionMiddleware(app, secret="0123456789abcdefghijklmnopqrstuvwxyzABCDEF", store=url, idle="1h")
    return str(call(layer, environ()).header("Set-Cookie")).partition(";")[0]


def test_counts_and_shows_sessions(tmp_path: Path) -> None:
    """By cookie, by id and by the name of the record."""
    url = f"sqlite:///{tmp_path}/s.db"
    cookie = session_in(url)

    assert count(url) == 1
    found = show(url, cookie)
    assert found is not None
    assert found["data"] == {"user": "alice"}
    assert show(url, cookie.partition("=")[2]) == show(url, str(found["key"])) == found
    assert show(url, "0" * 64) is None


def test_purges_expired_sessions(tmp_path: Path) -> None:
    """And tells how many there were."""
    from lamella.middleware._session_store import Record, open_store

    url = f"sqlite:///{tmp_path}/s.db"
    store = open_store(url, time.time)
    store.create("f" * 64, Record({}, 1, 0, time.time() + 60, False))  # the first looks for expired ones by itself
    for number in range(1200):
        store.create(f"{number:064x}", Record({}, 1, 0, 1.0, False))
    store.close()

    assert purge(url) == 1200
    assert (purge(url), count(url)) == (0, 1)


@pytest.mark.server
def test_tells_where_nothing_can_be_told(memcached_url: str, redis_url: str) -> None:
    """memcached cannot count; Redis purges by itself."""
    session_in(redis_url)

    with pytest.raises(StoreError, match="memcached"):
        count(memcached_url)
    assert purge(redis_url) == 0
    assert count(redis_url) >= 1


@pytest.mark.parametrize("url", ["cookie", "memory:", "nonsense"])
def test_refuses_what_is_no_shared_store(url: str) -> None:
    """In the browser or in another process there is nothing to see."""
    with pytest.raises(ConfigError):
        count(url)


def test_refuses_what_names_no_session(tmp_path: Path) -> None:
    """And never shows it: it may be a secret."""
    with pytest.raises(ConfigError) as caught:
        show(f"sqlite:///{tmp_path}/s.db", "hunter2")

    assert "hunter2" not in str(caught.value)


def test_creates_a_secret_once(tmp_path: Path) -> None:
    """0600 whatever the umask, good for the layer, and never overwritten."""
    umask = os.umask(0)
    try:
        path = create_secret(tmp_path / "key")
    finally:
        os.umask(umask)
    secret = path.read_text().strip()

    assert path.stat().st_mode & 0o777 == 0o600
    SessionMiddleware(RecordingApp(), secret=secret)
    with pytest.raises(ConfigError, match="never overwritten"):
        create_secret(path)
    assert path.read_text().strip() == secret


def test_creates_one_secret_of_two_at_once(tmp_path: Path) -> None:
    """Of many that start together, one makes the file."""
    made: list[Path] = []

    def make() -> None:
        try:
            made.append(create_secret(tmp_path / "key"))
        except ConfigError:
            pass

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(made) == 1


def test_follows_no_link(tmp_path: Path) -> None:
    """A link that somebody planted is not written through."""
    (tmp_path / "key").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(ConfigError):
        create_secret(tmp_path / "key")
    assert not (tmp_path / "elsewhere").exists()
