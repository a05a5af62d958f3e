"""Turn exceptions, and error answers without content, into a page or ``application/problem+json``.

An exception becomes a 500, logged with its traceback and the request's identifier to the logger ``lamella.errors``;
its class is left under ``lamella.exception`` for the access log. Browsers get a page, programs RFC 9457 problems.
What an app wrote itself is never replaced, unless told so. Once bytes are on the wire the exception goes on to the
server.

.. code-block:: toml

    [[layer]]
    use = "errors"

Place it inside ``access_log``, ``request_id``, ``context`` and ``cors``, outside all that may fail.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from lamella.middleware._error_pages import Page, Problem, render
from lamella.middleware._errors_exchange import LOG, NOTHING, Exchange, Guard, Layer, Render
from lamella.stack.kernel.environ import direct
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.faults import BrokenAppError, app_name, fault_of_body
from lamella.stack.kernel.keys import EXCEPTION
from lamella.stack.kernel.options import FilePath, choice, file_path
from lamella.stack.kernel.order import Inside, Outside

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["ErrorsMiddleware"]

_PAGE_NAMES: Final = frozenset({"4xx", "5xx", "default"} | {str(code) for code in range(400, 600)})


class ErrorsMiddleware:
    """Answer where the app inside could not.

    Args:
        app: The application inside.
        debug: Show the traceback, the environ and the layers to a browser on this machine; everybody else, and
            whatever comes through a proxy, gets the ordinary page. Not for production.
        render: Which answers of the app get a page: ``"exceptions"`` none, only exceptions do; ``"empty"`` those with
            a status of 400 and above and no content; ``"plain"`` also those in ``text/plain``, whose text becomes the
            detail.
        pages: Own HTML pages: a status such as ``"404"``, ``"4xx"``, ``"5xx"`` or ``"default"`` to a file in UTF-8;
            ``$status``, ``$reason``, ``$detail`` and ``$request_id`` in it are filled in.

    Raises:
        ConfigError: An unknown value of *render*, a page for no error status, or a file that cannot be read.
    """

    provides = (EXCEPTION,)
    requires = ()
    order = (
        Inside("access_log", "L102", "a page that is made here would not be logged"),
        Inside("request_id", "L117", "the page and the log have no identifier before it is known"),
        Inside("cors", "L103", "a script could not read the error: it has no CORS headers"),
        Outside("dispatch", "L102", "what fails behind the mounts would not be caught"),
        Outside("session", "L102", "what fails in the session would not be caught"),
        Outside("static", "L102", "what fails while a file is read would not be caught"),
    )
    streams = True

    def __init__(
        self,
        app: WSGIApplication,
        *,
        debug: bool = False,
        render: str = "empty",
        pages: Mapping[str, FilePath] = {},
    ) -> None:
        if not isinstance(debug, bool):
            raise ConfigError("debug", debug, "true or false")
        choice("render", render, ("exceptions", "empty", "plain"))
        inner = direct(app)
        layer = Layer(_renderer(debug, _own_pages(pages)), render != "exceptions", render == "plain", app)

        def wsgi_closure(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            exchange = Exchange()
            exchange.layer = layer
            exchange.environ = environ
            exchange.start_response = start_response
            exchange.held, exchange.started = NOTHING, False
            try:
                body = inner(environ, exchange.start)
                if type(body) is list or type(body) is tuple:
                    for block in body:
                        if type(block) is not bytes and (fault := fault_of_body(body, block)):
                            raise BrokenAppError(app_name(app, environ), fault)
                    if exchange.held is not None:
                        return exchange.settle(body)
                    if exchange.started:
                        return body  # nothing more can fail, nothing is to be replaced
                elif fault := fault_of_body(body):
                    raise BrokenAppError(app_name(app, environ), fault)
            except Exception as error:  # noqa: BLE001  that is what this layer is for
                return exchange.fail(error)
            wrapper = environ.get("wsgi.file_wrapper")
            if isinstance(wrapper, type) and isinstance(body, wrapper):
                exchange.release()
                return body
            return Guard(body, exchange)

        self.wsgi_closure = wsgi_closure

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self.wsgi_closure(environ, start_response)


def _renderer(debug: bool, pages: Mapping[str, str]) -> Render:
    """Return what makes the answers; the debug page is not even loaded where it is off."""

    def ordinary(environ: WSGIEnvironment, problem: Problem, error: BaseException | None) -> Page:
        return render(problem, environ.get("HTTP_ACCEPT", ""), pages)

    if not debug:
        return ordinary
    from lamella.middleware._debug_page import debug_page, is_local

    def talkative(environ: WSGIEnvironment, problem: Problem, error: BaseException | None) -> Page:
        if error is None or not is_local(environ):
            return ordinary(environ, problem, error)
        try:
            return debug_page(problem, error, environ, environ.get("HTTP_ACCEPT", ""))
        except Exception:  # noqa: BLE001  whatever it is, an answer has to go out
            LOG.exception("the debug page failed")
            return ordinary(environ, problem, error)

    return talkative


def _own_pages(pages: Mapping[str, FilePath]) -> dict[str, str]:
    """Return the texts of the site's own pages."""
    if not isinstance(pages, Mapping):
        raise ConfigError("pages", pages, "a table of statuses and files")
    found = {}
    for name, path in pages.items():
        if name not in _PAGE_NAMES:
            raise ConfigError("pages", name, 'a status such as "404", "4xx", "5xx" or "default"')
        try:
            found[name] = file_path(f"pages.{name}", path).read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise ConfigError(f"pages.{name}", str(path), f"a file in UTF-8 ({error})") from None
    return found
