"""Every layer of ours keeps every rule of the conformance suite: alone, in pairs, and all together."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from lamella.stack.order import legal, sort_layers
from lamella.stack.testing import Probe, conformance
from lamella.stack.testing.conformance import RULES

TESTS = Path(__file__).parent


def _contract() -> Any:
    """The contract tests, for the way in which they build a layer."""
    spec = importlib.util.spec_from_file_location("_contract_tests", TESTS / "test_contract.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CONTRACT = _contract()
# Rules that take long and say nothing new of a pair: a garbage collection, threads.
SLOW = ("B9", "F1")


@pytest.fixture(autouse=True)
def in_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths of the samples are in ``tests/data``."""
    monkeypatch.chdir(TESTS.parent / "data")


def together(*subjects: Any) -> Probe | None:
    """The request that passes all of them, or None where they want different ones."""
    headers: dict[str, Any] = {}
    exempt: dict[str, str] = {}
    path = "/"
    for subject in subjects:
        for name, value in subject.headers.items():
            if headers.setdefault(name, value) != value:
                return None
        if subject.path != "/":
            if path not in ("/", subject.path):
                return None
            path = subject.path
        exempt.update(getattr(subject.factory, "exempt", {}))
    return Probe(path, headers, exempt)


@functools.cache
def subject_of(name: str) -> Any:
    """One layer as the contract tests build it; its test file is read once."""
    return CONTRACT.Subject(name)


@functools.cache
def broken_alone(name: str) -> tuple[str, ...]:
    """The rules that one layer breaks by itself: said once, not again for each pair."""
    subject = subject_of(name)
    return tuple(result.code for result in conformance(subject.build, probe=together(subject)).failures)


@pytest.mark.parametrize("name", CONTRACT.MODULES)
def test_keeps_every_rule(name: str) -> None:
    """Alone, a layer breaks no rule but those that it states with a reason."""
    subject = subject_of(name)

    report = conformance(subject.build, probe=together(subject))

    assert report.reached
    assert not report.failures, report.explain()


@pytest.mark.parametrize(
    ("name", "options", "headers"),
    [
        ("compress", {"min_size": 0}, {"accept_encoding": "gzip"}),
        ("conditional", {}, {"if_none_match": '"other"'}),
        ("cors", {"origins": ["https://a.example"]}, {"origin": "https://a.example"}),
    ],
)
def test_keeps_every_rule_when_it_has_work_to_do(name: str, options: dict[str, Any], headers: dict[str, Any]) -> None:
    """Not only where a layer leaves the answer alone."""
    report = conformance(subject_of(name).factory, probe=Probe(headers=headers), **options)

    assert report.reached
    assert not report.failures, report.explain()


@pytest.mark.parametrize("name", CONTRACT.MODULES)
def test_keeps_every_rule_with_each_other_layer_inside(name: str) -> None:
    """Around any layer that may stand inside it, it breaks no rule that neither of the two breaks alone."""
    outer = subject_of(name)
    for inner_name in CONTRACT.MODULES:
        inner = subject_of(inner_name)
        probe = together(outer, inner)
        if inner_name == name or probe is None or not legal(outer.factory, inner.factory):
            continue
        rules = [code for code in RULES if code not in (*SLOW, *broken_alone(name), *broken_alone(inner_name))]
        report = conformance(lambda app, inner=inner: outer.build(inner.build(app)), probe=probe, rules=rules)
        assert not report.failures, f"{name} around {inner_name}\n{report.explain()}"


def test_keeps_every_rule_all_together() -> None:
    """Every layer in one stack, in an order that the rules allow."""
    subjects = [subject_of(name) for name in CONTRACT.MODULES]
    chosen: list[Any] = []
    for subject in subjects:
        if together(*chosen, subject) is not None:
            chosen.append(subject)
    ordered = sort_layers([subject.factory for subject in chosen])
    by_factory = {subject.factory: subject for subject in chosen}

    def build(app: Any) -> Any:
        for factory in reversed(ordered):
            app = by_factory[factory].build(app)
        return app

    report = conformance(build, probe=together(*chosen))

    assert report.reached
    assert not report.failures, report.explain()
