"""Measure lamella beside its peers: ``make bench``, or ``python bench/run.py --help``.

Sets up ``.venv-bench`` on its first run (and again when ``requirements.txt`` changes), and goes on in
there; for each other interpreter that it finds, ``.venv-bench-3.12`` and so on. Prints a table for each
group; ``--write-docs`` writes them, as tables, as JSON and as a chart, to ``docs/performance.md``,
``docs/performance.json`` and ``docs/performance.svg``.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent
MODULES = ("full", "layers", "router", "static", "scaling", "startup", "served", "pythons")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure lamella beside its peers, in one interleaved run.")
    parser.add_argument("--only", metavar="NAMES", default="", help="groups, or modules of them, separated by commas")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: under two minutes")
    parser.add_argument(
        "--pythons",
        metavar="NAMES",
        help="other interpreters, names or paths separated by commas (python3.12,python3.13)",
    )
    parser.add_argument("--json", metavar="FILE", help="write the results as JSON")
    parser.add_argument("--write-docs", action="store_true", help="write docs/performance.md and its chart")
    parser.add_argument("--read", metavar="FILE", help="take the results of --json instead of measuring")
    parser.add_argument("--list", action="store_true", help="list the groups")
    return parser.parse_args()


def enter_environment() -> None:
    """Create the environment where it is missing or old, and start again inside it."""
    sys.path.insert(0, str(BENCH))
    from environments import VENV, prepare

    python = prepare(sys.executable, VENV, optional=True)
    if Path(sys.prefix) != VENV:
        os.execv(python, [str(python), str(BENCH / "run.py"), *sys.argv[1:]])


def main() -> int:
    """Measure the groups that were asked for, and show them."""
    options = arguments()
    enter_environment()
    if options.pythons is not None:
        os.environ["BENCH_PYTHONS"] = options.pythons
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # the start of a process is measured with compiled modules
    sys.path[:0] = [str(BENCH), str(ROOT / "tools" / "dev")]
    from importlib import import_module

    import driver
    import report

    effort = driver.QUICK if options.quick else driver.FULL
    wanted = [name.strip() for name in options.only.split(",") if name.strip()]
    groups = [(module, group) for module in MODULES for group in import_module(f"cases.{module}").GROUPS]
    known = {name for module, group in groups for name in (module, group.name)}
    for name in wanted:
        if name not in known:
            print(f"no group {name!r}; there are: {', '.join(sorted(known))}", file=sys.stderr)
            return 2
    if wanted:
        groups = [(module, group) for module, group in groups if module in wanted or group.name in wanted]
    if options.list:
        for module, group in groups:
            print(f"{module:10} {group.name:15} {group.title}")
        return 0
    if options.read:
        everything = report.from_json(Path(options.read).read_text(), [group for _, group in groups])
        for group, found in everything.results:
            report.show(group, found)
        report.show_promises({group.name: found for group, found in everything.results})
        if options.write_docs:
            report.write_docs(everything, ROOT / "docs")
        return 0
    begun = time.monotonic()
    everything = report.Everything(report.machine(), [])
    for module, group in groups:
        runner = getattr(import_module(f"cases.{module}"), "run", None)
        found = runner(group, effort) if runner is not None else driver.run(module, group, effort)
        driver.progress("")
        if found:
            everything.results.append((group, found))
            report.show(group, found)
    report.show_promises({group.name: found for group, found in everything.results})
    everything.machine["duration"] = f"{time.monotonic() - begun:.0f} s"
    print(", ".join(f"{name}: {value}" for name, value in everything.machine.items()))
    if options.json:
        Path(options.json).write_text(report.as_json(everything))
    if options.write_docs:
        report.write_docs(everything, ROOT / "docs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
