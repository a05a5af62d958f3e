"""Compressed siblings and hashed names: made once, reproducibly, and served by the layer."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from lamella.apps.static import StaticApp, StaticUrls
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.static_tools import build_static, compress_folder, progress_bar
from lamella.stack.testing import call, environ


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    """Make files below *folder*."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Text, noise, a picture, a tiny file, and what is not to be touched."""
    return write(
        tmp_path / "files",
        {
            "app.css": "body { margin: 0 }\n" * 100,
            "deep/page.html": "<p>hello</p>\n" * 100,
            "noise.txt": os.urandom(500),
            "tiny.txt": "x" * 50,
            "picture.png": b"\0" * 5000,
            ".hidden": "x" * 5000,
        },
    )


def test_compresses_where_it_is_smaller(folder: Path) -> None:
    """Each coding beside its file; not what is noise, tiny, compressed or hidden."""
    done = []

    results = {result.name: result for result in compress_folder(folder, progress=lambda at, of: done.append((at, of)))}

    assert set(results["app.css"].siblings) == {"zstd", "br", "gzip"}
    assert gzip.decompress((folder / "app.css.gz").read_bytes()) == (folder / "app.css").read_bytes()
    made = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in (".gz", ".br", ".zst")}
    assert made == {f"{name}{suffix}" for name in ("app.css", "deep/page.html") for suffix in (".gz", ".br", ".zst")}
    assert done[-1] == (4, 4)


def test_compresses_reproducibly(folder: Path) -> None:
    """Equal files give equal bytes, whatever their names and times."""
    write(folder, {"other.css": (folder / "app.css").read_bytes()})
    os.utime(folder / "other.css", (1, 1))

    compress_folder(folder)

    for suffix in (".gz", ".br", ".zst"):
        assert (folder / f"app.css{suffix}").read_bytes() == (folder / f"other.css{suffix}").read_bytes()


def test_compresses_only_what_changed(folder: Path) -> None:
    """A sibling has its file's time; a changed file gets a new one, a file that is now noise none."""
    compress_folder(folder)
    assert all(result.unchanged for result in compress_folder(folder))

    write(folder, {"app.css": "p { margin: 1px }\n" * 100, "deep/page.html": os.urandom(900)})
    changed = {result.name for result in compress_folder(folder) if not result.unchanged}

    assert changed == {"app.css", "deep/page.html"}
    assert gzip.decompress((folder / "app.css.gz").read_bytes()).startswith(b"p {")
    assert not (folder / "deep/page.html.gz").exists()


def test_keeps_an_archive_that_has_no_plain_file(folder: Path) -> None:
    """``data.csv.gz`` without ``data.csv`` is somebody's download."""
    write(folder, {"data.csv.gz": b"download"})

    compress_folder(folder)

    assert (folder / "data.csv.gz").read_bytes() == b"download"


def test_refuses_what_it_cannot_compress(folder: Path) -> None:
    """An unknown coding, or no folder."""
    with pytest.raises(ConfigError, match="encodings"):
        compress_folder(folder, encodings=["lzma"])
    with pytest.raises(ConfigError, match="folder"):
        compress_folder(folder / "none")


def test_siblings_are_served(folder: Path) -> None:
    """What the tool makes is what the layer finds."""
    compress_folder(folder)

    response = call(StaticApp(root=folder), environ("GET", "/app.css", accept_encoding="gzip"))

    assert response.header("Content-Encoding") == "gzip"
    assert gzip.decompress(response.body) == (folder / "app.css").read_bytes()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small site."""
    return write(
        tmp_path / "source",
        {
            "css/app.css": '@import "base.css";\n@import url(base.css?v=1#x);\n/* url(gone.png) */\n'
            "a { background: url( '../img/a b.png' ) }\nb { background: url(data:x) }\n"
            'c { content: "url(../img/a b.png)" }\nd { background: url(/static/img/a%20b.png) }\n'
            "/*# sourceMappingURL=app.css.map */\n",
            "css/app.css.map": "{}",
            "css/base.css": "b { src: url(https://other.example/f.woff) }",
            "img/a b.png": b"png",
            "js/main.js": "run()\n//# sourceMappingURL=main.js.map\n",
            "js/main.js.map": "{}",
            "LICENSE": "free",
            ".env": "SECRET",
        },
    )


def test_writes_hashed_copies_and_a_manifest(source: Path, tmp_path: Path) -> None:
    """Every file under both names; the manifest says which is which."""
    built = build_static(source, tmp_path / "out")

    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["files"] == built.files
    assert set(built.files) == {
        "css/app.css",
        "css/app.css.map",
        "css/base.css",
        "img/a b.png",
        "js/main.js",
        "js/main.js.map",
        "LICENSE",
    }
    for name, hashed in built.files.items():
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "out" / hashed).read_bytes()


def test_rewrites_what_style_sheets_and_scripts_refer_to(source: Path, tmp_path: Path) -> None:
    """Imports, pictures and source maps; not comments, strings, data and other hosts."""
    built = build_static(source, tmp_path / "out", prefix="/static")

    css = (tmp_path / "out" / built.files["css/app.css"]).read_text()
    base = built.files["css/base.css"].removeprefix("css/")
    picture = built.files["img/a b.png"].replace(" ", "%20")
    assert css == (
        f'@import "{base}";\n@import url({base}?v=1#x);\n/* url(gone.png) */\n'
        f"a {{ background: url( '../{picture}' ) }}\nb {{ background: url(data:x) }}\n"
        f'c {{ content: "url(../img/a b.png)" }}\nd {{ background: url(/static/{picture}) }}\n'
        f"/*# sourceMappingURL={built.files['css/app.css.map'].removeprefix('css/')} */\n"
    )
    script = (tmp_path / "out" / built.files["js/main.js"]).read_text()
    assert script.endswith(f"sourceMappingURL={built.files['js/main.js.map'].removeprefix('js/')}\n")


def test_a_hash_covers_what_is_referred_to(source: Path, tmp_path: Path) -> None:
    """Another picture, another style sheet; nothing else changes."""
    before = build_static(source, tmp_path / "out").files
    again = build_static(source, tmp_path / "again").files
    write(source, {"img/a b.png": b"other"})

    after = build_static(source, tmp_path / "out").files

    assert before == again
    assert {name for name in before if before[name] != after[name]} == {"img/a b.png", "css/app.css"}


def test_files_in_a_cycle_share_their_changes(tmp_path: Path) -> None:
    """Two style sheets that import each other get new names together, and right references."""
    source = write(
        tmp_path / "s", {"a.css": '@import "b.css";', "b.css": '@import "a.css";', "c.css": '@import "c.css";'}
    )
    before = build_static(source, tmp_path / "out").files
    write(source, {"b.css": '@import "a.css"; b {}'})

    after = build_static(source, tmp_path / "out").files

    assert {name for name in before if before[name] != after[name]} == {"a.css", "b.css"}
    assert (tmp_path / "out" / after["a.css"]).read_text() == f'@import "{after["b.css"]}";'


def test_tells_of_references_that_lead_nowhere(tmp_path: Path) -> None:
    """As a list, or as an error."""
    source = write(tmp_path / "s", {"a.css": "a { src: url(none.png) } b { src: url(../../etc/passwd) }"})

    built = build_static(source, tmp_path / "out")

    assert built.missing == [("a.css", "none.png"), ("a.css", "../../etc/passwd")]
    with pytest.raises(ConfigError, match=r"a\.css: none\.png"):
        build_static(source, tmp_path / "out", strict=True)


def test_refuses_to_build_into_the_source(source: Path) -> None:
    """It would hash its own output."""
    with pytest.raises(ConfigError, match="destination"):
        build_static(source, source / "out")


def test_what_is_built_is_served_for_ever(source: Path, tmp_path: Path) -> None:
    """The names of the tool are those that the layer and the addresses know."""
    built = build_static(source, tmp_path / "out", keep_plain=False)
    app = StaticApp(root=tmp_path / "out", mode="immutable", immutable=True)
    urls = StaticUrls("/", built.manifest)

    response = call(app, environ("GET", urls("css/app.css")))

    assert response.header("Cache-Control") == "public, max-age=31536000, immutable"
    assert call(app, environ("GET", "/css/app.css")).code == 404


def test_shows_progress() -> None:
    """The bar takes what the functions report."""
    seen = []

    progress_bar("compressing", lambda report: seen.append(report(1, 2)))

    assert seen == [None]
