"""The grammar of HTTP: what is read, what is refused, how long it takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamella.stack.kernel import http
from lamella.stack.kernel.http import ETag, HostPort, Origin

anything = st.text(st.characters(max_codepoint=255), max_size=60)
tokens = st.text("abcXYZ019!#$%&'*+-.^_`|~", min_size=1, max_size=10)
values = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, blacklist_characters="\x7f"), max_size=20)

PARSERS: list[Callable[[str], Any]] = [
    http.is_token,
    http.is_field_value,
    http.parse_list,
    http.parse_parameters,
    http.parse_weighted,
    http.parse_qvalue,
    http.parse_date,
    http.parse_etags,
    http.parse_host,
    http.parse_origin,
    http.unquote_string,
    lambda text: http.split_quoted(text, ","),
    lambda text: http.accepts(text, ("text/html", "application/json")),
]
HOSTILE = ["a" * 100_000, '"' * 100_000, '\\"' * 50_000, "," * 100_000, ";a=" * 33_000, " \t" * 50_000, '"a,' * 33_000]
HOSTILE += [
    "0" * 100_000,
    "a." * 50_000,
    "[" + ":" * 100_000,
    "http://" + "a-" * 50_000,
    'W/"' * 33_000,
    "a;q=" * 25_000,
]


@pytest.mark.timing
@pytest.mark.parametrize("number", range(len(PARSERS)))
def test_every_parser_is_fast_on_hostile_input(number: int) -> None:
    """100 kB of the worst that we could think of takes under 50 ms."""
    for text in HOSTILE:
        started = time.thread_time()
        PARSERS[number](text)
        assert time.thread_time() - started < 0.15, text[:10]


@given(anything)
def test_no_parser_raises(text: str) -> None:
    """Whatever a client sends is read or refused, never an exception."""
    for parser in PARSERS:
        parser(text)


@given(values)
def test_quoted_strings_round_trip(text: str) -> None:
    """What is quoted reads back as it was."""
    assert http.unquote_string(http.quote_string(text)) == text


@pytest.mark.parametrize("text", ["a\r\nb", "\x00", "\x7f", "€"])
def test_quoting_refuses_what_no_header_may_have(text: str) -> None:
    """A control character or one outside latin-1 cannot be quoted."""
    with pytest.raises(ValueError, match="quoted-string"):
        http.quote_string(text)


@given(st.lists(st.one_of(tokens, values.map(http.quote_string)), max_size=6))
def test_lists_round_trip(items: list[str]) -> None:
    """Commas inside quotes do not split."""
    assert http.parse_list(", ".join(items)) == items


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("a, b ,c", ["a", "b", "c"], id="spaces"),
        pytest.param(", a,, b,", ["a", "b"], id="empty elements"),
        pytest.param('"a,b", c', ['"a,b"', "c"], id="a comma in quotes"),
        pytest.param('"a\\",b", c', ['"a\\",b"', "c"], id="an escaped quote"),
        pytest.param('a, "b', [], id="an open quote"),
        pytest.param("", [], id="empty"),
    ],
)
def test_reads_lists(text: str, expected: list[str]) -> None:
    """RFC 9110 section 5.6.1."""
    assert http.parse_list(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("text/html", ("text/html", {})),
        ("text/html; Charset=utf-8", ("text/html", {"charset": "utf-8"})),
        ('a;b="c;d";e=f', ("a", {"b": "c;d", "e": "f"})),
        ("a;b=1;b=2", ("a", {"b": "1"})),
        ("a;", ("a", {})),
        ("a;b", None),
        ("a;=b", None),
        ('a;b="c', None),
        ("a;b=c d", None),
    ],
)
def test_reads_parameters(text: str, expected: tuple[str, dict[str, str]] | None) -> None:
    """RFC 9110 section 5.6.6."""
    assert http.parse_parameters(text) == expected


@pytest.mark.parametrize(
    ("text", "q"),
    [("1", 1000), ("0", 0), ("0.5", 500), ("0.001", 1), ("1.000", 1000), ("0.", 0), ("1.", 1000)],
)
def test_reads_weights(text: str, q: int) -> None:
    """RFC 9110 section 12.4.2."""
    assert http.parse_qvalue(text) == q


@pytest.mark.parametrize("text", ["", "2", "1.001", "0.0001", "-1", "+1", ".5", "1e-1", "٠"])
def test_refuses_malformed_weights(text: str) -> None:
    """What is no weight makes its element as if it was not sent."""
    assert http.parse_qvalue(text) is None
    assert http.parse_weighted(f"a;q={text}, b") == [("b", 1000, {})]


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/html", "text/html"),
        ("text/*;q=0.9, application/json;q=0.8", "text/html"),
        ("text/html;q=0, */*", "application/json"),
        ("image/png", None),
        ("text/html;level=1", None),
        ("TEXT/HTML", "text/html"),
    ],
)
def test_chooses_a_media_type(accept: str, expected: str | None) -> None:
    """The most specific range decides, then the weight, then our order."""
    assert http.accepts(accept, ("application/json", "text/html")) == expected


@given(st.integers(min_value=-2_000_000_000, max_value=30_000_000_000))
def test_dates_round_trip(seconds: int) -> None:
    """What is written reads back, and is what the standard library writes."""
    text = http.format_date(seconds)

    assert http.parse_date(text) == seconds
    assert text == formatdate(seconds, usegmt=True)


@pytest.mark.parametrize(
    "text",
    ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"],
)
def test_reads_all_three_forms_of_dates(text: str) -> None:
    """RFC 9110 section 5.6.7: a recipient accepts all three."""
    assert http.parse_date(text, now=1_700_000_000) == 784111777


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "Sun, 31 Feb 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 99999 08:49:37 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 29 Feb 1900 08:49:37 GMT",
        " Sun, 06 Nov 1994 08:49:37 GMT",
    ],
)
def test_refuses_malformed_dates(text: str) -> None:
    """A date that is none is as if the field was not sent (section 13.1.3)."""
    assert http.parse_date(text) is None


def test_two_digit_years_lie_at_most_fifty_years_ahead() -> None:
    """RFC 9110 section 5.6.7, for the RFC 850 form."""
    in_2026 = 1_780_000_000

    assert http.format_date(http.parse_date("Friday, 01-Jan-76 00:00:00 GMT", in_2026) or 0)[12:16] == "2076"
    assert http.format_date(http.parse_date("Saturday, 01-Jan-77 00:00:00 GMT", in_2026) or 0)[12:16] == "1977"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("*", None),
        (" * ", None),
        ('"a"', [ETag("a")]),
        ('W/"a", "b"', [ETag("a", True), ETag("b")]),
        ('"a,b","c"', [ETag("a,b"), ETag("c")]),
        ('""', [ETag("")]),
        ("a", []),
        ('w/"a"', []),
        ('"a" "b"', []),
        ('bad, "b"', [ETag("b")]),
        ('"a",,"b",', [ETag("a"), ETag("b")]),
        ('"a\x7f"', []),
        ("", []),
    ],
)
def test_reads_etags(text: str, expected: list[ETag] | None) -> None:
    """RFC 9110 sections 8.8.3 and 13.1.2; malformed elements are left out."""
    assert http.parse_etags(text) == expected


@pytest.mark.parametrize(
    ("sent", "current", "weak", "strong"),
    [
        ('W/"1"', ETag("1", True), True, False),
        ('W/"1"', ETag("2", True), False, False),
        ('W/"1"', ETag("1"), True, False),
        ('"1"', ETag("1"), True, True),
        ("*", ETag("1"), True, True),
        ("*", None, False, False),
    ],
)
def test_compares_etags(sent: str, current: ETag | None, weak: bool, strong: bool) -> None:
    """The table of RFC 9110 section 8.8.3.2."""
    tags = http.parse_etags(sent)

    assert http.etag_matches(tags, current, weak=True) is weak
    assert http.etag_matches(tags, current, weak=False) is strong


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("example.com", HostPort("example.com", None)),
        ("EXAMPLE.com:8080", HostPort("example.com", 8080)),
        ("example.com.", HostPort("example.com.", None)),
        ("127.0.0.1:80", HostPort("127.0.0.1", 80)),
        ("[::1]:80", HostPort("[::1]", 80)),
        ("[0:0::1]", HostPort("[::1]", None)),
        ("a_b.example", HostPort("a_b.example", None)),
    ],
)
def test_reads_hosts(text: str, expected: HostPort) -> None:
    """RFC 9110 section 7.2."""
    assert http.parse_host(text) == expected


def test_refuses_every_bad_host_of_the_corpus(corpus: Any) -> None:
    """Each host that a URL could be led astray with is malformed."""
    cases = corpus("hosts")

    assert [host for host in cases["bad"] if http.parse_host(host) is not None] == []
    assert [host for host in cases["ok"] if http.parse_host(host) is None] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://shop.example", Origin("https", "shop.example", 443)),
        ("HTTP://Shop.Example:8080", Origin("http", "shop.example", 8080)),
        ("https://shop.example:443", Origin("https", "shop.example", 443)),
        ("http://[::1]:3000", Origin("http", "[::1]", 3000)),
        ("null", None),
        ("https://shop.example/", None),
        ("https://user@shop.example", None),
        ("ftp://shop.example", None),
        ("https://", None),
    ],
)
def test_reads_origins(text: str, expected: Origin | None) -> None:
    """RFC 6454 section 6.2."""
    assert http.parse_origin(text) == expected
