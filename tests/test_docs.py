"""The documentation: its examples run, its tables are those of the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lamella.stack.kernel import keys

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return [text for name, text in _BLOCK.findall(page.read_text(encoding="utf-8")) if name == language]


def named(page: Path) -> str:
    """A page's name in the test report."""
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [page for page in PAGES if page.exists() and blocks(page, "python")], ids=named)
def test_python_examples_run(page: Path, tmp_path: Path) -> None:
    """The blocks of a page run one after the other, as one program."""
    path = next(str(folder) for folder in sys.path if (Path(folder) / "lamella" / "middleware").is_dir())
    program = "\n".join(block.replace("from __future__ import annotations\n", "") for block in blocks(page, "python"))
    script = f"from __future__ import annotations\nimport sys\nsys.path.insert(0, {path!r})\n{program}"
    (tmp_path / "example.py").write_text(script, encoding="utf-8")

    done = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stderr


def test_the_table_of_keys_is_that_of_the_code() -> None:
    """docs/environ.md lists exactly the keys of ``kernel/keys.py``, and who sets them."""
    rows = re.findall(r"^\| `(lamella\.\w+)` \| `(\w+)` \|.*\| (.*) \|$", (ROOT / "docs/environ.md").read_text(), re.M)
    in_code = {
        value.name: (constant, value.layer)
        for constant, value in vars(keys).items()
        if isinstance(value, keys.EnvironKey)
    }

    assert {name: constant for name, constant, _ in rows} == {name: entry[0] for name, entry in in_code.items()}
    for name, _, set_by in rows:
        named_layers = set(re.findall(r"`(\w+)`", set_by))
        assert named_layers == {layer for layer in re.split(r",\s*|\s+or\s+", in_code[name][1]) if "." not in layer}


@pytest.mark.parametrize("page", [page for page in PAGES if page.exists() and blocks(page, "toml")], ids=named)
def test_stack_files_in_the_docs_are_sound(page: Path, tmp_path: Path) -> None:
    """Whole stack files, and single layers, name layers and options that exist, with values of the right types."""
    from lamella.stack.check import check

    for number, block in enumerate(blocks(page, "toml")):
        if "[[layer]]" not in block:
            continue
        whole = block if "lamella = 1" in block else f'lamella = 1\napp = {{ use = "a:b" }}\n\n{block}'
        if "[app]" not in whole and "app =" not in whole:
            whole = whole.replace("lamella = 1", 'lamella = 1\napp = { use = "a:b" }', 1)
        file = tmp_path / f"block{number}.toml"
        file.write_text(whole, encoding="utf-8")

        report = check(file, import_apps=False)

        wrong = [problem for problem in report.errors if problem.phase in ("syntax", "types")]
        assert wrong == [], block
