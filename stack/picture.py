"""A stack as a picture: SVG, from the outermost layer at the top to the apps at the bottom."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape, quoteattr

from lamella.stack.show import describe

if TYPE_CHECKING:
    from lamella.stack.build import Stack

__all__ = ["svg"]

# Pixels.
_WIDTH = 620
_INDENT = 26
_HEAD = 30
_LINE = 18
_GAP = 8
_MOST_OPTIONS = 6
#: Characters of 12 px monospace that fit into one pixel of width.
_PER_PIXEL = 1 / 7.3

_STYLE = """
  :root {
    --ground: #fbfaf7; --card: #ffffff; --ink: #1c2430; --muted: #66707e;
    --line: #d9d5ca; --accent: #0f6b5c; --app: #e6f2ee;
  }
  @media (prefers-color-scheme: dark) {
    :root {
      --ground: #16181d; --card: #20242c; --ink: #e7e9ee; --muted: #98a2b0;
      --line: #39404c; --accent: #5fd0b8; --app: #1c332f;
    }
  }
  .ground { fill: var(--ground); }
  .card { fill: var(--card); stroke: var(--line); }
  .app { fill: var(--app); stroke: var(--accent); }
  text { font: 12px ui-monospace, Menlo, Consolas, monospace; fill: var(--muted); }
  .id { font: 600 14px system-ui, sans-serif; fill: var(--ink); }
  .when { fill: var(--accent); }
  .way { stroke: var(--accent); stroke-width: 2; fill: none; }
"""


def svg(stack: Stack) -> str:
    """Draw *stack*; every text is escaped, secrets are masked. Light and dark by the reader's choice."""
    drawing = _Drawing()
    bottom = drawing.stack(describe(stack), 40, 44, _WIDTH - 60)
    title = stack.file or "stack"
    height = bottom + 24
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
            f'height="{height}" role="img" aria-label={quoteattr("The stack of " + title)}>',
            f"<style>{_STYLE}</style>",
            f'<rect class="ground" width="{_WIDTH}" height="{height}"/>',
            f'<text x="40" y="26" class="id">{escape(title)}</text>',
            f'<path class="way" d="M24 44 V{bottom - 12} m-5 -7 l5 7 l5 -7"/>',
            *drawing.parts,
            "</svg>",
            "",
        ]
    )


class _Drawing:
    """Boxes from top to bottom."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def stack(self, data: dict[str, Any], x: float, y: float, width: float) -> float:
        """Draw one stack; return where it ends."""
        for layer in data["layers"]:
            y = self.layer(layer, x, y, width)
        if data["app"]["stack"] is not None:
            return self.stack(data["app"]["stack"], x, y, width)
        self.box("app", x, y, width, _HEAD)
        self.text(x + 12, y + 20, data["app"]["use"], "id", width - 24)
        return y + _HEAD + _GAP

    def layer(self, layer: dict[str, Any], x: float, y: float, width: float) -> float:
        """Draw one layer with its options, and the stacks that it mounts inside its box."""
        changed = [option for option in layer["options"] if not option["is_default"]]
        shown, more = changed[:_MOST_OPTIONS], len(changed) - _MOST_OPTIONS
        at = len(self.parts)
        inner = y + _HEAD + _LINE * (len(shown) + (more > 0)) + (4 if shown else 0)
        bottom = inner
        for prefix, sub_stack in layer["mounts"].items():
            self.text(x + 12, bottom + 14, f"{prefix} → @{sub_stack['name']}", "when", width - 24)
            bottom = self.stack(sub_stack, x + _INDENT, bottom + 22, width - _INDENT - 10)
        self.box("card", x, y, width, bottom - y, at)
        self.text(x + 12, y + 20, layer["id"], "id", width / 2)
        if layer["when"]:
            scope = "; ".join(f"{name} {' '.join(values)}" for name, values in layer["when"].items())
            self.text(x + 24 + 8.5 * len(layer["id"]), y + 20, scope, "when", width - 40 - 8.5 * len(layer["id"]))
        for number, option in enumerate(shown):
            value = option["value"] if option["value"] == "***" else json.dumps(option["value"], ensure_ascii=False)
            self.text(x + 12, y + _HEAD + 10 + number * _LINE, f"{option['name']} = {value}", "", width - 24)
        if more > 0:
            self.text(x + 12, y + _HEAD + 10 + len(shown) * _LINE, f"… and {more} more", "", width - 24)
        return bottom + _GAP

    def box(self, style: str, x: float, y: float, width: float, height: float, at: int | None = None) -> None:
        """Add a box; *at* puts it behind what was drawn since."""
        part = f'<rect class="{style}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="7"/>'
        self.parts.insert(len(self.parts) if at is None else at, part)

    def text(self, x: float, y: float, text: str, style: str, width: float) -> None:
        """Add one line, cut where it would leave its box."""
        most = max(int(width * _PER_PIXEL), 4)
        line = text if len(text) <= most else text[: most - 1] + "…"
        self.parts.append(f'<text class="{style}" x="{x:g}" y="{y:g}">{escape(line)}</text>')
