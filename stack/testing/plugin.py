"""The pytest plugin: the fixtures ``layer`` and ``stack``, and stack files as tests.

Installed with lamella; nothing is imported before a test asks for it.

``layer`` builds one layer around a recording app, with the linter on both sides, and returns a
WebTest client together with what the app saw. ``stack`` loads a stack file with layers replaced.
A stack file that is named on the command line (``pytest stack.toml``), or matches the ini option
``lamella_stacks``, is collected: one test for ``lamella check``, one for each ``[[expect]]``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from lamella.stack.build import Stack
    from lamella.stack.statements import Expectation
    from lamella.stack.testing import RecordingApp, Response

__all__ = ["LayerUnderTest", "StackUnderTest"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the ini option."""
    parser.addini("lamella_stacks", "stack files to collect, as globs relative to the root", type="args", default=[])


# --- fixtures -----------------------------------------------------------------------------------


class LayerUnderTest:
    """One layer around a recording app, linted on both sides; a WebTest client in front of it.

    Attributes:
        app: The recording app inside: ``environ``, ``called``, ``input``, ``closed``.
        wsgi: The linted layer, for :func:`lamella.stack.testing.call` and the clients.
        client: ``webtest.TestApp`` around it; ``get``, ``post`` and the like are also here.
    """

    def __init__(self, factory: Callable[..., Any], app: RecordingApp, options: Mapping[str, Any]) -> None:
        from lamella.stack.testing import lint

        self.app = app
        self.wsgi = lint(factory(lint(app), **options))
        self.client = _client(self.wsgi)

    @property
    def environ(self) -> dict[str, Any]:
        """What the app inside saw in the last request."""
        return self.app.environ

    def call(self, request: dict[str, Any], **options: Any) -> Response:
        """Serve a request made by :func:`lamella.stack.testing.environ`."""
        from lamella.stack.testing import call

        return call(self.wsgi, request, **options)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.client, name)


class StackUnderTest:
    """A whole stack; a WebTest client in front of it.

    Attributes:
        stack: The :class:`lamella.stack.Stack`, changed as the test asked.
        client: ``webtest.TestApp`` around it; ``get``, ``post`` and the like are also here.
    """

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.client = _client(stack)

    def call(self, request: dict[str, Any], **options: Any) -> Response:
        """Serve a request made by :func:`lamella.stack.testing.environ`."""
        from lamella.stack.testing import call

        return call(self.stack, request, **options)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.client, name)


def _client(app: Any) -> Any:
    """A WebTest client; our linter is there already, and says more than WebTest's."""
    from lamella.stack.kernel.errors import LamellaError

    try:
        webtest: Any = import_module("webtest")
    except ModuleNotFoundError:
        raise LamellaError("the fixtures of lamella need WebTest: pip install webtest") from None
    return webtest.TestApp(app, lint=False)


@pytest.fixture
def layer() -> Callable[..., LayerUnderTest]:
    """Builds a layer: ``layer(XMiddleware, option=…)``, around ``app=RecordingApp(…)`` if one is given."""

    def build(factory: Callable[..., Any], /, *, app: RecordingApp | None = None, **options: Any) -> LayerUnderTest:
        from lamella.stack.testing import RecordingApp

        return LayerUnderTest(factory, RecordingApp() if app is None else app, options)

    return build


@pytest.fixture
def stack(request: pytest.FixtureRequest) -> Callable[..., StackUnderTest]:
    """Loads a stack file, relative to the test's own, changed for the test.

    ``stack("stack.toml", profile="dev", without=["oidc"], replace={"session": {"secure": False}},
    only=["cors"], app=RecordingApp())``.
    """

    def build(
        path: str | Path = "stack.toml",
        /,
        *,
        profile: str | None = None,
        without: Iterable[str] = (),
        replace: Mapping[str, Mapping[str, Any]] | None = None,
        only: Iterable[str] | None = None,
        app: Any = None,
    ) -> StackUnderTest:
        from lamella.stack import load

        made = load(request.path.parent / path, profile)
        for name, options in (replace or {}).items():
            made = made.replace(name, **options)
        made = made.without(*without)
        if only is not None:
            made = made.only(*only)
        if app is not None:
            made = made.with_app(app)
        return StackUnderTest(made)

    return build


# --- stack files --------------------------------------------------------------------------------


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect a stack file that was named, or that the ini option matches."""
    if file_path.suffix != ".toml":
        return None
    named = parent.session.isinitpath(file_path)
    globs = parent.config.getini("lamella_stacks")
    root = parent.config.rootpath
    if not named and not any(file_path in root.glob(glob) for glob in globs):
        return None
    collector: pytest.Collector = StackFile.from_parent(parent, path=file_path)
    return collector


class StackFile(pytest.File):
    """A stack file: its check, and its expectations."""

    def collect(self) -> Iterator[pytest.Item]:
        """Read the file; where it is wrong, ``check`` fails and says everything."""
        import sys

        from lamella.stack.check import check

        folder = str(self.path.parent)
        if folder not in sys.path:
            sys.path.insert(0, folder)  # as the command line does, for `use = "app:application"`
        report = check(self.path, expectations=False)
        yield CheckItem.from_parent(self, name="check", problems=[str(one) for one in report.errors])
        if report.stack is None:
            return
        from lamella.stack.expect import describe

        names: dict[str, int] = {}
        for expectation in report.stack.expects:
            name = describe(expectation)
            names[name] = names.get(name, 0) + 1
            shown = name if names[name] == 1 else f"{name} ({names[name]})"
            yield ExpectItem.from_parent(self, name=shown, stack=report.stack, expectation=expectation)


class CheckItem(pytest.Item):
    """What ``lamella check`` says of the file."""

    def __init__(self, *, problems: list[str], **more: Any) -> None:
        super().__init__(**more)
        self._problems = problems

    def runtest(self) -> None:
        """Fail with every problem."""
        if self._problems:
            raise _WrongError("\n".join(self._problems))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show the problems, without a traceback."""
        return str(excinfo.value) if isinstance(excinfo.value, _WrongError) else super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Where it is, and how it is called."""
        return self.path, 0, f"lamella check {self.path.name}"


class ExpectItem(pytest.Item):
    """One ``[[expect]]``."""

    def __init__(self, *, stack: Stack, expectation: Expectation, **more: Any) -> None:
        super().__init__(**more)
        self._stack = stack
        self._expectation = expectation

    def runtest(self) -> None:
        """Ask, and compare."""
        from lamella.stack.expect import run_expectation

        failures = run_expectation(self._stack, self._expectation)
        if failures:
            where = f"{self._expectation.file}:{self._expectation.line}:{self._expectation.column}"
            raise _WrongError("\n".join(f"{where}: {failure}" for failure in failures))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show what was not met, without a traceback."""
        return str(excinfo.value) if isinstance(excinfo.value, _WrongError) else super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Where it is, and how it is called."""
        return self.path, max(self._expectation.line - 1, 0), self.name


class _WrongError(Exception):
    """What a stack file's test failed with."""
