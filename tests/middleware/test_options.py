"""Every option of every layer, with values of every wrong kind: found by listing the folder, read from the signatures.

A wrong value is a :class:`ConfigError` of one line when the layer is built; never another exception,
never silence, and never an error that waits for a request.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import re
import shutil
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest

from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.options import Kind, Secret
from lamella.stack.signatures import is_typed_dict, signature
from lamella.stack.testing import RecordingApp, call

TESTS = Path(__file__).parent
SECRET = "0123456789abcdefghijklmnopqrstuvwxyzABCDEF"


def _contract() -> Any:
    """The contract tests, for the way in which they build a layer."""
    spec = importlib.util.spec_from_file_location("_contract_tests", TESTS / "test_contract.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CONTRACT = _contract()


class Plain:
    """An object that is nothing in particular."""


class TwoLines:
    """An object whose repr would break a message in two."""

    def __repr__(self) -> str:
        return "a\nb"


class NoRepr:
    """An object that cannot be shown at all."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 1.5, math.nan, math.inf, -math.inf, 10**40, -(10**40), 1j),
    *("", " ", "x", "\n", "a\r\nb: c", "\0", "\x7f", "\x85", "\ud800", "é", "x" * 100_000, "/" + "x" * 3000),
    *("/", "//", "/../", "/%2e", "%", "{", "${x}", "%(x)s", "(", "(a+)+$", "99999"),
    *("m:", ":a", "no.such:thing", "os:nothing", "os", "..:x", "os:path", "a:b:c"),
    *("-1s", "1e9", "-5 B", "9" * 5000 + "s", "9" * 5000 + " GB"),
    *("https://x", "http://[", "redis://[", "sqlite://", "sqlite:///", "memcached://", "foo://bar", "file:\0"),
    *(b"", b"x", b"\xff", bytearray(b"x" * 40), memoryview(b"x" * 40)),
    *([], [None], [1], [True], [""], ["\n"], ["\0"], ["\ud800"], [b"x"], [[]], [{}], [[1]], ["x", "x"], [math.nan]),
    *((), ("x",), set(), {1}, range(3), ["https://["], [{"paths": 1}], [{"paths": ["/x"], "x": 1}], [{"path": 1}]),
    *({}, {"x": None}, {"x": 1}, {1: 1}, {1: "x"}, {"": ""}, {"\n": "\n"}, {"x": "x"}, {"x": []}, {"x": {}}),
    *({"x": {"y": 1}}, {None: None}, {b"x": b"x"}, {"x": "\ud800"}, {"/x": 1}, {"/x": ""}, {"/x": None}),
    *(object(), Plain(), TwoLines(), NoRepr()),
]

# Options that the sample leaves alone, where they need company to be looked at.
COMPANY: dict[str, list[dict[str, Any]]] = {
    "bearer_auth": [
        {"algorithms": ["HS256"], "keys": SECRET},
        {"algorithms": ["RS256"], "jwks_url": "https://login.example/keys"},
        {"algorithms": ["HS256"], "keys": SECRET, "decryption_algorithms": ["dir"], "decryption_keys": SECRET[:32]},
    ],
    "login": [{"users": "staff.htpasswd", "remember": "30d", "remember_file": "remembered.sqlite"}],
    "session": [{"secret": SECRET, "store": "memory:", "lock": True}, {"secret": SECRET, "encrypt": True}],
    "static": [
        {"root": "public", "mode": "immutable"},
        {"root": "public", "sendfile": "x-sendfile", "sendfile_map": {"public": "/x"}},
    ],
    "access_log": [{"output": "lines.log", "format": "json", "headers": ["Accept"]}],
}


@functools.cache
def subject_of(module: str) -> Any:
    """One layer as the contract tests build it; its test file is read once."""
    return CONTRACT.Subject(module)


def names_of(module: str) -> list[str]:
    """The options of a layer."""
    return list(signature(subject_of(module).factory).parameters)


OPTIONS = [(module, option) for module in CONTRACT.MODULES for option in names_of(module)]


@pytest.fixture(autouse=True)
def in_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths of the samples are in a copy of ``tests/data``: some options create files."""
    shutil.copytree(TESTS.parent / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path / "data")


def bases(subject: Any) -> Iterator[dict[str, Any]]:
    """Options with which the layer can be built."""
    yield dict(subject.options() if callable(subject.options) else subject.options)
    yield from map(dict, COMPANY.get(subject.name, []))


def admits(hint: Any, value: Any) -> bool:
    """Tell whether *value* is of a kind that the annotation names."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        kinds = [mark.name for mark in hint.__metadata__ if isinstance(mark, Kind)]
        return all(_ADMITS[kind](value) for kind in kinds) and (kinds != [] or admits(arguments[0], value))
    if origin in (typing.Union, types.UnionType):
        return any(admits(argument, value) for argument in arguments)
    if origin is Literal:
        return any(type(value) is type(allowed) and value == allowed for allowed in arguments)
    if is_typed_dict(hint) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        key, item = arguments or (str, Any)
        return isinstance(value, Mapping) and all(
            admits(key, one) and admits(item, other) for one, other in value.items()
        )
    if origin is Callable or hint is Callable:
        return callable(value)
    if isinstance(origin, type) and issubclass(origin, Iterable):
        is_list = isinstance(value, Iterable) and not isinstance(value, (str, bytes, bytearray, memoryview, Mapping))
        return is_list and all(admits(arguments[0], item) for item in value)
    if hint is Any:
        return True
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint) if isinstance(hint, type) else True


def _is_number(value: Any, *more: type) -> bool:
    return isinstance(value, more) or (isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0)


_ADMITS: dict[str, Callable[[Any], bool]] = {
    "duration": lambda value: _is_number(value, str, timedelta) and value != math.inf,
    "size": lambda value: _is_number(value, str) and not isinstance(value, float),
    "cidr": lambda value: isinstance(value, (str, IPv4Network, IPv6Network)),
    "regex": lambda value: isinstance(value, (str, re.Pattern)),
    "path": lambda value: isinstance(value, (str, PathLike)),
    "output": lambda value: isinstance(value, (str, PathLike)) or hasattr(value, "write"),
    "secret": lambda value: isinstance(value, (str, bytes, Secret)),
    "reference": lambda value: isinstance(value, str) or callable(value),
    "app": lambda value: isinstance(value, (str, Mapping)) or callable(value),
}


def is_one_line(message: str) -> bool:
    """Tell whether a person can read it on one line of a terminal."""
    return len(message.splitlines()) == 1 and message.isprintable() and len(message) < 700


def shown(value: Any) -> str:
    """A value in a few characters."""
    return "NoRepr()" if isinstance(value, NoRepr) else ascii(value)[:60]


@pytest.mark.parametrize(("module", "option"), OPTIONS)
def test_refuses_each_wrong_value_when_it_is_built(module: str, option: str) -> None:
    """A value is refused by one line that names an option, or the layer takes it and answers requests with it."""
    subject = subject_of(module)
    parameters = signature(subject.factory).parameters
    wrong = []
    for base in bases(subject):
        for value in VALUES:
            try:
                layer = subject.factory(RecordingApp(), **{**base, option: value})
            except ConfigError as error:
                message, named = str(error), re.split(r"[.\[]", error.option)[0]
                if not is_one_line(message) or named not in parameters:
                    wrong.append(f"{shown(value)}: {ascii(message)[:200]}")
                continue
            except Exception as error:
                wrong.append(f"{type(value).__name__}: {type(error).__name__}: {ascii(str(error))[:200]}")
                continue
            if not admits(parameters[option].hint, value):
                wrong.append(f"{shown(value)} was taken, though its annotation forbids it")
            elif call(layer, subject.request()).code >= 500:
                wrong.append(f"{shown(value)} was taken, and fails at the first request")

    assert wrong == []


@pytest.mark.parametrize(("module", "option"), OPTIONS)
def test_takes_no_control_characters(module: str, option: str) -> None:
    """A line break, a NUL or half a character belong to no name, path or header; only an expression may have them."""
    subject = subject_of(module)
    parameter = signature(subject.factory).parameters[option]
    if "regex" in parameter.kinds or "secret" in parameter.kinds:
        return
    taken = []
    for base in bases(subject):
        for text in ("a\nb", "/a\r\nb", "a\0", "/\0", "\ud800"):
            for value in (text, [text], {text: "x"}, {"x": text}):
                try:
                    subject.factory(RecordingApp(), **{**base, option: value})
                except ConfigError:
                    continue
                taken.append(shown(value))

    assert taken == []


@pytest.mark.parametrize("module", CONTRACT.MODULES)
def test_refuses_an_option_that_it_does_not_have(module: str) -> None:
    """A misspelt option is a TypeError, as of any Python function; so is one given by position."""
    subject = subject_of(module)
    base = next(bases(subject))

    with pytest.raises(TypeError, match="no_such_option"):
        subject.factory(RecordingApp(), **base, no_such_option=1)
    with pytest.raises(TypeError):
        subject.factory(RecordingApp(), *base.values(), 1)
