"""Try any middleware against PEP 3333 and RFC 9110, as real servers, apps and clients would.

>>> from lamella.stack.testing import conformance
>>> from lamella.middleware.request_id import RequestIdMiddleware
>>> report = conformance(RequestIdMiddleware, header="X-Request-ID")
>>> report.failures
[]

Every rule is one scenario: an app inside that follows a script, a server and a client around the
middleware, and what must come of it. Nothing is asked of the middleware but
``factory(app, **options)``, so that third-party ones can be tried as well. In a test::

    def test_conforms() -> None:
        assert_conforms(MyMiddleware, option="value")
"""

from __future__ import annotations

import inspect
import json
import textwrap
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ._rules import RULES, NotReachedError, Rule, Trial, ViolationError
from .lint import name_of

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

    from rich.table import Table

__all__ = ["RULES", "Probe", "Report", "Result", "Rule", "assert_conforms", "conformance"]


class Probe(NamedTuple):
    """The request that passes the middleware and reaches the app inside.

    Needed where a plain ``GET /`` does not: credentials, a host, a path that is mounted.
    """

    #: Request target.
    path: str = "/"
    #: Request headers and environ keys, as :func:`lamella.stack.testing.environ` takes them.
    headers: Mapping[str, Any] = {}
    #: Rules that do not hold by design, with the reason: ``{"E1": "answers with an error page"}``.
    exempt: Mapping[str, str] = {}


class Result(NamedTuple):
    """How one rule went."""

    #: The rule.
    rule: Rule
    #: ``passed``, ``failed``, ``exempt``, or ``skipped`` where the middleware answered itself.
    outcome: str
    #: What was seen, or why it was skipped.
    seen: str = ""

    @property
    def code(self) -> str:
        """The rule's code."""
        return self.rule.code

    @property
    def reproduction(self) -> str:
        """The scenario as Python: the shortest script that shows it."""
        source = textwrap.dedent(inspect.getsource(self.rule.check))
        return source[source.index("def ") :]

    def __str__(self) -> str:
        return f"{self.code} {self.rule.says}: {self.seen}" if self.seen else f"{self.code} {self.rule.says}"


class Report:
    """How a middleware did.

    Attributes:
        name: Name of the middleware.
        results: One :class:`Result` for each rule, in the order of the rules.
    """

    def __init__(self, name: str, results: Iterable[Result]) -> None:
        self.name = name
        self.results = list(results)

    @property
    def failures(self) -> list[Result]:
        """The rules it breaks."""
        return [result for result in self.results if result.outcome == "failed"]

    @property
    def passed(self) -> int:
        """How many rules it keeps."""
        return sum(result.outcome == "passed" for result in self.results)

    @property
    def reached(self) -> bool:
        """Whether any rule could be tried on the app inside."""
        return any(result.outcome in ("passed", "failed") and result.code == "C3" for result in self.results)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "middleware": self.name,
            "passed": self.passed,
            "failed": len(self.failures),
            "results": [
                {
                    "code": result.code,
                    "outcome": result.outcome,
                    "rule": result.rule.says,
                    "level": result.rule.level,
                    "source": result.rule.source,
                    "sentence": result.rule.sentence,
                    "seen": result.seen,
                    **({"reproduction": result.reproduction} if result.outcome == "failed" else {}),
                }
                for result in self.results
            ],
        }

    def to_json(self, *, indent: int | None = 2) -> str:
        """Return the report as JSON text."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False)

    def table(self) -> Table:
        """Return the report as a table for the terminal (rich)."""
        from rich.table import Table
        from rich.text import Text

        table = Table(title=f"{self.name}: {self}", title_justify="left", expand=False)
        for heading in ("rule", "", "what must hold", "seen"):
            table.add_column(heading, overflow="fold")
        styles = {"passed": "green", "failed": "red", "exempt": "yellow", "skipped": "dim"}
        for result in self.results:
            outcome = Text(result.outcome, style=styles[result.outcome])
            table.add_row(Text(result.code), outcome, Text(result.rule.says), Text(result.seen))
        return table

    def explain(self) -> str:
        """Return the failures as text: what was seen, the sentence that it breaks, and how to see it again."""
        parts = [f"{self.name}: {self}"]
        for result in self.failures:
            parts.append(
                f"{result}\n  {result.rule.source}: {result.rule.sentence}\n"
                + textwrap.indent(result.reproduction, "  | ")
            )
        return "\n\n".join(parts)

    def __str__(self) -> str:
        skipped = sum(result.outcome in ("skipped", "exempt") for result in self.results)
        text = f"{self.passed} of {len(self.results)} rules kept, {len(self.failures)} broken"
        if skipped:
            text += f", {skipped} not tried"
        if not self.reached:
            text += " (the app inside was never reached: say how with probe=Probe(path=…, headers=…))"
        return text

    def __repr__(self) -> str:
        return f"Report({self.name!r}, passed={self.passed}, failures={[result.code for result in self.failures]})"


def conformance(
    factory: Callable[..., WSGIApplication],
    /,
    *,
    probe: Probe | None = None,
    rules: Iterable[str] | None = None,
    **options: Any,
) -> Report:
    """Try every rule on ``factory(app, **options)``, each on a middleware built anew.

    Args:
        factory: Makes the middleware from an app.
        probe: The request that reaches the app inside, and what is exempt. By default ``GET /``, and
            what the factory's attribute ``exempt`` states. An option that is itself called ``probe`` or
            ``rules`` is given with :func:`functools.partial`.
        rules: Codes of the rules to try; all by default.
        **options: For the factory.

    Raises:
        KeyError: No rule has such a code.
        Exception: The factory refused its options.
    """
    if probe is None:
        probe = Probe()
    exempt = {**getattr(factory, "exempt", {}), **probe.exempt}

    def build(app: WSGIApplication) -> WSGIApplication:
        return factory(app, **options)

    build(_nothing)
    trial = Trial(build, probe.path, dict(probe.headers))
    chosen = [RULES[code] for code in (RULES if rules is None else rules)]
    results = []
    for rule in chosen:
        if rule.code in exempt:
            results.append(Result(rule, "exempt", exempt[rule.code]))
        elif rule.code == "G1" and any(result.outcome == "failed" for result in results):
            results.append(Result(rule, "skipped", "the rules above say it already"))
        else:
            results.append(_try(rule, trial))
    return Report(name_of(factory), results)


def assert_conforms(factory: Callable[..., WSGIApplication], /, *, probe: Probe | None = None, **options: Any) -> None:
    """Fail a test where the middleware breaks a rule, or where no rule could be tried.

    Args:
        factory: See :func:`conformance`.
        probe: See there.
        **options: For the factory.

    Raises:
        AssertionError: With every broken rule, its sentence and its reproduction.
    """
    report = conformance(factory, probe=probe, **options)
    if report.failures or not report.reached:
        raise AssertionError(report.explain())


def _nothing(environ: Any, start_response: Any) -> Iterable[bytes]:
    """The app inside while the options are tried."""
    start_response("204 No Content", [])
    return []


def _try(rule: Rule, trial: Trial) -> Result:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            rule.check(trial)
        except NotReachedError:
            return Result(rule, "skipped", "the middleware answered itself")
        except ViolationError as violation:
            return Result(rule, "failed", str(violation))
        except Exception as error:  # noqa: BLE001 - raised by the middleware in the hands of a scenario
            return Result(rule, "failed", f"raised {type(error).__name__}: {error}")
    return Result(rule, "passed")
