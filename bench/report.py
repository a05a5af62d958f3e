"""The results: as tables on the terminal, as JSON, and as a page with a chart."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from driver import Result, Results
from measure import Group
from promises import promises

PEERS = (
    "WebOb", "Falcon", "Flask", "Flask-Cors", "Flask-HTTPAuth", "Werkzeug", "Django", "whitenoise",
    "django-cors-headers", "Beaker", "Paste", "wsgicors", "itsdangerous", "gunicorn", "granian", "waitress", "uwsgi",
)  # fmt: skip
BEGIN, END = "<!-- results -->", "<!-- /results -->"


class Everything(NamedTuple):
    """All results of a run, and where it ran."""

    machine: dict[str, str]
    results: list[tuple[Group, Results]]


def machine() -> dict[str, str]:
    """What the times depend on."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), model)
    found = {
        "processor": f"{os.cpu_count()} x {model}",
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "Python": platform.python_version(),
    }
    for name in PEERS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def columns(group: Group, found: Results) -> list[str]:
    """The columns that were measured: not those that are left out of a quick run, and also those found on the way."""
    measured = dict.fromkeys(column for cells in found.values() for column in cells)
    return [column for column in group.columns if column in measured] + [
        column for column in measured if column not in group.columns
    ]


def cell(group: Group, found: Results, row: str, column: str) -> str:
    """One time, and how many times that of the reference it is."""
    result = found[row].get(column)
    if result is None:
        return ""
    text = f"{number(result.median)} ±{number(result.spread / 2)}"
    if result.megabytes > 0.05:
        text += f" ({result.megabytes:.1f})"
    base = found[group.reference].get(column)
    if base is not None and row != group.reference and base.median > 0:
        text += f"  {result.median / base.median:.2f}x"
    return text


def number(value: float) -> str:
    """Three digits that mean something."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def show(group: Group, found: Results) -> None:
    """Print one table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{group.title} ({unit(group)}; x: times {group.reference})", title_justify="left")
    table.add_column("")
    shown = columns(group, found)
    for column in shown:
        table.add_column(column, justify="right", no_wrap=True)
    for row in found:
        style = "bold" if row.startswith("lamella") else ""
        table.add_row(row, *(cell(group, found, row, column) for column in shown), style=style)
    console = Console() if sys.stdout.isatty() else Console(width=200)
    console.print(table)


def unit(group: Group) -> str:
    """The unit, as people write it."""
    return {"us": "µs", "ms": "ms"}[group.unit]


def as_json(everything: Everything) -> str:
    """All results as JSON."""
    groups: dict[str, Any] = {}
    for group, found in everything.results:
        rows = {row: {column: result._asdict() for column, result in columns.items()} for row, columns in found.items()}
        groups[group.name] = {"title": group.title, "unit": group.unit, "reference": group.reference, "rows": rows}
    return json.dumps({"machine": everything.machine, "groups": groups}, indent=2) + "\n"


def from_json(text: str, groups: list[Group]) -> Everything:
    """Read what :func:`as_json` wrote; groups that are no more are left out."""
    found = json.loads(text)
    by_name = {group.name: group for group in groups}
    results = [
        (
            by_name[name],
            {row: {column: Result(**one) for column, one in cells.items()} for row, cells in stored["rows"].items()},
        )
        for name, stored in found["groups"].items()
        if name in by_name
    ]
    return Everything(found["machine"], results)


def write_docs(everything: Everything, docs: Path) -> None:
    """Write the tables between the marks of the page, the JSON and the chart beside it."""
    import chart

    page = docs / "performance.md"
    before, _, rest = page.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    groups = {group.name: found for group, found in everything.results}
    parts = [_machine(everything.machine), _promises(groups)]
    for group, found in everything.results:
        parts.append(_markdown(group, found))
    page.write_text(f"{before}{BEGIN}\n\n" + "\n\n".join(part for part in parts if part) + f"\n\n{END}{after}")
    (docs / "performance.json").write_text(as_json(everything))
    if "full" in groups:
        (docs / "performance.svg").write_text(chart.bars(groups["full"]))


def _machine(found: dict[str, str]) -> str:
    words = ", ".join(f"{name} {value}" for name, value in found.items() if name not in ("processor", "duration"))
    return f"Measured on {found['processor']}; {words}. The run took {found.get('duration', '?')}."


def _promises(groups: dict[str, Results]) -> str:
    """What was promised, and what this run found."""
    lines = ["## What must hold", "", "| promise | measured | holds |", "| --- | ---: | --- |"]
    for text, measured, holds in promises(groups, everything=True):
        lines.append(f"| {text} | {measured} | {_HOLDS[holds]} |")
    lines += ["", "Microseconds over bare are scaled to a machine on which the bare application takes 0.17 µs."]
    return "\n".join(lines)


_HOLDS = {True: "yes", False: "**no**", None: ""}


def show_promises(groups: dict[str, Results]) -> None:
    """Print what was promised and measured."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="What must hold", title_justify="left")
    table.add_column("")
    table.add_column("measured", justify="right", no_wrap=True)
    table.add_column("holds")
    for text, measured, holds in promises(groups):
        table.add_row(text, measured, "yes" if holds else "no", style="" if holds else "bold red")
    if table.row_count:
        console = Console() if sys.stdout.isatty() else Console(width=200)
        console.print(table)


def _markdown(group: Group, found: Results) -> str:
    shown = columns(group, found)
    lines = [f"## {group.title}", "", f"| {unit(group)} | " + " | ".join(shown) + " |"]
    lines.append("| --- |" + " ---: |" * len(shown))
    for row in found:
        cells = [cell(group, found, row, column) for column in shown]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    note = f"{group.note} " if group.note else ""
    lines += ["", f"{note}x: how many times {group.reference}. ±: half the distance between the quartiles."]
    return "\n".join(lines)


__all__ = ["Everything", "Result", "as_json", "from_json", "machine", "show", "show_promises", "write_docs"]
