"""The scanner: it finds every key that tomllib finds, where it stands."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.stack.scanner import Path, scan


def paths(value: Any, path: Path = ()) -> Iterator[Path]:
    """Every path of a parsed document."""
    inner: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield (*path, key)
        yield from paths(item, (*path, key))


CONSTRUCTS = {
    "empty": "",
    "comments": "# a = 1\n  # b\na = 1 # c = 2\n# end",
    "bare keys": "a = 1\nb-c = 2\n3 = 3\n_ = 4\n1-2_3 = 5",
    "quoted keys": '"a b" = 1\n\'c.d\' = 2\n"" = 3',
    "escaped keys": r'"\u00e9\t\"\\" = 1' + "\n" + r'"\U0001F600" = 2',
    "dotted keys": "a.b.c = 1\na . \"d e\" . 'f' = 2\n3.14 = 5",
    "tables": "[a]\nx = 1\n[a.b.c]\ny = 2\n[ d . 'e' ] # c\nz = 3",
    "a parent after its child": "[a.b]\nx = 1\n[a]\ny = 2",
    "arrays of tables": "[[a]]\nx = 1\n[[a]]\n[[a.b]]\ny = 2\n[[a.b]]\n[a.c]\nz = 1\n[[a]]\n[[a.b]]",
    "inline tables": "a = {}\nb = { x = 1, y.z = [ { q = 2 } ], \"k k\" = '''}''' }",
    "arrays": 'a = []\nb = [1, [2, 3,], # c ]\n  "]", # d\n]\nc = [\n\n]',
    "strings": 'a = "x # [y] = {"\nb = \'\\ " #\'\nc = "\\"\\\\"',
    "multiline basic": 'a = """\n[x]\nb = 1\n"" " \\""" \\\n   z"""\nc = """"quoted""""\nd = """a"""""\ne = """"""',
    "multiline literal": "a = '''\n[x]\n'' ' \\'''\nc = ''''quoted''''\nd = '''a'''''\ne = ''''''",
    "numbers": "a = +1_000\nb = -0.5e-3\nc = inf\nd = 0xDEAD\ne = nan\nf = 1e5",
    "dates": "a = 1979-05-27 07:32:00\nb = 1979-05-27T07:32:00.5-07:00\nc = 1979-05-27\nd = 07:32:00 # t\n"
    "e = [1979-05-27 07:32:00, 1979-05-27]\nf = { x = 1979-05-27 07:32:00Z, y = 1979-05-27 }\ng = 1979-05-27 # no time",
    "CRLF": 'a = 1\r\n[b]\r\nc = """\r\nx\r\n"""\r\nd = [\r\n1,\r\n]\r\n',
    "tabs": "\ta\t=\t1\n\t[\tb\t]\n\t\tc\t=\t2",
    "no line end": "[a]\nb = true",
}


@pytest.mark.parametrize("text", CONSTRUCTS.values(), ids=CONSTRUCTS)
def test_finds_the_keys_that_tomllib_finds(text: str) -> None:
    """One document for each construct of TOML."""
    assert set(scan(text)) == set(paths(tomllib.loads(text)))


def test_passes_over_a_byte_order_mark() -> None:
    """An editor's mark is no part of the first key, and takes no column."""
    assert scan("\ufeffa = 1")["a",] == (1, 1, 1, 5)


def test_tells_line_and_column_of_keys_and_values() -> None:
    """Columns count characters from 1, lines end at LF or CRLF."""
    places = scan("'é' = 1\r\n[t]\r\n  'ü' . b = [1,\r\n   { x = 2 }]\r\n[[l]]\r\n")

    assert places["é",] == (1, 1, 1, 7)
    assert places["t",] == (2, 1, 2, 1)
    assert places["t", "ü"] == (3, 3, 3, 3)
    assert places["t", "ü", "b"] == (3, 9, 3, 13)
    assert places["t", "ü", "b", 0] == (3, 14, 3, 14)
    assert places["t", "ü", "b", 1, "x"] == (4, 6, 4, 10)
    assert places["l", 0] == (5, 1, 5, 1)


def test_takes_time_in_proportion() -> None:
    """A large document, and long strings, are scanned in one pass."""
    text = "".join(f'[[layer]]\nuse = "x{i}"\nq = [{{ a = 1 }}, "{"é" * 50}"]\n' for i in range(3000))
    text += 'z = """' + '"" ' * 30_000 + '"""\n'

    assert len(scan(text)) == len(set(paths(tomllib.loads(text))))


# --- documents at random ------------------------------------------------------------------------

_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r", exclude_categories=["Cs"]), max_size=6)
_SPACE = st.sampled_from(["", " ", "\t", "  "])
_LINE_END = st.sampled_from(["\n", "\r\n", " # a = [{\n", "\n\n", "\n# ]\n"])
_PLAIN_KEYS = st.sampled_from(["a", "b", "c-d", "1", "e_"])


def _basic(text: str) -> str:
    """Write a basic string, all that is special escaped."""
    return '"' + "".join(c if c.isalnum() or c in " #[]{}=,.'" else f"\\U{ord(c):08x}" for c in text) + '"'


_KEY = st.one_of(
    _PLAIN_KEYS,
    _PLAIN_KEYS.map(_basic),
    _TEXT.map(_basic),
    st.sampled_from(["'a'", "'b c'", "''", "'[x]'", "'#'", "'\"'"]),
)
_DOTTED = st.builds(
    lambda keys, before, after: (before + "." + after).join(keys),
    st.lists(_KEY, min_size=1, max_size=3), _SPACE, _SPACE,
)  # fmt: skip
_LONG = st.sampled_from(['"""', "'''"]).flatmap(
    lambda quote: st.lists(
        st.sampled_from(["a", "\n", quote[0], quote[0] * 2, " ", "[x]\n", "#", "\r\n", "{", "é", "="]),
        max_size=8,
    ).map(lambda parts: quote + "".join(parts) + quote)
)  # fmt: skip
_SCALAR = st.one_of(
    st.sampled_from(
        ["1", "-1_0", "0x1F", "1.5e3", "inf", "true", "false", "1979-05-27", "1979-05-27 07:32:00",
         "1979-05-27T07:32:00Z", "07:32:00.5", "'x # y'", "''", '"\\"#"', "'''", '"""a\\"""" "']
    ),
    _TEXT.map(_basic),
    _LONG,
)  # fmt: skip
_GAP = st.sampled_from(["", " ", "\n", " # ]}\n ", "\r\n\t"])
_VALUE = st.recursive(
    _SCALAR,
    lambda inner: st.one_of(
        st.builds(
            lambda items, gap, comma: "[" + gap + f"{gap},{gap}".join(items) + (comma if items else "") + gap + "]",
            st.lists(inner, max_size=3), _GAP, st.sampled_from(["", ","]),
        ),
        st.builds(
            lambda pairs, gap: "{" + gap + f"{gap},{gap}".join(f"{k} ={gap}{v}" for k, v in pairs) + gap + "}",
            st.lists(st.tuples(_DOTTED, inner), max_size=3), _SPACE,
        ),
    ),
    max_leaves=6,
)  # fmt: skip
_STATEMENT = st.one_of(
    st.builds(lambda key, a, b, value, end: f"{a}{key}{b}={a}{value}{end}", _DOTTED, _SPACE, _SPACE, _VALUE, _LINE_END),
    st.builds(lambda key, a, end: f"{a}[{a}{key}{a}]{end}", _DOTTED, _SPACE, _LINE_END),
    st.builds(lambda key, a, end: f"[[{a}{key}{a}]]{end}", _DOTTED, _SPACE, _LINE_END),
)


def document(statements: list[str]) -> str:
    """Join the statements that tomllib accepts after those before them."""
    text = ""
    for statement in statements:
        try:
            tomllib.loads(text + statement)
        except tomllib.TOMLDecodeError:
            continue
        text += statement
    return text


@settings(max_examples=250, deadline=None)
@given(st.lists(_STATEMENT, max_size=12))
def test_agrees_with_tomllib_on_any_document(statements: list[str]) -> None:
    """Random statements in random spellings give the same set of keys."""
    text = document(statements)

    assert set(scan(text)) == set(paths(tomllib.loads(text)))


@settings(max_examples=100, deadline=None)
@given(st.lists(_STATEMENT, max_size=8))
def test_each_place_holds_what_it_says(statements: list[str]) -> None:
    """At the place of a value that is a short text stands that text, as tomllib reads it."""
    text = document(statements)
    lines = text.replace("\r\n", "\n").split("\n")
    data = tomllib.loads(text)

    for path, place in scan(text).items():
        found: Any = data
        for step in path:
            found = found[step]
        rest = "\n".join([lines[place.value_line - 1][place.value_column - 1 :], *lines[place.value_line :]])
        if isinstance(found, bool):
            assert rest.startswith(str(found).lower())
        elif isinstance(found, str):
            assert rest.startswith(("'", '"'))
        elif isinstance(found, list) and found and not isinstance(found[0], dict):
            assert rest.startswith("[")
