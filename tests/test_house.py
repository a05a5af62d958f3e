"""The house: packaging, imports and independence, guarded against the traps of the layout."""

from __future__ import annotations

import ast
import configparser
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

import lamella.apps
import lamella.middleware
import lamella.stack

ROOT = Path(__file__).resolve().parents[1]
CHECKOUT = (ROOT / "middleware").is_dir()
PACKAGES = {
    "lamella.middleware": Path(lamella.middleware.__path__[0]),
    "lamella.apps": Path(lamella.apps.__path__[0]),
    "lamella.stack": Path(lamella.stack.__path__[0]),
}


def layers() -> list[str]:
    """Names of all layer modules."""
    return sorted(path.stem for path in PACKAGES["lamella.middleware"].glob("*.py") if not path.stem.startswith("_"))


def setup() -> configparser.ConfigParser:
    """Read setup.cfg."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def run(code: str) -> str:
    """Run *code* in a fresh interpreter that sees what this one sees."""
    path = next(str(folder) for folder in sys.path if (Path(folder) / "lamella" / "middleware").is_dir())
    script = f"import sys; sys.path.insert(0, {path!r}); {code}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout


def test_packages_in_setup_cfg_are_those_on_disk() -> None:
    """An explicit ``packages`` list silently drops a forgotten subpackage from the wheel."""
    listed = set(setup()["options"]["packages"].split())
    on_disk = {
        ".".join([name, *path.parent.relative_to(folder).parts])
        for name, folder in PACKAGES.items()
        for path in folder.rglob("__init__.py")
    }

    assert listed == on_disk


def test_every_package_is_typed() -> None:
    """A namespace package has no root that could hold one ``py.typed`` for all."""
    assert all((folder / "py.typed").exists() for folder in PACKAGES.values())


def test_lamella_is_a_namespace() -> None:
    """There is no ``lamella/__init__.py`` that would hide other distributions' parts of it."""
    assert run("import lamella; print(getattr(lamella, '__file__', None))").strip() == "None"


@pytest.mark.skipif(not CHECKOUT, reason="only in a checkout can the folder names be imported by accident")
def test_folder_names_cannot_be_imported() -> None:
    """``import middleware.x`` would make a second copy of each module."""
    for name in ("middleware", "apps", "stack"):
        with pytest.raises(ModuleNotFoundError):
            __import__(name)


@pytest.mark.skipif(not CHECKOUT, reason="the links are part of a checkout")
def test_development_links_lead_to_the_folders() -> None:
    """``pytest`` and ``mypy`` run in a fresh clone through three links."""
    for name in ("middleware", "apps", "stack"):
        assert (ROOT / "tools" / "dev" / "lamella" / name).resolve() == ROOT / name


def test_tests_have_no_package_files() -> None:
    """``tests/__init__.py`` would put the root folder on the path."""
    assert not list(Path(__file__).parent.rglob("__init__.py"))


@pytest.mark.parametrize("group", ["lamella.layers", "paste.filter_app_factory"])
def test_every_layer_is_an_entry_point(group: str) -> None:
    """Each module in ``middleware/`` has its short name, in both groups, and no name is left over."""
    lines = setup()["options.entry_points"][group].split("\n")
    names = {line.partition("=")[0].strip() for line in lines if line.strip()}

    assert names == set(layers())


def test_extras_in_the_code_exist() -> None:
    """An error that names an extra names one that can be installed."""
    extras = set(setup()["options.extras_require"])
    named = {
        node.args[1].value
        for folder in PACKAGES.values()
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "import_extra"
        and len(node.args) > 1
        and isinstance(node.args[1], ast.Constant)
    }

    assert named <= extras


def test_all_holds_every_extra() -> None:
    """``pip install 'lamella[all]'`` brings whatever any layer or server can ask for."""
    extras = setup()["options.extras_require"]
    lists = [line.partition("[")[2].rstrip("]") for line in extras["all"].split("\n")]

    held = {name for names in lists if names for name in names.split(",")}
    assert held == set(extras) - {"all", "test", "check", "docs", "demo"}


@pytest.mark.parametrize("name", layers())
def test_importing_one_layer_imports_no_other(name: str) -> None:
    """Nor a server, nor the loader, nor WebOb."""
    code = (
        f"import lamella.middleware.{name}; "
        "print(*sorted(m for m in sys.modules if m.startswith('lamella.') or m in "
        "('waitress', 'webob', 'click', 'rich', 'asyncio', 'importlib.metadata', 'http.cookies')))"
    )
    loaded = run(code).split()

    others = [m for m in loaded if m.startswith("lamella.middleware.") and not m.startswith("lamella.middleware._")]
    assert others == [f"lamella.middleware.{name}"]
    rest = [m for m in loaded if not m.startswith(("lamella.middleware", "lamella.stack.kernel"))]
    assert set(rest) <= {"lamella.stack"}


def test_version_is_told_by_the_metadata() -> None:
    """The version is in one place."""
    assert importlib.metadata.version("lamella") == setup()["metadata"]["version"]


def test_nothing_is_left_for_later() -> None:
    """No marker of unfinished work stands in the source."""
    for folder in PACKAGES.values():
        for path in folder.rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert not any(f"# {word}" in text for word in ("TODO", "FIXME", "XXX")), path
            assert "raise NotImplementedError" not in text, path
