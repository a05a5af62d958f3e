"""``bench/promises.py``: that every line it judges is measured by some group, and how it judges. Nothing is timed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[1] / "bench"
MODULES = ("full", "layers", "router", "static", "scaling", "startup", "served", "pythons")


@pytest.fixture(name="modules")
def _modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A function that imports a module of ``bench/``, a folder of programs; they are forgotten afterwards."""
    if not BENCH.exists():
        pytest.skip("bench/ is not part of the installed package")
    monkeypatch.syspath_prepend(str(BENCH))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BENCH)):
            del sys.modules[name]


def _every(promises: Any) -> list[Any]:
    groups: dict[str, dict[str, Any]] = {"idle": {"errors": {}}}
    return [
        *promises._full(), *promises._router(), *promises._layers(groups), *promises._static(), *promises._startup(),
        *promises._served(),
    ]  # fmt: skip


def test_every_promise_is_measured_by_a_group(modules: Any) -> None:
    """A promise of a row or a column that no group has would never be judged."""
    groups = {group.name: group for module in MODULES for group in modules(f"cases.{module}").GROUPS}
    promises = modules("promises")
    for promise in _every(promises):
        cells = []
        if isinstance(promise, promises.Ratio):
            rows, column = promise.slow
            cells = [*((row, column) for row in rows.split("|")), promise.fast]
        elif not isinstance(promise, promises.Instructions):
            cells = [(promise.row, promise.column)]
        for row, column in cells:
            assert column in groups[promise.group].cases[row], f"{promise.text}: {row}, {column}"


def test_every_group_has_its_reference(modules: Any) -> None:
    """The row that the ratios of a table refer to is one of its rows."""
    for module in MODULES:
        for group in modules(f"cases.{module}").GROUPS:
            assert group.reference in group.cases, group.name


def _results(modules: Any, **rows: dict[str, tuple[float, float]]) -> Any:
    """Results by row and column, each given as its median and its megabytes."""
    driver = modules("driver")
    return {
        row: {column: driver.Result(median, 0.0, megabytes) for column, (median, megabytes) in cells.items()}
        for row, cells in rows.items()
    }


def test_a_layer_is_compared_by_what_it_adds(modules: Any) -> None:
    """The bare application, which is in both times, is taken off both."""
    promises = modules("promises")
    results = _results(modules, bare={"hit": (1, 0)}, ours={"hit": (2, 0)}, peer={"hit": (4, 0)})
    promise = promises.Ratio("a", "layer", ("peer", "hit"), ("ours", "hit"), ">=", 3)
    assert promise.judge({"layer": results}) == ("a, at least 3 times", "3.00", True)
    assert promise._replace(bound=3.1).judge({"layer": results}).holds is False


def test_columns_are_compared_by_the_bare_application_of_their_own(modules: Any) -> None:
    """They are measured one after the other, and the machine may be slower by then."""
    promises = modules("promises")
    bare: dict[str, tuple[float, float]] = {"few": (1, 0), "many": (2, 0)}
    ours: dict[str, tuple[float, float]] = {"few": (3, 0), "many": (6, 0)}
    promise = promises.Ratio("a", "mounts", ("ours", "many"), ("ours", "few"), "<=", 1.1)
    assert promise.judge({"mounts": _results(modules, bare=bare, ours=ours)}).measured == "1.00"
    assert promise.judge({"mounts": _results(modules, ours=ours)}).measured == "2.00"


def test_of_several_peers_the_fastest_counts(modules: Any) -> None:
    """Nine tenths of the best peer are not nine tenths of the worst."""
    promises = modules("promises")
    results = _results(modules, ours={"c": (10, 4)}, one={"c": (8, 40)}, other={"c": (30, 8)})
    promise = promises.Ratio("a", "files", ("one|other", "c"), ("ours", "c"), ">=", 0.9)
    assert promise.judge({"files": results}) == ("a, at least 0.9 times", "0.80", False)
    assert promise._replace(memory=True).judge({"files": results}) == ("a, at least 0.9 times", "2.00", True)


def test_microseconds_are_scaled_to_the_reference_machine(modules: Any) -> None:
    """On a machine three times as slow, a layer may take three times as long."""
    promises = modules("promises")
    results = _results(modules, bare={"hello": (0.51, 0)}, idle={"hello": (1.26, 0)})
    promise = promises.OverBare("a", "layers", "idle", "hello", 0.3)
    assert promise.judge({"layers": results}) == ("a, at most 0.3 µs over bare", "0.25 µs", True)
    assert promise._replace(bound=0.2).judge({"layers": results}).holds is False


def test_what_was_not_measured_is_said_on_the_page_only(modules: Any) -> None:
    """A run of some groups judges those; the page names the others, so that no line disappears from it."""
    promises = modules("promises")
    results = _results(modules, lamella={"1 KB": (44, 0)})
    found = promises.promises({"keep-alive": results})
    assert found == [("1 KB on a connection that uWSGI keeps, at most 10 ms", "44.0 ms", False)]
    every = promises.promises({"keep-alive": results}, everything=True)
    assert len(every) > 40
    assert {verdict.holds for verdict in every if verdict.measured == "not measured"} == {None}
