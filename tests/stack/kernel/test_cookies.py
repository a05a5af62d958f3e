"""Cookies: the field as it is sent, and lines that browsers keep."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamella.stack.kernel.cookies import (
    MAX_VERIFIED,
    CookieFormat,
    cookie_finder,
    decode_value,
    encode_value,
    find_cookie,
    parse_cookies,
    set_cookie,
)
from lamella.stack.kernel.errors import ConfigError


def test_reads_every_case_of_the_corpus(corpus: Any) -> None:
    """The mapping that is expected; a quoted value is kept with its quotes, as browsers send it."""
    wrong = []
    for case in corpus("cookie_header_cases")["cases"]:
        found, expected = parse_cookies(case["cookie"]), case["expect"]
        if expected == "len5000":
            assert len(found) == 5000
        elif expected is not None:
            got = {name: found.get(name) for name in expected}
            quoted = {name: f'"{value}"' for name, value in expected.items()}
            if got != expected and got != quoted:
                wrong.append((case["cookie"][:80], got))

    assert wrong == []


def test_takes_the_same_from_browsers_exactly(corpus: Any) -> None:
    """What conforming user agents send is read to the letter, and nothing else is found in it."""
    for case in corpus("cookie_header_cases")["cases"]:
        if case.get("kind") == "roundtrip":
            assert parse_cookies(case["cookie"]) == case["expect"]


@pytest.mark.parametrize(
    ("header", "name", "expected"),
    [
        pytest.param("sid=good; sid=evil", "sid", "good", id="the first of equal names"),
        pytest.param("=sid=evil; sid=good", "sid", "good", id="a nameless cookie"),
        pytest.param("=sid=evil", "sid", None, id="only a nameless cookie"),
        pytest.param("xsid=evil; sid=good", "sid", "good", id="a longer name before"),
        pytest.param("a=sid=evil; sid=good", "sid", "good", id="the name in a value"),
        pytest.param('$Version=1; a="x; sid=seen; b="', "sid", "seen", id="no quotes around a semicolon"),
        pytest.param("__%48ost-sid=evil", "__Host-sid", None, id="names are not decoded"),
        pytest.param("sid = good", "sid", "good", id="spaces around the equals sign"),
        pytest.param("sid", "sid", None, id="no equals sign"),
        pytest.param("sid=", "sid", "", id="an empty value"),
        pytest.param("a=1;sid=good", "sid", "good", id="no space"),
        pytest.param("sid=a\x00b; sid=good", "sid", "good", id="a control character"),
        pytest.param("", "sid", None, id="nothing"),
    ],
)
def test_finds_one_cookie(header: str, name: str, expected: str | None) -> None:
    """By its exact name, the first that is well formed."""
    assert find_cookie(header, name) == expected
    assert parse_cookies(header).get(name) == expected


@given(st.text(alphabet='sid=; \t"x,\x00é', max_size=40))
def test_finds_what_the_parser_reads(header: str) -> None:
    """The fast search and the grammar never disagree."""
    assert find_cookie(header, "sid") == parse_cookies(header).get("sid")


def test_finds_few_that_are_worth_verifying() -> None:
    """Each costs the caller a hash, and no browser sends so many of one name."""
    assert len(cookie_finder("sid", verified=True)("sid=x;" * 1000)) == MAX_VERIFIED
    assert len(cookie_finder("sid")("sid=x;" * 1000)) == 1000


PIECES = ("sid", "sid-1=", "=", "; ", ";", " ", "\t", "x", "__Host-", '"', "\x00", "\xa0", "é")


@given(st.lists(st.sampled_from(PIECES), max_size=12))
def test_finds_every_cookie_of_the_name(pieces: list[str]) -> None:
    """Beside names that end or begin like it, in the order of the field, never one that the grammar does not have."""
    header = "".join(pieces)
    read = [piece.partition("=") for piece in header.split(";")]
    named = [(name, value) for name, equals, value in read if equals and name.strip(" \t") == "sid"]
    well_formed = [value.strip(" \t") for name, value in named if "\x00" not in name + value]

    assert cookie_finder("sid")(header) == well_formed
    # Where the caller verifies, a value may come with its control characters, and never one of another cookie.
    assert cookie_finder("sid", verified=True)(header) == [value.strip(" \t") for _, value in named]


@pytest.mark.timing
@pytest.mark.parametrize(
    "header",
    [
        "sid=" + "x;sid=" * 16000,
        " " * 100_000 + "sid=1",
        "sid" * 33_000,
        "sid= " * 20_000,
        '"\\' * 50_000,
        ";" * 100_000,
    ],
)
def test_is_linear(header: str) -> None:
    """100 kB of anything take less than 50 ms."""
    begun = time.thread_time()
    cookie_finder("sid")(header)
    parse_cookies(header)

    assert time.thread_time() - begun < 0.3


def test_refuses_or_encodes_every_attack(corpus: Any) -> None:
    """No argument gets an attribute or a header of its own into the line."""
    names = {"samesite": "same_site"}
    for case in corpus("set_cookie_attacks")["cases"]:
        attributes = {names.get(name, name): value for name, value in case["attrs"].items()}
        try:
            line = set_cookie(case["name"], case["value"], **attributes)
        except ValueError:
            assert case["expect"] != "encode", case
            continue
        assert "encode" in case["expect"] or "emitted" in case["expect"], case
        assert line.count(";") == 4 + ("max_age" in attributes)
        assert line.isascii()
        assert line.isprintable()


@given(st.text())
def test_encodes_any_text(text: str) -> None:
    """And reads it back."""
    value = encode_value(text)

    assert decode_value(value) == text
    assert find_cookie(f"a={value}; b=c", "a") == value


@pytest.mark.parametrize("value", ["%", "%zz", "%ff", "100%"])
def test_leaves_foreign_values_alone(value: str) -> None:
    """What is no encoding of ours comes back as it is."""
    assert decode_value(value) in (value, "ÿ")


def test_writes_every_attribute() -> None:
    """In one order, with names as browsers know them."""
    line = set_cookie(
        "__Secure-a", "b", max_age=60, expires=0, path="/x", domain="example.com", same_site="none", partitioned=True
    )

    assert line == (
        "__Secure-a=b; Path=/x; Domain=example.com; Secure; HttpOnly; SameSite=None; Partitioned"
        "; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
    )


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"name": "__Host-a", "domain": "example.com"}, "domain"),
        ({"name": "__host-a", "path": "/x"}, "path"),
        ({"name": "__Host-a", "secure": False}, "secure"),
        ({"name": "__SECURE-a", "secure": False}, "secure"),
        ({"name": "a", "secure": False, "same_site": "None"}, "same_site"),
        ({"name": "a", "secure": False, "partitioned": True}, "partitioned"),
        ({"name": "a", "path": "x"}, "path"),
        ({"name": "a", "domain": "-x.example"}, "domain"),
        ({"name": "a", "same_site": "sometimes"}, "same_site"),
        ({"name": "a", "secure": "no"}, "secure"),
        ({"name": "a\n"}, "cookie_name"),
    ],
)
def test_refuses_what_browsers_drop(options: dict[str, Any], option: str) -> None:
    """When the cookie is configured, not when it is missing; the error names the option."""
    with pytest.raises(ConfigError) as caught:
        CookieFormat(options.pop("name"), **options)

    assert caught.value.option == option


def test_expires_a_cookie_with_its_own_attributes() -> None:
    """A browser forgets a cookie only where path and domain are those it was set with."""
    line = CookieFormat("a", path="/x", domain="example.com").expired()

    assert line.startswith("a=; Path=/x; Domain=example.com; Secure")
    assert "; Max-Age=0; Expires=Thu, 01 Jan 1970" in line
