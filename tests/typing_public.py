"""The public types, read by a type checker alone: ``mypy --strict``, in the checkout and outside of it."""

from __future__ import annotations

from typing import Any, assert_type
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from lamella.apps.router import Request, Router
from lamella.middleware.cors import CORSMiddleware
from lamella.middleware.request_id import RequestIdMiddleware
from lamella.middleware.session import SessionMiddleware
from lamella.stack import Layer, Stack, StackFileError, load
from lamella.stack.kernel.keys import IDENTITY, REQUEST_ID, SESSION, Identity, Session
from lamella.stack.kernel.options import Secret
from lamella.stack.problems import Problem
from lamella.stack.testing import RecordingApp, Response, call, conformance, environ, lint
from lamella.stack.testing.conformance import Report


def app(request: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """An app as PEP 3333 has them."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    assert_type(REQUEST_ID.require(request), str)
    assert_type(IDENTITY.get(request), Identity | None)
    session = SESSION.require(request)
    assert_type(session, Session)
    session["visits"] = 1
    return [b"hello"]


# Layers are WSGI applications around WSGI applications.
wrapped: WSGIApplication = RequestIdMiddleware(app, header="X-Id")
crossed: WSGIApplication = CORSMiddleware(wrapped, origins=["https://shop.example", {"suffix": ".shop.example"}])
remembered: WSGIApplication = SessionMiddleware(crossed, secret=[Secret(b"x" * 32), "y" * 32], idle="30m")

# Stacks are values.
stack = Stack(
    [Layer("request_id"), Layer(CORSMiddleware, origins=["https://shop.example"]), SessionMiddleware], app=app
)
assert_type(stack, Stack)
assert_type(stack.without("cors"), Stack)
assert_type(stack.replace("cors", credentials=True), Stack)
assert_type(stack.layers, tuple[Layer, ...])
served: WSGIApplication = load("stack.toml", profile="prod")


def problems(error: StackFileError) -> tuple[str, int, int, str]:
    """Where and what."""
    problem = error.problems[0]
    assert_type(problem, Problem)
    return problem.file, problem.line, problem.column, problem.message


# The router is a WSGI application, and its decorators keep the view's type.
router = Router()


@router.get("/notes/<int:id>")
def note(request: Request, id: int) -> dict[str, Any]:
    """A view."""
    return {"id": id}


assert_type(note(Request({}), 1), dict[str, Any])
routed: WSGIApplication = router

# The test kit.
response = call(lint(RequestIdMiddleware(RecordingApp())), environ("GET", "/", accept="text/html"))
assert_type(response, Response)
assert_type(response.header("X-Request-ID"), str | None)
assert_type(conformance(RequestIdMiddleware, header="X-Id"), Report)
