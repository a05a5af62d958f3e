"""One case in a process of its own: ``worker.py MODULE GROUP ROW COLUMN SECONDS FOLDER``.

Builds the case, which checks its duties, says ``ready``, and measures one round for each line it reads.
"""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from pathlib import Path

from measure import Subject, measure


def main(module: str, group_name: str, row: str, column: str, seconds: str, folder: str) -> None:
    """Measure until standard input ends."""
    warnings.simplefilter("ignore")
    group = next(group for group in import_module(f"cases.{module}").GROUPS if group.name == group_name)
    build = group.cases[row][column]
    assert build is not None
    built = build(Path(folder))
    if isinstance(built, Subject):
        one_round = measure(built, float(seconds))
        print("ready", flush=True)
        for _ in sys.stdin:
            print(one_round(), 0, flush=True)
    else:
        print("ready", flush=True)
        for _ in sys.stdin:
            print(*built(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
