"""Writing htpasswd files: whole, private, and readable by the layers."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.passwords import Users
from lamella.stack.password_tools import delete_user, list_users, new_token, set_password, sign_out


def mode(path: Path) -> int:
    """The permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


def test_makes_a_file_that_the_layers_read(tmp_path: Path) -> None:
    """A new file is for its owner only, and its user gets in."""
    path = tmp_path / "staff"

    assert set_password(path, "alice", "secret", scheme="sha512") is True

    assert mode(path) == 0o600
    assert Users("users", path, scheme="basic").check("alice", "secret") is not None
    assert "secret" not in path.read_text()


def test_changes_one_user_and_leaves_the_rest(tmp_path: Path) -> None:
    """Comments, order and other users stay; a doubled line goes."""
    path = tmp_path / "staff"
    path.write_text("# staff\nalice:old\nbob:kept\nalice:double\n")

    assert set_password(path, "alice", "x", scheme="sha512") is False

    lines = path.read_text().splitlines()
    assert [line.partition("$")[0] for line in lines] == ["# staff", "alice:", "bob:kept"]
    assert list_users(path) == ["alice", "bob"]


@pytest.mark.parametrize(("before", "after"), [(0o640, 0o640), (0o644, 0o640), (0o600, 0o600), (0o666, 0o660)])
def test_keeps_the_mode_but_not_for_everybody(tmp_path: Path, before: int, after: int) -> None:
    """The server's group may go on reading; the world may not."""
    path = tmp_path / "staff"
    path.write_text("")
    path.chmod(before)

    set_password(path, "alice", "x", scheme="sha512")

    assert mode(path) == after


def test_writes_through_a_link(tmp_path: Path) -> None:
    """The file behind a symbolic link is replaced, not the link."""
    path, link = tmp_path / "real", tmp_path / "link"
    path.write_text("")
    link.symlink_to(path)

    set_password(link, "alice", "x", scheme="sha512")

    assert link.is_symlink()
    assert list_users(path) == ["alice"]


def test_deletes_a_user(tmp_path: Path) -> None:
    """Gone is gone; who was not there was not."""
    path = tmp_path / "staff"
    set_password(path, "alice", "x", scheme="sha512")

    assert delete_user(path, "alice") is True
    assert delete_user(path, "alice") is False
    assert list_users(path) == []


def test_two_writers_lose_nothing(tmp_path: Path) -> None:
    """Eight at once: eight users, and no temporary file left."""
    path = tmp_path / "staff"
    threads = [
        threading.Thread(target=set_password, args=(path, f"user{i}", "x"), kwargs={"scheme": "sha512"})
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(list_users(path)) == [f"user{i}" for i in range(8)]
    assert os.listdir(tmp_path) == ["staff"]


@pytest.mark.parametrize(
    ("user", "password", "scheme"),
    [
        ("", "x", "sha512"),
        ("a:b", "x", "sha512"),
        ("#a", "x", "sha512"),
        ("a\nb", "x", "sha512"),
        ("a", "", "sha512"),
        ("a", "hunter2\n", "sha512"),
        ("a", "x", "md5"),
        ("a", "x" * 80, "bcrypt"),
    ],
)
def test_refuses_what_cannot_be_used(tmp_path: Path, user: str, password: str, scheme: Any) -> None:
    """A name with a colon would be another user; nothing is written, no password shown."""
    with pytest.raises(ConfigError) as caught:
        set_password(tmp_path / "staff", user, password, scheme=scheme)

    assert os.listdir(tmp_path) == []
    assert "hunter2" not in str(caught.value)


def test_tells_when_the_file_cannot_be_written(tmp_path: Path) -> None:
    """A missing folder, a folder in its place, another encoding: one line."""
    (tmp_path / "latin").write_bytes(b"\xff")
    for path in (tmp_path / "no" / "staff", tmp_path, tmp_path / "latin"):
        with pytest.raises(ConfigError, match="file"):
            set_password(path, "alice", "x", scheme="sha512")


def test_the_default_is_the_strongest_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """argon2id with its extra, SHA-crypt without any."""
    from lamella.stack.kernel import hashes
    from lamella.stack.kernel.errors import MissingExtraError

    path = tmp_path / "staff"
    set_password(path, "alice", "x")
    assert "$argon2id$" in path.read_text()

    def missing(module: str, extra: str) -> Any:
        raise MissingExtraError(module, extra)

    monkeypatch.setattr(hashes, "import_extra", missing)
    set_password(path, "bob", "x")
    assert "bob:$6$" in path.read_text()


def test_a_new_token_comes_with_its_hash() -> None:
    """The token is for the client, the hash for the stack file."""
    token, digest = new_token()

    assert hashlib.sha256(token.encode()).hexdigest() == digest
    assert len(token) >= 43


def test_signs_a_user_out_everywhere(tmp_path: Path) -> None:
    """Every remembered login of one user ends, those of others stay."""
    from lamella.middleware._remember import RememberStore

    path = tmp_path / "remember.sqlite"
    store = RememberStore(path)
    token, other = store.issue("alice", "", 100, 0), store.issue("bob", "", 100, 0)

    assert sign_out(path, "alice") == 1
    assert store.redeem(token, 1) is None
    assert store.redeem(other, 1) is not None
