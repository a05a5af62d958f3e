"""Static files: hit, 304, range, and the start with many files."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import scene
from measure import Build, Group, Sample, Subject, memory

Make = Callable[[Path], Any]


def _lamella(mode: str) -> Make:
    def make(root: Path) -> Any:
        from cases.layers import bare
        from lamella.middleware.static import StaticMiddleware

        return StaticMiddleware(bare, root=root, prefix="/static", mode=mode)

    return make


def _whitenoise(autorefresh: bool) -> Make:
    def make(root: Path) -> Any:
        from whitenoise import WhiteNoise

        from cases.layers import bare

        return WhiteNoise(bare, root=str(root), prefix="/static/", autorefresh=autorefresh)

    return make


def _shared_data(root: Path) -> Any:
    from werkzeug.middleware.shared_data import SharedDataMiddleware

    from cases.layers import bare

    return SharedDataMiddleware(bare, {"/static": str(root)})


def _webob(root: Path) -> Any:
    from webob.static import DirectoryApp

    app = DirectoryApp(str(root))

    def mounted(environ: dict[str, Any], start_response: Any) -> Any:
        environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix("/static")
        return app(environ, start_response)

    return mounted


SERVERS: dict[str, Make] = {
    "lamella, live": _lamella("live"),
    "lamella, immutable": _lamella("immutable"),
    "WhiteNoise": _whitenoise(False),
    "WhiteNoise, autorefresh": _whitenoise(True),
    "Werkzeug SharedData": _shared_data,
    "WebOb DirectoryApp": _webob,
}


def _request(make: Make, what: str) -> Build:
    def build(folder: Path) -> Subject:
        scene.prepare(folder)
        app = make(folder / "static")
        hit = scene.environ("/static/style.css")
        answer = scene.ask(app, hit)
        scene.expect(answer.body == scene.STYLE and answer.get("Content-Type") is not None, answer)
        modified, tag = answer.get("Last-Modified"), answer.get("ETag")
        fresh = dict(hit)
        if modified:
            fresh["HTTP_IF_MODIFIED_SINCE"] = modified
        if tag:
            fresh["HTTP_IF_NONE_MATCH"] = tag
        part = hit | {"HTTP_RANGE": "bytes=0-99"}
        scene.expect(scene.ask(app, fresh).status[:3] == "304", "not 304")
        if what == "range":
            answer = scene.ask(app, part)
            scene.expect(answer.status[:3] == "206" and answer.body == scene.STYLE[:100], answer)
        return Subject(app, {"hit": hit, "304": fresh, "range": part}[what])

    return build


def _row(name: str, make: Make) -> dict[str, Build]:
    columns = ("hit", "304") if name == "Werkzeug SharedData" else ("hit", "304", "range")
    return {what: _request(make, what) for what in columns}


def _starting(make: Make, number: int) -> Build:
    def build(folder: Path) -> Callable[[], Sample]:
        root = folder / "many"
        for index in range(0 if root.exists() else number):
            place = root / f"d{index // 500}"
            if index % 500 == 0:
                place.mkdir(parents=True)
            (place / f"f{index}.css").write_bytes(b"x")
        empty = folder / "empty"
        empty.mkdir(exist_ok=True)
        make(empty)

        def once() -> Sample:
            before, begun = memory(), time.process_time()
            app = make(root)
            sample = Sample(time.process_time() - begun, memory() - before)
            scene.expect(scene.ask(app, scene.environ("/static/d0/f7.css")).body == b"x", "no file")
            return sample

        return once

    return build


GROUPS = [
    Group(
        "static", "Static files of 1 KB", {name: _row(name, make) for name, make in SERVERS.items()}, "lamella, live"
    ),
    Group(
        "files",
        "Static files: the start, by their number",
        {
            name: {f"{number:,} files": _starting(make, number) for number in (100, 10_000, 100_000)}
            for name, make in SERVERS.items()
            if name in ("lamella, live", "lamella, immutable", "WhiteNoise")
        },
        "lamella, immutable",
        unit="ms",
        once=True,
        note="In brackets the memory it takes, in MB.",
        slow=("100,000 files",),
    ),
]
