"""Run the ``[[expect]]`` statements of a stack file, in process, against the real stack."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lamella.stack.problems import Problem

if TYPE_CHECKING:
    from lamella.stack.build import Stack
    from lamella.stack.statements import Expectation
    from lamella.stack.testing import Response

__all__ = ["describe", "expectation_environ", "run_expectation", "run_expectations"]


def run_expectations(stack: Stack) -> list[Problem]:
    """Return a problem for each expectation that is not met, where it stands in the file."""
    problems = []
    for expectation in stack.expects:
        failures = run_expectation(stack, expectation)
        if failures:
            message = f"{describe(expectation)}: {'; '.join(failures)}"
            at = (expectation.file, expectation.line, expectation.column)
            problems.append(Problem(*at, message, phase="expectations"))
    return problems


def describe(expectation: Expectation) -> str:
    """Return the name of an expectation, or its request."""
    return expectation.name or f"{expectation.method} {expectation.target}"


def run_expectation(stack: Any, expectation: Expectation) -> list[str]:
    """Send one request and return what is not as expected; empty where all is.

    Args:
        stack: The WSGI application.
        expectation: What to ask, and what must come.
    """
    from lamella.stack.testing import call

    response = call(stack, expectation_environ(expectation), keep_error=True)
    if response.error is not None:
        return [f"raised {type(response.error).__name__}: {response.error}"]
    return [
        *_wrong_status(expectation, response),
        *_wrong_headers(expectation, response),
        *_wrong_body(expectation, response),
    ]


def expectation_environ(expectation: Expectation) -> dict[str, Any]:
    """Return the environ of its request."""
    from lamella.stack.kernel.environ import header_key
    from lamella.stack.testing import environ

    target = expectation.target
    url = urlsplit(target) if target.startswith(("http://", "https://")) else None
    if url is not None:
        target = target[len(url.scheme) + 3 + len(url.netloc) :] or "/"
    if target == "*":
        request = environ(expectation.method, "/", body=expectation.body.encode())
        request["PATH_INFO"] = "*"
    else:
        request = environ(expectation.method, target.partition("#")[0], body=expectation.body.encode())
    if url is not None:
        request["HTTP_HOST"] = url.netloc
        request["SERVER_NAME"] = url.hostname or "localhost"
        request["wsgi.url_scheme"] = url.scheme
        request["SERVER_PORT"] = str(url.port or (443 if url.scheme == "https" else 80))
        if url.scheme == "https":
            request["HTTPS"] = "on"
    for name, value in expectation.headers.items():
        request[header_key(name)] = value
    return request


def _wrong_status(expectation: Expectation, response: Response) -> list[str]:
    code = str(response.code)
    if not expectation.status:
        return [] if response.code < 500 else [f"status {response.status}, expected one below 500"]
    if any(code == wanted or (wanted.endswith("xx") and code[0] == wanted[0]) for wanted in expectation.status):
        return []
    return [f"status {response.status}, expected {' or '.join(expectation.status)}"]


def _wrong_headers(expectation: Expectation, response: Response) -> list[str]:
    wrong = [f"no {name}" for name in expectation.present if response.header(name) is None]
    for name in expectation.absent:
        value = response.header(name)
        if value is not None:
            wrong.append(f"{name} is {_shown(name, value)}, expected none")
    for name, wanted in expectation.header.items():
        values = response.header_list(name)
        if wanted not in values and response.header(name) != wanted:
            got = _shown(name, ", ".join(values)) if values else "absent"
            wrong.append(f"{name} is {got}, expected {wanted!r}")
    return wrong


def _shown(name: str, value: str) -> str:
    """A header value, unless it is a secret."""
    return "***" if name.lower() in ("set-cookie", "authorization", "cookie") else repr(value)


def _wrong_body(expectation: Expectation, response: Response) -> list[str]:
    text = response.body.decode("utf-8", "replace")
    wrong = [f"the body does not contain {piece!r}" for piece in expectation.contains if piece not in text]
    if expectation.json is not ...:
        try:
            found = json.loads(text)
        except ValueError:
            return [*wrong, "the body is no JSON"]
        if found != expectation.json:
            shown = json.dumps(found, ensure_ascii=False)
            wrong.append(f"the body is {shown[:200]}, expected {json.dumps(expectation.json, default=str)[:200]}")
    return wrong
