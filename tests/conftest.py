"""Fixtures that every test may use."""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

CORPORA = Path(
    os.environ.get("LAMELLA_CORPORA") or Path(__file__).resolve().parents[2] / "shared" / "facts" / "corpora"
)

# How long an example takes says something of the machine; a merge waits for known examples, a developer gets new ones.
settings.register_profile(
    "lamella",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("lamella")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Give tests of time three tries: another program slows one of them down, what is slow is so in all.

    Their bounds are three times what is promised for the machine of the figures: what is not linear misses them by far.
    Memory is not collected meanwhile: what hundreds of other tests have left would be on this one's bill.
    """
    if pyfuncitem.get_closest_marker("timing") is None:
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    gc.collect()
    gc.disable()
    try:
        for left in (2, 1, 0):
            try:
                pyfuncitem.obj(**arguments)
                break
            except AssertionError:
                if not left:
                    raise
    finally:
        gc.enable()
    return True


@pytest.fixture(scope="session")
def corpus() -> Any:
    """Reads one file of hostile inputs, where the folder of them stands beside the project."""

    def read(name: str) -> Any:
        path = CORPORA / f"{name}.json"
        if not path.exists():
            pytest.skip(f"the corpus {name} is not beside the project")
        return json.loads(path.read_text(encoding="utf-8"))

    return read


def _services() -> Any:
    """The module beside this one that starts real servers."""
    spec = importlib.util.spec_from_file_location("lamella_test_services", Path(__file__).parent / "services.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def services() -> Any:
    """Functions that start real servers: see ``tests/services.py``."""
    return _services()


@pytest.fixture(scope="session")
def redis_url(services: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis of this test run."""
    with services.redis(tmp_path_factory.mktemp("redis")) as (port, _):
        yield f"redis://127.0.0.1:{port}/0"


@pytest.fixture(scope="session")
def memcached_url(services: Any) -> Iterator[str]:
    """A memcached of this test run."""
    with services.memcached() as port:
        yield f"memcached://127.0.0.1:{port}"


@pytest.fixture(scope="session")
def postgres_url(services: Any) -> Iterator[str]:
    """A PostgreSQL of this test run."""
    with services.postgresql() as port:
        yield f"postgresql://lamella@127.0.0.1:{port}/postgres"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real Chromium, headless (Playwright, of which a process has one at a time); each test opens its own context."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        if os.environ.get("CI"):
            pytest.fail("chromium is not installed")
        pytest.skip("chromium is not installed")
    from playwright.sync_api import sync_playwright

    quiet = ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--disable-quic", *quiet]
        )
        yield started
        started.close()
