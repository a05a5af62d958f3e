"""Runs an entry of the gallery as its README says: ``lamella check``, then ``lamella run``, in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import pytest

#: ``lamella check`` and ``lamella run`` in one process, because frameworks are slow to import.
RUN = """
import sys
from lamella.stack.check import check
from lamella.stack.cli import main

sys.path.insert(0, ".")
exec(sys.argv[2])
problems = check("stack.toml").problems
if problems:
    sys.exit("\\n".join(map(str, problems)))
sys.argv = ["lamella", "run", "stack.toml", "--bind", "fd://" + sys.argv[1]]
main()
"""


class Answer:
    """What came back."""

    def __init__(self, message: Any) -> None:
        self.status: int = message.status
        self.headers = message.headers
        self.body: bytes = message.read()

    @property
    def text(self) -> str:
        """The content as text."""
        return self.body.decode()

    @property
    def json(self) -> Any:
        """The content as JSON."""
        return json.loads(self.body)

    @property
    def location(self) -> str:
        """Where a redirect leads."""
        found: str = self.headers["Location"]
        return found

    def __repr__(self) -> str:
        return f"<{self.status} {self.body[:300]!r}>"


class Site:
    """A running site, and a client that keeps cookies as a browser does.

    Args:
        url: Without a slash at its end.
        folder: The entry's, a copy of it.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.cookies = CookieJar()

    def __call__(self, method: str, path: str, *, follow: bool = False, **headers: Any) -> Answer:
        """Send a request without content."""
        return self.send(method, path, follow=follow, **headers)

    def get(self, path: str, *, follow: bool = False, **headers: Any) -> Answer:
        """Ask for a page; *follow* redirects."""
        return self.send("GET", path, follow=follow, **headers)

    def post(self, path: str, *, follow: bool = False, form: dict[str, str] | None = None, **headers: Any) -> Answer:
        """Send a form, as a page of the site would."""
        headers = {"Origin": self.url, **headers}
        return self.send("POST", path, urllib.parse.urlencode(form or {}).encode(), follow=follow, **headers)

    def post_json(self, path: str, value: Any, **headers: Any) -> Answer:
        """Send JSON."""
        return self.send("POST", path, json.dumps(value).encode(), **{"Content-Type": "application/json", **headers})

    def upload(self, path: str, field: str, name: str, content: bytes) -> Answer:
        """Send one file in a form."""
        head = f'--edge\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
        headers: dict[str, Any] = {"Content-Type": "multipart/form-data; boundary=edge", "Origin": self.url}
        return self.send("POST", path, head.encode() + content + b"\r\n--edge--\r\n", **headers)

    def send(
        self, method: str, path: str, body: bytes | None = None, *, follow: bool = False, **headers: Any
    ) -> Answer:
        """Send a request."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(path if "://" in path else self.url + path, body, named, method=method)
        handlers: list[Any] = [urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(self.cookies)]
        opener = urllib.request.build_opener(*handlers, *([] if follow else [_Stays()]))
        try:
            with opener.open(request, timeout=30) as message:
                return Answer(message)
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error)

    def cookie(self, name: str) -> tuple[str, str] | None:
        """Value and path of a cookie; of two with one name the longest path."""
        found = sorted((one for one in self.cookies if one.name == name), key=lambda one: len(one.path))
        return (found[-1].value or "", found[-1].path) if found else None


class _Stays(urllib.request.HTTPRedirectHandler):
    """Does not follow redirects."""

    def redirect_request(self, *args: Any) -> None:
        return None


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """The entry that the test stands in; ``PREPARE`` of the test runs before, as a shell would run it."""
    entry = Path(request.path).parent
    packages = next(folder for folder in sys.path if (Path(folder) / "lamella" / "middleware").is_dir())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / entry.name
        shutil.copytree(entry, folder, ignore=shutil.ignore_patterns("__pycache__", "test_*"))
        listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        log = open(folder / "log.txt", "wb+")  # noqa: SIM115
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(listening.fileno()), getattr(request.module, "PREPARE", "")],
            cwd=folder,
            pass_fds=[listening.fileno()],
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": packages, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        listening.close()
        try:
            yield Site(address, folder)
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(20)
            log.seek(0)
            said = log.read().decode(errors="replace")
            log.close()
            assert code == 0, said
            assert "Traceback" not in said, said
