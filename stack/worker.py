"""One serving process of ``lamella run --reload``; the supervisor starts it with inherited sockets.

It writes one line of JSON to the file descriptor it was given: the files it was built
from, and, where the stack could not be built, why. After that line it serves, or ends.
"""

from __future__ import annotations

import argparse
import json
import os
import site
import socket
import sys
import sysconfig
from pathlib import Path

__all__ = ["main", "own_files"]


def own_files() -> list[str]:
    """Return the files of every imported module that is not installed: those a developer edits."""
    folders = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    installed = tuple(os.path.join(folder, "") for folder in {*folders, *site.getsitepackages()})
    found = []
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and not file.startswith(installed) and not file.startswith("<") and os.path.exists(file):
            found.append(os.path.abspath(file))
    return found


def main() -> int:
    """Build the stack, report, serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("stack")
    parser.add_argument("--profile")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--report", type=int, required=True)
    parser.add_argument("--socket", type=int, action="append", required=True)
    given = parser.parse_args()

    from .check import check
    from .cli.common import add_folder_to_path
    from .serve import serve

    add_folder_to_path(given.stack)
    sockets = [socket.socket(fileno=number) for number in given.socket]
    found = check(given.stack, given.profile, expectations=False)
    stack, files = found.stack, {str(Path(given.stack).resolve())}
    files.update(str(Path(problem.file).resolve()) for problem in found.problems)
    if stack is None or found.errors:
        report(given.report, [*files, *own_files()], [str(problem) for problem in found.errors])
        return 1
    files.update(str(Path(file).resolve()) for file in stack.files)
    serve(stack, sockets, threads=given.threads, ready=lambda: report(given.report, [*files, *own_files()], []))
    return 0


def report(descriptor: int, files: list[str], problems: list[str]) -> None:
    """Tell the supervisor, once."""
    with open(descriptor, "w", encoding="utf-8") as pipe:
        pipe.write(json.dumps({"files": sorted(set(files)), "problems": problems}) + "\n")


if __name__ == "__main__":
    sys.exit(main())
