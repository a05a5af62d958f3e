"""The full stack on other interpreters: one environment for each, found by its name or given with ``--pythons``."""

from __future__ import annotations

import os
import platform
import sys

import driver
from driver import Effort, Results
from environments import VENV, interpreters, prepare
from measure import Group

from cases.full import ROWS

COLUMNS = ("untouched", "read", "write")
NAMES = (
    "bare application",
    "lamella, view returns text",
    "lamella, view returns webob.Response",
    "Falcon + itsdangerous + urlmap",
    "Flask + flask-cors + flask-httpauth",
)
DEFAULT = "python3.12,python3.13"

GROUPS = [
    Group(
        "pythons",
        "Full stack, on other interpreters",
        {name: {column: ROWS[name][column] for column in COLUMNS} for name in NAMES},
        "lamella, view returns webob.Response",
        note="Each interpreter with an environment of its own.",
        slow=COLUMNS,
    )
]


def run(group: Group, effort: Effort) -> Results:
    """Measure the group with this interpreter and with each other that is found; one column for each and use."""
    if not effort.all:
        return {}
    names = [name.strip() for name in os.environ.get("BENCH_PYTHONS", DEFAULT).split(",") if name.strip()]
    others = interpreters(names)
    if len(others) < len(names):
        print(f"of {', '.join(names)} there are: {', '.join(others) or 'none'} (--pythons)", file=sys.stderr)
    if not others:
        return {}
    found: Results = {name: {} for name in group.cases}
    own = platform.python_version()
    for version, program in {own: sys.executable, **others}.items():
        short = version.rpartition(".")[0]
        python = program if version == own else str(prepare(program, VENV.with_name(f"{VENV.name}-{short}")))
        for row, columns in driver.run("pythons", group, effort, python).items():
            for column, result in columns.items():
                found[row][f"{version}, {column}"] = result
    return found
