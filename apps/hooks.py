"""The hooks and error handlers of routers: which are called, and in which order.

Before a view from the outermost router to the innermost, after it and at the end the other way round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

from lamella.stack.kernel.errors import BadRequestError
from lamella.stack.kernel.response import Headers, close, edit_headers

from .fields import ResponseError
from .http_exceptions import http_exceptions, is_http_exception
from .responses import Response, to_response

if TYPE_CHECKING:
    from wsgiref.types import StartResponse

    from .requests import Request

__all__ = ["Ending", "Scope", "call_after", "call_before", "call_teardown", "find_handler", "http_error"]

View: TypeAlias = Callable[..., Any]


class Scope:
    """The hooks and error handlers of one router; ``is_empty`` until there is one."""

    __slots__ = ("after", "before", "exceptions", "is_empty", "statuses", "teardown")

    def __init__(self) -> None:
        self.before: list[View] = []
        self.after: list[View] = []
        self.teardown: list[View] = []
        self.exceptions: dict[type[BaseException], View] = {}
        self.statuses: dict[int, View] = {}
        self.is_empty = True


def call_before(scopes: tuple[Scope, ...], request: Request) -> Any:
    """Call the hooks, the outermost router's first; the first that answers ends it."""
    for scope in scopes:
        for hook in scope.before:
            result = hook(request)
            if result is not None:
                return result
    return None


def call_after(
    hooks: list[View], request: Request, result: Any, start_response: StartResponse, name: str
) -> tuple[Any, StartResponse]:
    """Pass the answer through the hooks; where it is another application's, pass its headers when they come."""
    response = to_response(result, request.environ, name)
    if response is not None:
        for hook in hooks:
            changed = hook(request, response)
            if changed is not None and changed is not response:
                response = to_response(changed, request.environ, name)
                if response is None:
                    raise ResponseError(f"a hook after {name} returned a WSGI application")
        return response, start_response

    def start(status: str, headers: Headers, exc_info: Any = None, /) -> Callable[[bytes], object]:
        body: list[bytes] = []
        response = Response(status=status, headerlist=list(headers), app_iter=body)
        for hook in hooks:
            changed = hook(request, response)
            if (changed is not None and changed is not response) or response._app_iter is not body:
                raise ResponseError(f"a hook after {name} replaced the body of a WSGI application")
        edited = edit_headers(start_response, lambda _: list(response.headerlist))
        if exc_info is None:
            return edited(response.status, headers)
        return edited(response.status, headers, exc_info)

    return result, start


def call_teardown(scopes: tuple[Scope, ...], request: Request, error: BaseException | None) -> None:
    """Call every teardown hook, the innermost router's first, whatever they raise; raise the first of that."""
    failed: BaseException | None = None
    for scope in reversed(scopes):
        for hook in reversed(scope.teardown):
            try:
                hook(request, error)
            except BaseException as raised:  # noqa: BLE001 - the others must run
                failed = failed or raised
    if failed is not None:
        raise failed


class Ending:
    """A body after which the teardown hooks are called, once."""

    __slots__ = ("_body", "_error", "_iterator", "_request", "_scopes")

    def __init__(self, body: Iterable[bytes], scopes: tuple[Scope, ...], request: Request) -> None:
        self._body = body
        self._iterator: Iterator[bytes] | None = None
        self._scopes: tuple[Scope, ...] = scopes
        self._request = request
        self._error: BaseException | None = None

    def __iter__(self) -> Ending:
        return self

    def __next__(self) -> bytes:
        try:
            if self._iterator is None:
                self._iterator = iter(self._body)
            return next(self._iterator)
        except StopIteration:
            raise
        except BaseException as error:
            self._error = error
            raise

    def close(self) -> None:
        """Close the body, then call the hooks; a second call does nothing."""
        scopes, self._scopes = self._scopes, ()
        if not scopes:
            return
        try:
            close(self._body)
        except BaseException as error:
            self._error = self._error or error
            raise
        finally:
            call_teardown(scopes, self._request, self._error)


def http_error(error: BaseException) -> Any | None:
    """Return the answer that *error* is by itself, or None."""
    if is_http_exception(error):
        return error
    if isinstance(error, BadRequestError):
        exc = http_exceptions()
        kind = exc.status_map.get(int(error.status[:3]), exc.HTTPBadRequest)
        answer = kind(error.reason)
        answer.__cause__ = error
        return answer
    return None


def find_handler(scope: Scope, error: BaseException, answer: Any | None) -> View | None:
    """Return the handler of *scope* for *error*: by status, else by the nearest class."""
    if answer is not None:
        handler = scope.statuses.get(answer.status_code)
        if handler is not None:
            return handler
    for kind in type(error).__mro__:
        if answer is not None and kind is Exception:
            return None
        handler = scope.exceptions.get(kind)
        if handler is not None:
            return handler
    return None
