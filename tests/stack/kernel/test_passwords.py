"""Users and their passwords: every kind of hash, files that change, and nothing told by the clock."""

from __future__ import annotations

import logging
import os
import shutil
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.stack.kernel import passwords
from lamella.stack.kernel._crypt import sha_crypt
from lamella.stack.kernel.auth import marks_of
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.hashes import check_hash, hash_password, verify_password
from lamella.stack.kernel.htpasswd import parse_htpasswd
from lamella.stack.kernel.keys import Identity
from lamella.stack.kernel.passwords import Users

# "Hello world!" with the salts of Drepper's specification, as libxcrypt computes them.
SHA_CRYPT = [
    "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5",
    "$5$rounds=10000$saltstringsaltst$3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA",
    "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
    "$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v.",
]


def cheap(password: str, rounds: int = 1000) -> str:
    """A SHA-crypt hash that takes a millisecond."""
    digest = sha_crypt(password.encode(), b"saltsaltsaltsalt", rounds, "5")
    return f"$5$rounds={rounds}$saltsaltsaltsalt${digest}"


@pytest.mark.parametrize("hashed", SHA_CRYPT)
def test_reads_sha_crypt_as_libxcrypt_does(hashed: str) -> None:
    """The published vectors of SHA-crypt hold."""
    assert check_hash(hashed) is None
    assert verify_password(hashed, "Hello world!")
    assert not verify_password(hashed, "Hello world")


@pytest.mark.parametrize("flag", ["-5", "-6", "-apr1"])
@pytest.mark.parametrize("password", ["x", "secret", "p" * 100, "pässwörd mit Größe"])
def test_reads_what_openssl_writes(flag: str, password: str) -> None:
    """``openssl passwd`` writes what Apache's htpasswd writes; all lengths, all octets."""
    openssl = shutil.which("openssl")
    if openssl is None:
        assert not os.environ.get("CI"), "openssl is missing"
        pytest.skip("openssl is not installed")
    done = subprocess.run([openssl, "passwd", flag, "-stdin"], input=password.encode(), capture_output=True, check=True)
    hashed = done.stdout.decode().strip()

    assert check_hash(hashed, allow_weak=True) is None
    assert verify_password(hashed, password)
    assert not verify_password(hashed, password[:-1])


@pytest.mark.parametrize("scheme", ["argon2id", "bcrypt", "sha512"])
def test_hashes_anew_each_time(scheme: str) -> None:
    """A hash that we write we can read, with a salt of its own."""
    first, second = hash_password("secret", scheme), hash_password("secret", scheme)

    assert first != second
    assert check_hash(first) is None
    assert verify_password(first, "secret")
    assert not verify_password(first, "Secret")


@pytest.mark.parametrize("prefix", ["$2a$", "$2b$", "$2y$"])
def test_reads_every_prefix_of_bcrypt(prefix: str) -> None:
    """Apache writes 2y, others 2a and 2b; all are one algorithm. Octets after the 72nd do not count."""
    import bcrypt

    hashed = prefix + bcrypt.hashpw(b"p" * 72, bcrypt.gensalt(4)).decode()[4:]

    assert verify_password(hashed, "p" * 72)
    assert verify_password(hashed, "p" * 72 + "ignored, as Apache does")
    assert not verify_password(hashed, "p" * 71)


def test_reads_apaches_sha1_only_when_told() -> None:
    """``{SHA}`` is unsalted: refused with the cure, unless allowed."""
    hashed = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="

    assert "lamella passwd" in str(check_hash(hashed))
    assert check_hash(hashed, allow_weak=True) is None
    assert verify_password(hashed, "secret")
    assert not verify_password(hashed, "public")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret",
        "rqXexS6ZhobKA",
        "$1$abc$def",
        "$2y$31$" + "a" * 53,
        "$2y$03$" + "a" * 53,
        "$2x$10$" + "a" * 53,
        "$6$rounds=999$salt$" + "a" * 86,
        "$6$rounds=999999999$salt$" + "a" * 86,
        "$6$salt$" + "a" * 43,
        "$argon2id$v=19$m=99999999,t=3,p=4$c2FsdHNhbHQ$aGFzaA",
        "$argon2i$v=19$m=65536,t=3,p=4$c2FsdHNhbHQ$aGFzaA",
        "{SHA}short",
        "{SSHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
    ],
)
def test_refuses_what_is_no_safe_hash(text: str) -> None:
    """Plain text, DES, unknown kinds, and parameters that would stop the server, are no hashes."""
    assert check_hash(text, allow_weak=True) is not None


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60), st.text(max_size=30))
def test_verification_never_raises(text: str, password: str) -> None:
    """Whatever stands in a file or comes from a client: true or false."""
    assert verify_password(text, password) in (True, False)
    assert verify_password("$2y$04$" + text, password) is False
    assert verify_password("$argon2id$" + text, password) is False


def test_a_password_in_two_unicode_forms_is_one() -> None:
    """A composed and a decomposed letter are the same password (NFC)."""
    hashed = cheap("é")

    assert verify_password(hashed, "e\u0301")
    assert not verify_password(hashed, "e")
    assert not verify_password(hashed, "\ud800")


@pytest.mark.parametrize("password", ["", "a\nb", "x" * 1025])
def test_hashes_no_impossible_password(password: str) -> None:
    """Empty, with control characters, or endless: refused when it is set."""
    with pytest.raises(ValueError, match="1 to 1024 octets"):
        hash_password(password, "sha512")


def test_refuses_to_cut_a_password_for_bcrypt() -> None:
    """bcrypt would ignore the end, so a long one is refused when it is set."""
    with pytest.raises(ValueError, match="72 octets"):
        hash_password("x" * 73, "bcrypt")
    with pytest.raises(ValueError, match="no such kind"):
        hash_password("secret", "md5")


def test_parses_an_htpasswd_file() -> None:
    """Comments, blank lines, further fields and Windows line ends are as Apache has them."""
    users, problems = parse_htpasswd(f"# staff\r\n\r\nalice:{cheap('a')}\r\nbob:{cheap('b')}:ignored\n")

    assert sorted(users) == ["alice", "bob"]
    assert problems == []


def test_names_the_line_that_cannot_be_used() -> None:
    """Each problem has its line, and none quotes what stands there."""
    users, problems = parse_htpasswd(f"alice:{cheap('a')}\nalice:{cheap('b')}\nbob:hunter2\nno colon\n\x1b[2J:x\n")

    assert list(users) == ["alice"]
    assert [line for line, _ in problems] == [2, 3, 4, 5]
    assert "hunter2" not in str(problems)


def test_rereads_the_file_at_once(tmp_path: Path) -> None:
    """A changed password counts for the next request, also within one tick of the file's clock."""
    path = tmp_path / "users"
    path.write_text(f"alice:{cheap('old')}\n")
    users = Users("users", path, scheme="basic", cache_seconds=60)
    assert users.check("alice", "old") is not None

    for password in ("new1", "new2", "new3"):
        path.write_text(f"alice:{cheap(password)}\n")
        assert users.check("alice", "old") is None
        assert users.check("alice", password) == Identity("alice", "basic")


def test_a_settled_file_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has not changed costs one stat."""
    path = tmp_path / "users"
    path.write_text(f"alice:{cheap('a')}\n")
    os.utime(path, (time.time() - 60, time.time() - 60))
    users = Users("users", path, scheme="basic")
    users.check("alice", "a")
    monkeypatch.setattr(Path, "read_text", None)

    assert users.check("alice", "a") is not None


def test_a_line_that_breaks_later_shuts_out_its_user_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A mistake made while serving is logged without the secret, and all others go on."""
    path = tmp_path / "users"
    path.write_text(f"alice:{cheap('a')}\nbob:{cheap('b')}\n")
    users = Users("users", path, scheme="basic")

    path.write_text(f"alice:hunter2\nbob:{cheap('b')}\n")

    assert users.check("alice", "a") is None
    assert users.check("alice", "hunter2") is None
    assert users.check("bob", "b") is not None
    assert "users:1:" in caplog.text
    assert "hunter2" not in caplog.text


def test_a_file_that_goes_away_lets_nobody_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without its file the layer refuses, and forgets nothing when it is back."""
    path = tmp_path / "users"
    path.write_text(f"alice:{cheap('a')}\n")
    users = Users("users", path, scheme="basic", cache_seconds=60)
    assert users.check("alice", "a") is not None

    path.rename(tmp_path / "gone")
    assert users.check("alice", "a") is None
    assert "nobody can log in" in caplog.text

    (tmp_path / "gone").rename(path)
    assert users.check("alice", "a") is not None


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("alice:hunter2\n", "line 1: it is no bcrypt"),
        ("alice:$apr1$abc$" + "a" * 22 + "\n", "weak"),
        ("alice\n", "user:hash"),
    ],
)
def test_a_bad_file_fails_at_build(tmp_path: Path, content: str, expected: str) -> None:
    """The error names file, line and cure, and quotes no secret."""
    path = tmp_path / "users"
    path.write_text(content)

    with pytest.raises(ConfigError, match=expected) as caught:
        Users("users", path, scheme="basic")

    assert "hunter2" not in str(caught.value)


def test_a_missing_file_fails_at_build(tmp_path: Path) -> None:
    """As does one that is not UTF-8."""
    with pytest.raises(ConfigError, match="readable htpasswd file"):
        Users("users", tmp_path / "none", scheme="basic")

    (tmp_path / "latin").write_bytes(b"j\xfcrgen:x\n")
    with pytest.raises(ConfigError, match="UTF-8"):
        Users("users", tmp_path / "latin", scheme="basic")


def test_warns_of_weak_hashes_that_were_allowed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Allowed is not unsaid."""
    path = tmp_path / "users"
    path.write_text("alice:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n")

    with caplog.at_level(logging.WARNING):
        users = Users("users", path, scheme="basic", allow_weak=True)

    assert users.check("alice", "secret") is not None
    assert "1 of 1 hashes are weak" in caplog.text


@pytest.mark.parametrize("value", [{"alice": "hunter2"}, {"alice": 5}, {"al\nice": "x"}, {"": "x"}, {5: "x"}])
def test_a_table_takes_hashes_only(value: Any) -> None:
    """A plain password in the table is refused, and not shown."""
    with pytest.raises(ConfigError) as caught:
        Users("users", value, scheme="basic")

    assert "hunter2" not in str(caught.value)


def test_a_callable_may_say_more_than_yes() -> None:
    """True, an Identity with roles and claims, or nothing; its scheme is ours."""

    def check(user: str, password: str) -> object:
        return {"a": True, "b": Identity("B", "x", {"k": 1}, frozenset({"r"})), "c": None}[user]

    users = Users("users", check, scheme="basic", roles={"admin": ["a", "B"]})

    assert users.check("a", "") == Identity("a", "basic", {}, frozenset({"admin"}))
    assert users.check("b", "") == Identity("B", "basic", {"k": 1}, frozenset({"r", "admin"}))
    assert users.check("c", "") is None


def test_a_reference_names_a_callable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``module:attribute`` is imported, also after the loader made it a path."""
    (tmp_path / "shop_auth.py").write_text("def check(user, password): return password == 'right'\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    for value in ("shop_auth:check", str(tmp_path / "shop_auth:check")):
        assert Users("users", value, scheme="basic").check("a", "right") is not None
    with pytest.raises(ConfigError, match="no module named"):
        Users("users", "no_such_module_here:check", scheme="basic")
    with pytest.raises(ConfigError, match="callable"):
        Users("users", 5, scheme="basic")  # type: ignore[arg-type]


@pytest.mark.parametrize("roles", [{"admin": "alice"}, {"admin": [5]}, ["admin"], {"admin": 5}])
def test_roles_are_lists_of_users(roles: Any) -> None:
    """A lone name would be read letter by letter."""
    with pytest.raises(ConfigError, match="roles"):
        Users("users", {}, scheme="basic", roles=roles)


def test_remembers_a_right_password_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the time it is not hashed again; afterwards it is. A wrong one always is."""
    hashed = []
    verify = passwords.verify_password

    def counting(text: str, password: str) -> bool:
        hashed.append(password)
        return verify(text, password)

    monkeypatch.setattr(passwords, "verify_password", counting)
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    users = Users("users", {"alice": cheap("a")}, scheme="basic", cache_seconds=60)

    assert all(users.check("alice", "a") for _ in range(5))
    assert hashed == ["a"]
    assert users.check("alice", "b") is None
    now[0] += 61
    assert users.check("alice", "a") is not None
    assert hashed == ["a", "b", "a"]


def test_remembers_no_password() -> None:
    """What is kept is bounded and does not hold the password, nor anything that tests it without the key."""
    users = Users("users", {"alice": cheap("a-long-password")}, scheme="basic", cache_seconds=60)
    users.check("alice", "a-long-password")

    (entry,) = users._cache._entries
    assert len(entry) == 32
    for i in range(3000):
        users._cache.add(i.to_bytes(4, "big"))
    assert len(users._cache._entries) == 1024
    assert "alice" not in repr(users)


@pytest.mark.timing
def test_an_unknown_user_costs_what_a_wrong_password_costs() -> None:
    """The median of either is within a third of the other: the clock does not tell who exists."""
    users = Users("users", {f"user{i}": cheap("right", 20_000) for i in range(3)}, scheme="basic")

    def cost(user: str) -> float:
        started = time.perf_counter()
        assert users.check(user, "wrong") is None
        return time.perf_counter() - started

    known = statistics.median(cost("user1") for _ in range(7))
    unknown = statistics.median(cost("nobody") for _ in range(7))

    assert 0.66 < known / unknown < 1.5


@pytest.mark.timing
def test_an_empty_file_takes_its_time_too() -> None:
    """Without users a guess costs a hash as well."""
    users = Users("users", {}, scheme="basic")

    started = time.perf_counter()
    assert users.check("alice", "x") is None
    assert time.perf_counter() - started > 0.001
    assert check_hash(passwords._NOBODY) is None


def test_the_stamp_changes_with_the_password() -> None:
    """A stamp belongs to one user and one hash."""
    one = Users("users", {"alice": cheap("a"), "bob": cheap("a")}, scheme="session")
    other = Users("users", {"alice": cheap("b")}, scheme="session")

    stamps = {one.stamp("alice"), one.stamp("bob"), other.stamp("alice")}
    assert len(stamps) == 3
    assert one.stamp("carol") is None
    assert Users("users", lambda user, password: True, scheme="session").stamp("x") == ""


def test_a_header_field_is_recalled_until_the_password_changes(tmp_path: Path) -> None:
    """A whole field stands for its user; with another hash in the file it proves nothing any more, at once."""
    path = tmp_path / "users"
    path.write_text(f"alice:{cheap('one')}\n")
    users = Users("users", path, scheme="basic", roles={"staff": ["alice"]}, cache_seconds=60)
    assert users.recall("Basic one") is None

    found = users.check("alice", "one", "Basic one")

    assert found is not None
    assert users.recall("Basic one") == marks_of(found)
    assert found.roles == {"staff"}
    assert users.recall("Basic onE") is None
    path.write_text(f"alice:{cheap('other')}\n")
    assert users.recall("Basic one") is None
    path.write_text("")
    assert users.recall("Basic one") is None


def test_a_header_field_is_recalled_for_a_second_at_most_under_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy server looks at the file twenty times a second; a password itself is checked against the file as it is."""
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    path = tmp_path / "users"
    path.write_text(f"alice:{cheap('one')}\n")
    users = Users("users", path, scheme="basic", cache_seconds=60)
    users.check("alice", "one", "Basic one")
    for _ in range(20):
        assert users.recall("Basic one") is not None
    path.write_text(f"alice:{cheap('other')}\n")

    assert users.recall("Basic one") is not None
    now += 1
    assert users.recall("Basic one") is None
    for _ in range(40):
        users.recall("Basic one")
    path.write_text(f"alice:{cheap('third')}\n")
    assert users.check("alice", "other", "Basic other") is None
    assert users.check("alice", "third", "Basic third") is not None


def test_a_header_field_is_not_recalled_for_longer_than_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends with the password's; without a cache, after a wrong password or behind a callable nothing is kept."""
    users = Users("users", {"alice": cheap("one")}, scheme="basic", cache_seconds=60)
    users.check("alice", "wrong", "Basic wrong")
    users.check("alice", "one", "Basic one")
    uncached = Users("users", {"alice": cheap("one")}, scheme="basic", cache_seconds=0)
    uncached.check("alice", "one", "Basic one")
    asked = Users("users", lambda user, password: True, scheme="basic", cache_seconds=60)
    asked.check("alice", "one", "Basic one")

    assert users.recall("Basic wrong") is None
    assert uncached.recall("Basic one") is None
    assert asked.recall("Basic one") is None
    assert users.recall("Basic one") is not None
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 61)
    assert users.recall("Basic one") is None


def test_recalled_header_fields_are_bounded() -> None:
    """However many spellings of a right password are sent, a thousand are kept, as digests."""
    users = Users("users", {"alice": cheap("one")}, scheme="basic", cache_seconds=60)
    for number in range(1100):
        users.check("alice", "one", f"Basic {number}")

    assert len(users._cache._fields) == 1024
    assert all(len(key) == 32 for key in users._cache._fields)
    assert users.recall("Basic 0") is None
    assert users.recall("Basic 1099") is not None
