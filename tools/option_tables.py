"""Write the option tables of ``docs/layers/*.md`` from the signatures and ``Args:`` of the classes.

Without arguments the tables are written; with ``--check`` the program fails where one is out of date.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "layers"
BEGIN, END = "<!-- options -->", "<!-- /options -->"
_ENTRY = re.compile(r"^    ( *)([a-z_][a-z0-9_]*): (.*)$")


def layer_class(module_name: str) -> type:
    """Return the one public class of a layer's module."""
    module = importlib.import_module(f"lamella.middleware.{module_name}")
    (name,) = [public for public in module.__all__ if public.endswith("Middleware")]
    found: type = getattr(module, name)
    return found


def arguments(docstring: str) -> dict[str, str]:
    """Read the ``Args:`` section: the name of each argument and its text on one line."""
    _, marker, section = inspect.cleandoc(docstring).partition("\nArgs:\n")
    texts: dict[str, str] = {}
    name = ""
    for line in section.splitlines() if marker else ():
        if line and not line.startswith("    "):
            break
        entry = _ENTRY.match(line)
        if entry is not None and not entry[1]:
            name = entry[2]
            texts[name] = entry[3]
        elif name and line.strip():
            texts[name] += " " + line.strip()
        elif not line.strip():
            name = name and ""
    return texts


def table(cls: type) -> str:
    """Render the options of *cls* as a Markdown table."""
    texts = arguments(cls.__doc__ or "")
    rows = ["| option | type | default | meaning |", "| --- | --- | --- | --- |"]
    missing = []
    for parameter in list(inspect.signature(cls).parameters.values())[1:]:
        if parameter.name not in texts:
            missing.append(parameter.name)
            continue
        required = parameter.default is parameter.empty
        default = "*required*" if required else f"`{_default(parameter.default)}`"
        annotation = str(parameter.annotation).replace(" | ", " or ")
        meaning = re.sub(r":\w+:`~?([^`]*)`", r"`\1`", texts[parameter.name]).replace("``", "`").replace("|", "&#124;")
        rows.append(f"| `{parameter.name}` | `{annotation}` | {default} | {meaning} |")
    if missing:
        raise SystemExit(f"{cls.__name__}: no Args entry for {', '.join(missing)}")
    return "\n".join(rows) if len(rows) > 2 else "This layer has no options."


def _default(value: object) -> str:
    """Show a default value as it is written in the source."""
    if isinstance(value, re.Pattern):
        return str(value.pattern)
    return getattr(value, "__qualname__", None) or repr(value)


def updated(page: Path) -> str:
    """Return the text of *page* with a fresh table."""
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{page.relative_to(ROOT)} has no {BEGIN} … {END}")
    return f"{before}{BEGIN}\n{table(layer_class(page.stem))}\n{END}{after}"


def main() -> int:
    """Write or check every page; the exit code is the number of pages out of date."""
    check = "--check" in sys.argv[1:]
    modules = {path.stem for path in (ROOT / "middleware").glob("*.py") if not path.stem.startswith("_")}
    pages = {path.stem: path for path in PAGES.glob("*.md") if path.stem != "index"}
    stale = [f"docs/layers/{name}.md is missing" for name in sorted(modules - set(pages))]
    stale += [f"docs/layers/{name}.md has no layer" for name in sorted(set(pages) - modules)]
    for name in sorted(modules & set(pages)):
        text = updated(pages[name])
        if text != pages[name].read_text(encoding="utf-8"):
            if check:
                stale.append(f"docs/layers/{name}.md is out of date: python tools/option_tables.py")
            else:
                pages[name].write_text(text, encoding="utf-8")
    for line in stale:
        print(line, file=sys.stderr)
    return len(stale)


if __name__ == "__main__":
    sys.exit(main())
