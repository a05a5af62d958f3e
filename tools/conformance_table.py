# ruff: noqa: N806 - what is loaded by name are classes
"""Write the tables of ``docs/conformance.md``: our layers, and middlewares of others.

Without arguments the page is written; with ``--check`` the program fails where it is out of date.
The others are tried in ``.venv-bench`` (see ``tools/conformance_peers.txt``); ``--ours`` leaves
their table as it is. ``--peers`` prints their results as JSON and is what runs in ``.venv-bench``.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import io
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "conformance.md"
PEERS = ROOT / ".venv-bench" / "bin" / "python"

Row = tuple[str, str, int, list[str], list[str], list[str]]


def row(name: str, version: str, report: Any) -> Row:
    """One line of a table: name, version, rules kept, MUSTs broken, SHOULDs broken, exempt by design."""
    must = [result.code for result in report.failures if result.rule.level == "must"]
    should = [result.code for result in report.failures if result.rule.level == "should"]
    exempt = [result.code for result in report.results if result.outcome == "exempt"]
    if not report.reached:
        raise SystemExit(f"{name}: the app inside was never reached")
    skipped = [result.code for result in report.results if result.outcome == "skipped" and result.code != "G1"]
    return name, version, report.passed, must, should, [*exempt, *skipped]


# --- ours ---------------------------------------------------------------------------------------


def ours() -> list[Row]:
    """Try every layer of ours, built as the contract tests build it."""
    from lamella.stack.testing import Probe, conformance

    path = ROOT / "tests" / "middleware" / "test_contract.py"
    spec = importlib.util.spec_from_file_location("contract", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} cannot be loaded")
    contract = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(contract)
    os.chdir(ROOT / "tests" / "data")
    rows = []
    for name in contract.MODULES:
        subject = contract.Subject(name)
        probe = Probe(subject.path, subject.headers, getattr(subject.factory, "exempt", {}))
        rows.append(row(name, "", quietly(functools.partial(conformance, subject.build, probe=probe))))
    return rows


def quietly(work: Callable[[], Any]) -> Any:
    """Run *work* without what it writes to standard output."""
    keep, sys.stdout = sys.stdout, io.StringIO()
    logging.disable(logging.CRITICAL)
    try:
        return work()
    finally:
        sys.stdout = keep
        logging.disable(logging.NOTSET)


# --- others -------------------------------------------------------------------------------------


def peers() -> list[Row]:
    """Try the middlewares of others; runs in their own environment."""
    from lamella.stack.testing import Probe, conformance

    rows = []
    # For the one that asks for credentials and the one that compresses; the others do not look.
    probe = Probe(headers={"authorization": "Basic YTpi", "accept_encoding": "gzip"})
    for name, distribution, factory in factories():
        report = quietly(functools.partial(conformance, factory, probe=probe))
        rows.append(row(name, importlib.metadata.version(distribution), report))
    return rows


def load(module: str) -> Any:
    """Import a module that only ``.venv-bench`` has."""
    return importlib.import_module(module)


def factories() -> list[tuple[str, str, Callable[[Any], Any]]]:
    """What is tried: its name, the distribution, and how it is made around an app."""
    sentry_sdk = load("sentry_sdk")
    wsgicors = load("wsgicors")
    SessionMiddleware = load("beaker.middleware").SessionMiddleware
    OpenTelemetryMiddleware = load("opentelemetry.instrumentation.wsgi").OpenTelemetryMiddleware
    cascade = load("paste.cascade")
    cgitb_catcher = load("paste.cgitb_catcher")
    errordocument = load("paste.errordocument")
    gzipper = load("paste.gzipper")
    recursive = load("paste.recursive")
    session = load("paste.session")
    translogger = load("paste.translogger")
    urlmap = load("paste.urlmap")
    AuthBasicHandler = load("paste.auth.basic").AuthBasicHandler
    ErrorMiddleware = load("paste.exceptions.errormiddleware").ErrorMiddleware
    PluggableAuthenticationMiddleware = load("repoze.who.middleware").PluggableAuthenticationMiddleware
    SentryWsgiMiddleware = load("sentry_sdk.integrations.wsgi").SentryWsgiMiddleware
    wsgify = load("webob.dec").wsgify
    DebuggedApplication = load("werkzeug.debug").DebuggedApplication
    DispatcherMiddleware = load("werkzeug.middleware.dispatcher").DispatcherMiddleware
    LintMiddleware = load("werkzeug.middleware.lint").LintMiddleware
    ProfilerMiddleware = load("werkzeug.middleware.profiler").ProfilerMiddleware
    ProxyFix = load("werkzeug.middleware.proxy_fix").ProxyFix
    SharedDataMiddleware = load("werkzeug.middleware.shared_data").SharedDataMiddleware
    WhiteNoise = load("whitenoise").WhiteNoise

    sentry_sdk.init(dsn=None)
    empty = tempfile.mkdtemp()

    def map_of_one(app: Any) -> Any:
        made = urlmap.URLMap()
        made["/"] = app
        return made

    def classify(environ: Any) -> str:
        return "browser"

    @wsgify.middleware  # type: ignore[untyped-decorator]
    def passes(request: Any, app: Any) -> Any:
        return request.get_response(app)

    def returns_the_app(app: Any) -> Any:
        @wsgify  # type: ignore[untyped-decorator]
        def view(request: Any) -> Any:
            return app

        return view

    silent = logging.getLogger("conformance")
    silent.addHandler(logging.NullHandler())
    silent.propagate = False
    secret = "0123456789abcdefghijklmnopqrstuvwxyz"
    return [
        ("werkzeug DispatcherMiddleware", "werkzeug", lambda app: DispatcherMiddleware(app, {"/other": app})),
        ("werkzeug SharedDataMiddleware", "werkzeug", lambda app: SharedDataMiddleware(app, {"/static": empty})),
        ("werkzeug ProxyFix", "werkzeug", ProxyFix),
        ("werkzeug ProfilerMiddleware", "werkzeug", lambda app: ProfilerMiddleware(app, stream=io.StringIO())),
        ("werkzeug DebuggedApplication", "werkzeug", lambda app: DebuggedApplication(app, pin_security=False)),
        ("werkzeug LintMiddleware", "werkzeug", LintMiddleware),
        ("beaker SessionMiddleware", "beaker", lambda app: SessionMiddleware(app, {"session.type": "memory"})),
        ("beaker SessionMiddleware, cookie", "beaker", lambda app: SessionMiddleware(
            app, {"session.type": "cookie", "session.validate_key": secret, "session.data_serializer": "json"})),
        ("whitenoise WhiteNoise", "whitenoise", lambda app: WhiteNoise(app, root=empty)),
        ("paste TransLogger", "paste", lambda app: translogger.TransLogger(
            app, logger=silent, setup_console_handler=False)),
        ("paste URLMap", "paste", map_of_one),
        ("paste gzipper", "paste", gzipper.middleware),
        ("paste errordocument", "paste", lambda app: errordocument.forward(app, {404: "/missing"})),
        ("paste RecursiveMiddleware", "paste", recursive.RecursiveMiddleware),
        ("paste Cascade", "paste", lambda app: cascade.Cascade([app])),
        ("paste auth.basic", "paste", lambda app: AuthBasicHandler(app, "realm", lambda environ, user, word: True)),
        ("paste SessionMiddleware", "paste", lambda app: session.SessionMiddleware(app, session_file_path=empty)),
        ("paste CgitbMiddleware", "paste", lambda app: cgitb_catcher.CgitbMiddleware(
            app, display=False, logdir=empty)),
        ("paste ErrorMiddleware", "paste", lambda app: ErrorMiddleware(
            app, debug=False, error_log=os.path.join(empty, "log"))),
        ("webob wsgify, returns the app", "webob", returns_the_app),
        ("webob wsgify.middleware", "webob", passes),
        ("repoze.who", "repoze.who", lambda app: PluggableAuthenticationMiddleware(
            app, [], [], [], [], classify, lambda environ, status, headers: False)),
        ("opentelemetry.wsgi", "opentelemetry-instrumentation-wsgi", OpenTelemetryMiddleware),
        ("sentry SentryWsgiMiddleware", "sentry-sdk", SentryWsgiMiddleware),
        ("wsgicors CORS", "wsgicors", lambda app: wsgicors.CORS(
            app, headers="*", methods="*", maxage="180", origin="*")),
    ]  # fmt: skip


# --- the page -----------------------------------------------------------------------------------


def total() -> int:
    """How many rules there are."""
    from lamella.stack.testing.conformance import RULES

    return len(RULES)


def rules_table() -> str:
    """Render the rules."""
    from lamella.stack.testing.conformance import RULES

    lines = ["| rule | what must hold | from | level |", "| --- | --- | --- | --- |"]
    lines += [f"| {one.code} | {one.says} | {one.source} | {one.level} |" for one in RULES.values()]
    return "\n".join(lines)


def table(rows: list[Row]) -> str:
    """Render results."""
    versions = any(one[1] for one in rows)
    lines = [
        f"| middleware {'| version ' if versions else ''}| kept of {total()} "
        "| MUST broken | SHOULD broken | not tried |",
        f"| --- |{' --- |' if versions else ''} --- | --- | --- | --- |",
    ]
    for name, version, passed, must, should, skipped in rows:
        codes = [" ".join(some) or "–" for some in (must, should, skipped)]
        cells = [name, *([version] if versions else []), str(passed), *codes]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def put(text: str, name: str, content: str) -> str:
    """Replace what stands between the marker lines of *name*."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not (found and ended):
        raise SystemExit(f"docs/conformance.md has no {begin} … {end}")
    return f"{before}{begin}\n{content}\n{end}{after}"


def main() -> int:
    """Write or check the page; the exit code is 1 where it is out of date."""
    if "--peers" in sys.argv[1:]:
        json.dump(peers(), sys.stdout)
        return 0
    page = PAGE.read_text(encoding="utf-8")
    text = put(page, "rules", rules_table())
    text = put(text, "ours", table(ours()))
    if "--ours" not in sys.argv[1:]:
        if not PEERS.exists():
            raise SystemExit("no .venv-bench: see tools/conformance_peers.txt, or use --ours")
        run = subprocess.run(
            [PEERS, Path(__file__).resolve(), "--peers"],
            env={**os.environ, "PYTHONPATH": str(ROOT / "tools" / "dev")},
            stdout=subprocess.PIPE, check=True, text=True,
        )  # fmt: skip
        rows = [tuple(one) for one in json.loads(run.stdout)]
        text = put(text, "others", table(rows))
        clean = sum(1 for one in rows if not one[3])
        text = re.sub(r"\*\*\d+ of \d+\*\*", f"**{len(rows) - clean} of {len(rows)}**", text)
    if "--check" in sys.argv[1:]:
        if text != page:
            print("docs/conformance.md is out of date: python tools/conformance_table.py", file=sys.stderr)
        return int(text != page)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
