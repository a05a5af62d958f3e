"""Calling a view with its hooks and error handlers around it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from lamella.stack.kernel.errors import BadRequestError
from lamella.stack.kernel.response import hook_close

from .hooks import Ending, Scope, call_after, call_before, call_teardown, find_handler, http_error
from .http_exceptions import is_http_exception
from .responses import respond

if TYPE_CHECKING:
    from wsgiref.types import StartResponse

    from .requests import Request
    from .views import View

__all__ = ["handle", "run"]


def run(
    scopes: tuple[Scope, ...],
    name: str,
    call: View,
    parameters: Mapping[str, Any],
    request: Request,
    start_response: StartResponse,
) -> Iterable[bytes]:
    """Call hooks and view, and send the answer."""
    environ = request.environ
    try:
        try:
            result = call_before(scopes, request)
            if result is None:
                result = call(request, **parameters)
        except Exception as error:  # noqa: BLE001 - handlers decide; what none takes is raised again
            result = handle(scopes, request, error)
        hooks = [hook for scope in reversed(scopes) for hook in reversed(scope.after)]
        if hooks:
            result, start_response = call_after(hooks, request, result, start_response, name)
        body = respond(result, environ, start_response, name, environ["REQUEST_METHOD"])
    except BaseException as error:
        call_teardown(scopes, request, error)
        raise
    if not any(scope.teardown for scope in scopes):
        return body
    wrapper = environ.get("wsgi.file_wrapper")
    is_file = isinstance(wrapper, type) and isinstance(body, wrapper)
    # The server's own file wrapper stays what it is, for sendfile, and calls the hooks when it is closed.
    if is_file and hook_close(body, lambda finished: call_teardown(scopes, request, None)):
        return body
    return Ending(body, scopes, request)


def handle(scopes: tuple[Scope, ...], request: Request, error: Exception) -> Any:
    """Return what the handler of *error* returns; raise it again where there is none. In an except block."""
    answer = http_error(error)
    for scope in reversed(scopes):
        handler = find_handler(scope, error, answer)
        if handler is not None:
            try:
                return handler(request, error if not isinstance(error, BadRequestError) else answer)
            except Exception as raised:
                if not is_http_exception(raised):
                    raise
                return raised
    if answer is not None:
        return answer
    for scope in reversed(scopes):
        handler = scope.statuses.get(500)
        if handler is not None:
            import logging

            path = request.environ.get("PATH_INFO")
            logging.getLogger("lamella.apps.router").error("exception on %s %r", request.method, path, exc_info=error)
            return handler(request, error)
    raise error
