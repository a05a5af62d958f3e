"""A trace as text, as a tree for the terminal, and as a page."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.tree import Tree

    from lamella.stack.trace_steps import Step, Trace

__all__ = ["html", "text", "tree"]


def _time(seconds: float) -> str:
    """Show a duration with the unit that fits."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _head(trace: Trace) -> str:
    """The first line."""
    by = f" by {trace.answered_by}" if trace.answered_by else ""
    said = trace.status or "no answer"
    error = f", raised {type(trace.error).__name__}" if trace.error is not None else ""
    root = trace.root
    sent = f"{_count(root.blocks, 'block')}, {_count(root.bytes, 'byte')}"
    return f"{trace.method} {trace.target} → {said}{by}{error}, {_time(trace.total)}, {sent}"


def _title(step: Step) -> str:
    where = f" (line {step.line})" if step.line else ""
    said = step.status or (f"raised {step.error}" if step.error else "did not answer")
    return f"{step.id}{where}  {said}  own {_time(step.own)}, total {_time(step.total)}"


def _details(step: Step) -> list[tuple[str, str]]:
    """What a step did, one line for each thing: its kind and its text."""
    lines = [("environ", f"environ {change}") for change in step.environ]
    lines += [("header", f"header  {change}") for change in step.header_changes]
    inner = [child for child in step.children if child.status]
    if inner and inner[-1].status != step.status and step.status:
        lines.append(("header", f"status  {inner[-1].status} → {step.status}"))
    if step.read:
        lines.append(("body", f"read    {_count(step.read, 'byte')} of the request"))
    if step.blocks or step.blocks_in:
        first = f", first byte after {_time(step.first_byte)}" if step.first_byte is not None else ""
        into = f"{step.blocks_in} in, " if step.children else ""
        lines.append(("body", f"blocks  {into}{step.blocks} out, {_count(step.bytes, 'byte')}{first}"))
    if step.has_close and step.closes != 1:
        lines.append(("error", f"close() came {step.closes} times"))
    if step.error:
        lines.append(("error", f"raised  {step.error}"))
    return lines


def text(trace: Trace) -> str:
    """Render a trace as plain text."""
    lines = [_head(trace)]

    def add(step: Step, indent: str) -> None:
        lines.append(f"{indent}{_title(step)}")
        lines.extend(f"{indent}    {line}" for _, line in _details(step))
        for child in step.children:
            add(child, indent + "  ")

    add(trace.root, "  ")
    return "\n".join(lines)


_STYLES = {"environ": "cyan", "header": "green", "body": "dim", "error": "red"}


def tree(trace: Trace) -> Tree:
    """Render a trace as a tree of rich."""
    from rich.text import Text
    from rich.tree import Tree

    drawn = Tree(Text(_head(trace), style="bold"))

    def add(step: Step, parent: Tree) -> None:
        label = Text(_title(step), style="bold red" if step.error else "bold")
        for kind, line in _details(step):
            label.append("\n")
            label.append(line, style=f"not bold {_STYLES[kind]}")
        node = parent.add(label)
        for child in step.children:
            add(child, node)

    add(trace.root, drawn)
    return drawn


_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem; color: #1c1c1c; background: #fff }}
h1 {{ font-size: 1.1rem }}
ol {{ list-style: none; margin: 0; padding-left: 1.25rem; border-left: 2px solid #cfd8e3 }}
li {{ margin: .5rem 0 }}
b {{ margin-right: .75rem }} .bar {{ display: inline-block; height: .6rem; background: #4a7fb5; min-width: 1px }}
pre {{ margin: .2rem 0; white-space: pre-wrap; font: 13px/1.45 ui-monospace, monospace }}
.environ {{ color: #0b6b74 }} .header {{ color: #1d6b2a }} .body {{ color: #5a5a5a }} .error {{ color: #a11616 }}
@media (prefers-color-scheme: dark) {{
  body {{ color: #e8e8e8; background: #16181c }} ol {{ border-color: #3a4350 }}
  .environ {{ color: #6fd0da }} .header {{ color: #86d394 }} .body {{ color: #aaa }} .error {{ color: #ff8a8a }}
}}
</style></head><body><h1>{title}</h1><ol>{steps}</ol></body></html>
"""


def html(trace: Trace) -> str:
    """Render a trace as a page without scripts or links; everything is escaped."""
    longest = max((step.own for step in trace.walk()), default=0) or 1

    def item(step: Step) -> str:
        width = max(1, round(step.own / longest * 160))
        parts = [f'<b>{escape(_title(step))}</b><span class="bar" style="width:{width}px"></span>']
        parts += [f'<pre class="{kind}">{escape(line)}</pre>' for kind, line in _details(step)]
        if step.children:
            parts.append("<ol>" + "".join(item(child) for child in step.children) + "</ol>")
        return "<li>" + "".join(parts) + "</li>"

    return _PAGE.format(title=escape(_head(trace)), steps=item(trace.root))
