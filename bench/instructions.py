"""Count instructions per request under valgrind: a guard against regressions that no noise disturbs.

    python bench/instructions.py            # compare with instructions.json; 1 where something grew by a fifth
    python bench/instructions.py --write    # store the counts of this interpreter
    python bench/instructions.py --only 'layer session'    # count only the cases whose names begin so

Callgrind counts what the processor does in user space: the same program gives the same number, on a
busy machine too. One process runs all cases and calls ``getppid()`` between them, at which callgrind
writes down what it has counted. Of several rounds the lowest counts: a round in which the second
of the log's time stamp changes has one formatting more.

Counts differ between interpreters, and a little between builds of one, so ``instructions.json`` holds a set
for each minor version with the build it was made with. What is compared is the ratio to the bare
application in the same run.
"""

from __future__ import annotations

import gc
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STORED = ROOT / "bench" / "instructions.json"
#: A count may grow by this much before it is a regression.
ALLOWED = 1.2
WARM_UP, REQUESTS, ROUNDS = 60, 40, 3


def cases(folder: Path, only: str = "") -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """Every application to count whose name begins with *only*, with its request; and the bare application."""
    import scene
    from cases import layers
    from peers import lamella_stack

    found: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {"bare": (layers.bare, scene.environ("/"))}
    for profile in (None, "text"):
        if only and not only.startswith("full"):
            continue
        app = lamella_stack.make(folder, profile)
        scene.check_duties(app, folder)
        for column, request in scene.requests(app).items():
            found[f"full{' text' if profile else ''}, {column}"] = (app, request)
    for name, make in layers.OWN.items():
        if f"layer {name}".startswith(only):
            found[f"layer {name}"] = make(folder)
    return {name: case for name, case in found.items() if name == "bare" or name.startswith(only)}


def count(python: str = sys.executable, only: str = "") -> dict[str, int]:
    """Run the cases under callgrind and return instructions per request; *only* those whose names begin so.

    Raises:
        RuntimeError: valgrind is missing, or the cases failed.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise RuntimeError("valgrind is not installed")
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "out"
        command = [
            valgrind, "--tool=callgrind", f"--callgrind-out-file={out}", "--dump-before=getppid",
            "--zero-before=getppid", python, "-X", "frozen_modules=on", "-W", "ignore",
            __file__, "--cases", temporary, only,
        ]  # fmt: skip
        # Where instructions depend on addresses or hashes, they are the same each time.
        fixed = shutil.which("setarch")
        if fixed and subprocess.run([fixed, "-R", "true"], capture_output=True, check=False).returncode == 0:
            command = [fixed, "-R", *command]
        path = os.pathsep.join([str(ROOT / "tools" / "dev"), str(ROOT / "bench")])
        variables = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": path}
        done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
        if done.returncode:
            raise RuntimeError(f"the cases failed:\n{done.stdout}{done.stderr}")
        names = json.loads(done.stdout.splitlines()[-1])
        # Dumps are numbered from 1; the part before each case's first call is none of its rounds.
        counted = iter([_total(Path(f"{out}.{number}")) for number in range(1, len(names) * (ROUNDS + 1) + 1)])
        found = {}
        for name in names:
            next(counted)
            found[name] = min(next(counted) for _ in range(ROUNDS)) // REQUESTS
        return found


def _total(dump: Path) -> int:
    found = re.search(r"^(?:totals|summary): (\d+)", dump.read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"callgrind wrote no total into {dump}")
    return int(found[1])


def run_cases(folder: Path, only: str) -> None:
    """Run each case, with a mark before and after each round; in the process that callgrind watches."""
    every = cases(folder, only)
    gc.collect()
    gc.disable()
    for app, request in every.values():
        _drive(app, request, WARM_UP)
        for _ in range(ROUNDS):
            os.getppid()
            _drive(app, request, REQUESTS)
        os.getppid()
    print(json.dumps(list(every)))


def _start_response(status: str, headers: Any, exc_info: Any = None) -> None:
    return None


def _drive(app: Callable[..., Any], request: dict[str, Any], times: int) -> None:
    for _ in range(times):
        body = app(request.copy(), _start_response)
        for _block in body:
            pass
        close = getattr(body, "close", None)
        if close is not None:
            close()


def build_id() -> str:
    """What the counts depend on besides the code: version, compiler and flags of the interpreter."""
    flags = "pgo" if "-fprofile-use" in str(sysconfig.get_config_var("PY_CORE_CFLAGS")) else "no pgo"
    return f"{sys.version.split()[0]}, {sys.version.partition('[')[2].rstrip(']')}, {flags}"


def version() -> str:
    """The minor version, by which counts are stored."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def stored() -> dict[str, Any]:
    """All stored counts, by minor version."""
    return json.loads(STORED.read_text()) if STORED.exists() else {}


def regressions(now: dict[str, int], before: dict[str, int]) -> list[str]:
    """Say what has grown by more than a fifth, compared with the bare application of the same run."""
    found = []
    for name, old in before.items():
        if name not in now:
            found.append(f"{name}: is not counted any more; run bench/instructions.py --write")
            continue
        growth = (now[name] / now["bare"]) / (old / before["bare"])
        if growth > ALLOWED:
            found.append(f"{name}: {now[name]:,} instructions, {growth:.2f} times the {old:,} stored")
    return found


def main(arguments: list[str]) -> int:
    """Count, and compare or write."""
    if arguments[:1] == ["--cases"]:
        run_cases(Path(arguments[1]), arguments[2])
        return 0
    only = arguments[1] if arguments[:1] == ["--only"] else ""
    now = count(only=only)
    everything = stored()
    before = everything.get(version(), {}).get("instructions", {})
    before = {name: number for name, number in before.items() if name == "bare" or name.startswith(only)}
    for name, number in now.items():
        change = f"{number / before[name] - 1:+7.1%}" if name in before else ""
        print(f"{name:28} {number:>10,} {change}")
    if "--write" in arguments:
        everything[version()] = {"interpreter": build_id(), "instructions": now}
        STORED.write_text(json.dumps(dict(sorted(everything.items())), indent=2) + "\n")
        return 0
    if not before:
        print(f"no counts are stored for Python {version()}: run with --write", file=sys.stderr)
        return 1
    grown = regressions(now, before)
    for line in grown:
        print(f"regression: {line}", file=sys.stderr)
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
