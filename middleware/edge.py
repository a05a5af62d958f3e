"""Make servers look alike: refuse what no app should see, repair what no client should get.

Reads and may rewrite ``PATH_INFO``, ``SCRIPT_NAME``, ``HTTP_HOST``, ``HTTP_COOKIE`` (the first values stay
in ``lamella.edge.original``) and ``wsgi.input``; removes ``REMOTE_USER``, ``AUTH_TYPE`` and the process's variables.

.. code-block:: toml

    [[layer]]
    use = "edge"

Place it outermost.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lamella.stack.kernel.environ import direct
from lamella.stack.kernel.errors import BadRequestError
from lamella.stack.kernel.options import choice, flag
from lamella.stack.kernel.order import Outside
from lamella.stack.kernel.paths import PLAIN_PATHS

from ._edge_answer import NOT_YET, PlainAnswer, send
from ._edge_exchange import IncompleteBodyError
from ._edge_request import EMPTY, METHODS, Checks, refuse_request

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["EdgeMiddleware", "IncompleteBodyError"]


class EdgeMiddleware:
    """Make every server behave like a careful one.

    A request that is malformed gets its 4xx here. An answer that HTTP does not allow is repaired where that
    is possible (bodies of HEAD, 1xx, 204 and 304, hop-by-hop headers, a wrong ``Content-Length``), else
    replaced by a 500. What was wrong is in the log ``lamella.edge``: a request that is refused here never reaches
    ``access_log``.

    Args:
        app: The application inside.
        websocket: What a client that asks for a websocket gets: ``"426"`` (WSGI has no websockets), or
            ``"pass"``, an ordinary request.
        paths: What an ambiguous path gets: ``"refuse"`` (400), ``"redirect"`` (308 to the path without its empty
            and dot segments, for GET and HEAD), or ``"pass"`` (the app sees it as it came).
        bad_utf8: What a path that is not UTF-8 gets, where *paths* is ``"pass"``: ``"400"`` or ``"pass"``.
        trust_remote_user: Keep the server's ``REMOTE_USER`` and ``AUTH_TYPE``. Only where the server itself
            authenticates, as Apache does; some servers copy them from the process's variables.

    Raises:
        ConfigError: An option is none of its values.
    """

    provides = ()
    requires = ()
    order = tuple(
        Outside(layer, "L119", "what reaches this layer is not yet checked, and what leaves it is not yet repaired")
        for layer in ("access_log", "request_id", "proxy", "hosts", "https", "errors", "health", "metrics", "tracing")
    )
    streams = True

    def __init__(
        self,
        app: WSGIApplication,
        *,
        websocket: str = "426",
        paths: str = "refuse",
        bad_utf8: str = "400",
        trust_remote_user: bool = False,
    ) -> None:
        checks = Checks(
            websocket=choice("websocket", websocket, ("426", "pass")) == "426",
            paths=choice("paths", paths, ("refuse", "redirect", "pass")),
            bad_utf8=choice("bad_utf8", bad_utf8, ("400", "pass")) == "400",
            trust_remote_user=flag("trust_remote_user", trust_remote_user),
        )
        look, check_target, hosts, probe = checks.look, checks.check_target, checks.hosts, checks.probe
        inner = direct(app)

        def wsgi_closure(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            # Each request pays for each line of this. What is unusual is looked at elsewhere.
            try:
                method = environ["REQUEST_METHOD"]
                path = environ["PATH_INFO"]
                mount = environ["SCRIPT_NAME"]
                unusual = (
                    method not in METHODS
                    or environ["HTTP_HOST"] not in hosts
                    or probe in environ
                    or "REMOTE_USER" in environ
                    or "AUTH_TYPE" in environ
                    or "HTTP_UPGRADE" in environ
                    or "HTTP_TRANSFER_ENCODING" in environ
                    or ("CONTENT_LENGTH" in environ and environ["CONTENT_LENGTH"])
                    or ("HTTP_COOKIE" in environ and "," in environ["HTTP_COOKIE"])
                )
            except KeyError:
                unusual = True
            try:
                if unusual:
                    other = look(environ)
                    # Noted before the app runs: it may clear its environ.
                    method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")
                else:
                    other = None
                    if "wsgi.input_terminated" not in environ or not environ["wsgi.input_terminated"]:
                        environ["wsgi.input"] = EMPTY
                        environ["wsgi.input_terminated"] = True
                    if (
                        path not in PLAIN_PATHS
                        or not path
                        or (mount and (mount not in PLAIN_PATHS or mount[-1] == "/"))
                    ):
                        other = check_target(environ)
                if other is not None:
                    return other(environ, start_response)
            except BadRequestError as error:
                return refuse_request(environ, start_response, error)

            answer = PlainAnswer()
            answer.environ = environ
            answer.start_response = start_response
            answer.method = method
            answer.path = path
            answer.app = app
            answer.exchange, answer.status = None, NOT_YET
            try:
                body = inner(environ, answer.start)
            except Exception:  # noqa: BLE001
                return answer.look().crash()
            status = answer.status
            if (
                status
                and type(body) is list
                and len(body) == 1
                and type(body[0]) is bytes
                and (answer.length is None or answer.length == str(len(body[0])))
                and method != "HEAD"
            ):
                start_response(status, answer.headers)
                return body
            return send(answer.look(), body, environ)

        self.wsgi_closure = wsgi_closure

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self.wsgi_closure(environ, start_response)
