"""The demo's stack, under a prefix."""

from __future__ import annotations

from pathlib import Path

import lamella.apps.demo
from lamella.stack import load

application = load(Path(lamella.apps.demo.__path__[0]) / "stack.toml")
