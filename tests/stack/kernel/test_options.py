"""Options: what is accepted, and that secrets stay hidden."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamella.stack.kernel import options
from lamella.stack.kernel.errors import ConfigError, LamellaError, MissingExtraError, import_extra
from lamella.stack.kernel.options import Secret


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (5, 5.0),
        (0.5, 0.5),
        ("30s", 30.0),
        ("30m", 1800.0),
        ("1h30m", 5400.0),
        ("500ms", 0.5),
        ("1.5h", 5400.0),
        ("2d", 172800.0),
        ("1w", 604800.0),
        (timedelta(minutes=1), 60.0),
    ],
)
def test_reads_durations(value: Any, seconds: float) -> None:
    """Seconds, text with units, or a timedelta."""
    assert options.duration("idle", value) == seconds


@pytest.mark.parametrize(
    "value", ["", "30", "m", "1 h", "-1s", "1y", "1h-", True, None, -1, float("nan"), float("inf"), []]
)
def test_refuses_other_durations(value: Any) -> None:
    """The error names the option and what is expected."""
    with pytest.raises(ConfigError, match=r"^idle: expected seconds or a duration such as"):
        options.duration("idle", value)


@pytest.mark.parametrize(
    ("value", "octets"),
    [
        (10, 10),
        ("500 B", 500),
        ("64 KiB", 65536),
        ("64KiB", 65536),
        ("10 MB", 10**7),
        ("1.5 kB", 1500),
        ("1 GiB", 2**30),
    ],
)
def test_reads_sizes(value: Any, octets: int) -> None:
    """1000 and 1024 are told apart by the unit."""
    assert options.size("limit", value) == octets


@pytest.mark.parametrize("value", ["", "10", "10 mb", "10  MB", "-1 B", True, -1, 1.5, None])
def test_refuses_other_sizes(value: Any) -> None:
    """A number without unit in text, a float, a bool are refused."""
    with pytest.raises(ConfigError, match=r"^limit: expected bytes or a size"):
        options.size("limit", value)


def test_reads_networks() -> None:
    """A single address is a network of one; host bits are an error."""
    assert str(options.cidr("trust", "10.0.0.0/8")) == "10.0.0.0/8"
    assert str(options.cidr("trust", "::1")) == "::1/128"
    with pytest.raises(ConfigError):
        options.cidr("trust", "10.0.0.1/8")


def test_reads_regular_expressions() -> None:
    """Text is compiled; an error in it is told."""
    assert options.regex("path", "a+").fullmatch("aaa")
    assert options.regex("path", re.compile("b")).pattern == "b"
    with pytest.raises(ConfigError, match="a regular expression"):
        options.regex("path", "(")


def test_paths_are_absolute() -> None:
    """A path never depends on a later change of directory."""
    assert options.file_path("root", "x").is_absolute()
    assert options.file_path("root", Path("x")) == Path("x").absolute()
    for bad in ("", "a\0b", 3):
        with pytest.raises(ConfigError):
            options.file_path("root", bad)  # type: ignore[arg-type]


@given(st.binary(min_size=32, max_size=64))
def test_secrets_never_show(value: bytes) -> None:
    """Neither ``repr``, ``str`` nor an error tells a secret."""
    secret = Secret(value, "env KEY")

    assert repr(secret) == str(secret) == f"{secret}" == "***"
    assert secret.reveal() == value


@pytest.mark.parametrize("value", ["short", "a" * 40, b"ab" * 20, 12, None, ["x" * 40]])
def test_weak_secrets_are_refused_without_showing_them(value: Any) -> None:
    """Too short, too uniform, or of a wrong type."""
    with pytest.raises(ConfigError, match=r"^secret: expected .*, not \*\*\*$"):
        options.secret("secret", value)


def test_references_are_imported() -> None:
    """``module:attribute``, or the object itself."""
    assert options.reference("app", "os.path:join") is __import__("os").path.join
    assert options.reference("app", len) is len


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("os.path", "a reference such as"),
        ("no.such.module:x", "no module named 'no'"),
        ("os:no_such", "an attribute of os"),
        (":x", "a reference such as"),
    ],
)
def test_wrong_references_say_why(value: str, says: str) -> None:
    """The error tells whether the form, the module or the attribute is wrong."""
    with pytest.raises(ConfigError, match=says):
        options.reference("app", value)


def test_a_lone_string_is_no_collection() -> None:
    """It would iterate letter by letter."""
    with pytest.raises(ConfigError, match="a list of text"):
        options.strings("origins", "https://shop.example")
    assert options.strings("origins", ["a", "b"]) == ("a", "b")


def test_a_missing_extra_is_named() -> None:
    """The error says what to install; an error inside an installed module is not hidden by it."""
    with pytest.raises(MissingExtraError, match=r"pip install 'lamella\[redis\]'"):
        import_extra("no_such_module_anywhere", "redis")
    assert issubclass(MissingExtraError, LamellaError)


def test_a_flag_is_true_or_false_and_nothing_else() -> None:
    """``1`` and ``"false"`` merely count as true."""
    assert options.flag("secure", True) is True
    wrong: list[Any] = [1, 0, "false", None, []]
    for value in wrong:
        with pytest.raises(ConfigError, match="secure: expected true or false"):
            options.flag("secure", value)


def test_a_whole_number_lies_between_its_bounds() -> None:
    """Neither a truth value nor a fraction is one."""
    assert options.whole_number("hops", 1, 1, 9) == 1
    for wrong in (0, 10, True, 1.0, "1", 10**40):
        with pytest.raises(ConfigError, match="hops: expected a number from 1 to 9"):
            options.whole_number("hops", wrong, 1, 9)  # type: ignore[arg-type]


def test_one_line_is_one_line() -> None:
    """Nothing that ends a line, hides, or cannot be written."""
    assert options.one_line("title", "Grüße") == "Grüße"
    for wrong in ("", "a\nb", "a\x85b", "\ud800", b"a", None):
        with pytest.raises(ConfigError, match="title: expected text on one line"):
            options.one_line("title", wrong)  # type: ignore[arg-type]


def test_an_error_is_one_line_whatever_the_value_is() -> None:
    """A repr of the user's own class may have lines, or raise; the name may come from a table."""

    class Bad:
        def __repr__(self) -> str:
            raise RuntimeError

    class Long:
        def __repr__(self) -> str:
            return "a\nb"

    for value in (Bad(), Long(), "\ud800\x85", [Bad()]):
        message = str(ConfigError("roles.\n", value, "a list"))
        assert message.isprintable()
        assert message.startswith("roles.\\n: expected a list, not ")
