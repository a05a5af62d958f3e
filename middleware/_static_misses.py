"""What ``static`` answers besides files: listings, redirects, and pages instead of a 404."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote

from lamella.stack.kernel.http import accepts, is_field_value
from lamella.stack.kernel.paths import AmbiguousPathError, canonical_path
from lamella.stack.kernel.response import Headers, answer, get_header, refuse, substitute

from ._static_answer import Respond, answer_busy, answer_method, plain_answer
from ._static_files import FileEntry, Loader
from ._static_find import Finder, Redirect, Target

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["missing", "sender"]


def sender(
    base: str, finder: Finder, respond: Respond, miss: WSGIApplication
) -> Callable[[Target, WSGIEnvironment, StartResponse], Iterable[bytes]]:
    """Return the function that answers with any target."""

    def send(target: Target, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if isinstance(target, FileEntry):
            return respond(target, environ, start_response)
        readable = environ["REQUEST_METHOD"] in ("GET", "HEAD")
        if isinstance(target, Redirect):
            if readable:
                return _redirect(environ, start_response, base, target.relative)
            return miss(environ, start_response)
        if not readable:
            return answer_method(environ, start_response)
        from ._static_listing import answer_listing, items_of  # nothing for a root without listings, as most are

        try:
            canonical_path(environ)
            items = items_of(finder.roots, target.relative, finder.loader.symlinks, finder.visible)
        except AmbiguousPathError as error:
            return refuse(environ, start_response, error)
        except OSError:
            return answer_busy(environ, start_response)
        if items is None:
            return miss(environ, start_response)
        title = base.encode("latin-1").decode("utf-8", "replace") + target.relative
        return answer_listing(environ, start_response, title, items, has_parent=target.relative != "/")

    return send


def _redirect(environ: WSGIEnvironment, start_response: StartResponse, base: str, relative: str) -> Iterable[bytes]:
    """Answer 301 to another path of the same root, the query kept."""
    try:
        canonical_path(environ)  # also SCRIPT_NAME: "//" at its start would lead to another host
    except AmbiguousPathError as error:
        return refuse(environ, start_response, error)
    mount: str = environ.get("SCRIPT_NAME", "") + base
    location = quote(mount.encode("latin-1") + relative.encode("utf-8"))
    query: str = environ.get("QUERY_STRING", "")
    if query and is_field_value(query):
        location += "?" + quote(query.encode("latin-1"), safe="!$&'()*+,;=:@/?%-._~[]")
    headers = [("Location", location), ("X-Content-Type-Options", "nosniff")]
    return answer(environ, start_response, "301 Moved Permanently", b"moved\n", headers)


def missing(
    inner: WSGIApplication,
    finder: Finder,
    loader: Loader,
    pages: Mapping[str, str | None],
    kept: Mapping[str, FileEntry | None],
) -> WSGIApplication:
    """Return what answers a path that is no file: the app inside, and our pages for its 404s.

    Args:
        inner: The app inside.
        finder: Finds a page at each request.
        loader: Opens one that is not held in memory.
        pages: The options ``fallback`` and ``not_found``.
        kept: Those that were read once and for all.
    """
    fallback, not_found = pages["fallback"], pages["not_found"]
    if fallback is None and not_found is None:
        return inner

    def miss(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return inner(environ, start_response)
        request = environ.copy()

        def choose(status: str, headers: Headers) -> WSGIApplication | None:
            if not status.startswith("404"):
                return None
            for option, new_status in (("fallback", "200 OK"), ("not_found", "404 Not Found")):
                relative = pages[option]
                if relative is None or not _is_for_people(request, headers, navigation=option == "fallback"):
                    continue
                try:
                    entry = kept.get(option) or finder.page(relative)
                except OSError:
                    return answer_busy
                if entry is not None:
                    return _with_page(entry, new_status)
            return None

        def _with_page(entry: FileEntry, status: str) -> WSGIApplication:
            def answer_page(_: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
                return plain_answer(loader, entry, status, request, start_response)

            return answer_page

        return substitute(inner, environ, start_response, choose)

    return miss


def _is_for_people(environ: WSGIEnvironment, headers: Headers, *, navigation: bool) -> bool:
    """Tell whether a page may replace a 404 of the app inside.

    A browser that goes to a page names ``text/html``. Others get the page as well, but not
    instead of an API's JSON, and not for a missing script or image.
    """
    accept: str = environ.get("HTTP_ACCEPT", "")
    if "html" in accept:
        return accepts(accept, ("text/html",)) is not None
    if accept and accepts(accept, ("text/html",)) is None:
        return False
    if "json" in (get_header(headers, "content-type") or ""):
        return False
    path: str = environ.get("PATH_INFO", "")
    return not navigation or "." not in path.rpartition("/")[2]
