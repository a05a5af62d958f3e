"""Time and memory of a fresh process: what an import costs, and what a whole stack costs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from measure import Build, Group, Sample

_STACK = "import scene, pathlib; from peers import {} as peer; peer.make(pathlib.Path({!r}){})"


def _process(code: str) -> Build:
    def build(folder: Path) -> Callable[[], Sample]:
        whole = code.replace("FOLDER", str(folder))
        _run("pass")
        _run(whole)

        def once() -> Sample:
            bare, full = _run("pass"), _run(whole)
            return Sample(full[0] - bare[0], full[1] - bare[1])

        return once

    return build


def _run(code: str) -> tuple[float, float]:
    """Run *code* in a fresh interpreter; return its processor time and its greatest memory in MB."""
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], env=os.environ)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"failed: {code}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def _stack(module: str, arguments: str = "") -> Build:
    return _process(_STACK.format(module, "FOLDER", arguments))


CASES = {
    "import webob": _process("import webob"),
    "import falcon": _process("import falcon"),
    "import flask": _process("import flask"),
    "lamella, six layers from a stack file": _stack("lamella_stack"),
    "Falcon + itsdangerous + urlmap": _stack("falcon_stack"),
    "WebOb + Beaker + Paste + wsgicors + WhiteNoise": _stack("classic_stack"),
    "Django + WhiteNoise + corsheaders": _stack("django_stack"),
    "Flask + flask-cors + flask-httpauth": _stack("flask_stack"),
}

GROUPS = [
    Group(
        "startup",
        "A fresh process, above an empty interpreter",
        {name: {"ms (MB)": build} for name, build in CASES.items()},
        "import webob",
        unit="ms",
        once=True,
        note="Processor time, and in brackets the memory.",
    )
]
