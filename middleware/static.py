"""Serve files: conditional, in ranges, precompressed, and none that lies outside the root.

A path that names no file goes to the app inside. Sets ``lamella.static`` where there is a manifest.

.. code-block:: toml

    [[layer]]
    use    = "static"
    root   = "public"
    prefix = "/static"

Place it inside ``security_headers``, so that files carry its headers, and outside ``session``,
so that no file costs a session or gets a cookie. What only some may see belongs inside the auth layer.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from lamella.stack.kernel.environ import direct
from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.http import accepts, is_field_value, is_token
from lamella.stack.kernel.keys import STATIC
from lamella.stack.kernel.options import Duration, FilePath, Regex, Size, choice, flag, size, strings, whole_number
from lamella.stack.kernel.order import Inside, Outside
from lamella.stack.kernel.paths import AmbiguousPathError, canonical_path, check_path
from lamella.stack.kernel.response import Headers, answer, get_header, refuse, substitute

from ._static_answer import (
    Choose,
    Respond,
    answer_busy,
    answer_method,
    chooser,
    plain_answer,
    responder,
)
from ._static_files import CODINGS, FileEntry, Loader, folder_signature_of, signature_of
from ._static_find import Finder, Redirect, Target
from ._static_listing import answer_listing, items_of
from ._static_lookup import roots_of
from ._static_options import (
    Budget,
    cache_control_of,
    names_of,
    page_of,
    prefix_of,
    providing,
    sendfile_of,
    visible_dotfiles,
)
from ._static_rules import Rules, header_rules, immutable_test
from ._static_types import content_types

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["StaticMiddleware"]

# Live mode asks the file system at each request, by timestamps; after so many seconds it looks with its own eyes.
_BELIEVE_SECONDS = 1.0
_MOST_ENTRIES = 4096


class StaticMiddleware:
    """Serve the files of a folder, and pass every other request on.

    Args:
        app: The application inside.
        root: Folder, or several of which the first that has the file wins.
            ``package:my.package/static`` is the folder ``static`` in the package ``my.package``.
        prefix: Path below which the files are; ``/`` for the whole mount.
        mode: ``live`` asks the file system at each request. ``immutable`` lists the files once, when
            the stack is built, and keeps them in memory: for files that change only with the process.
        index: Name of the file that stands for a folder, or several; empty for none.
        listing: List folders without an index, as a page or as JSON.
        fallback: File for navigations that nothing else answers (a single-page app): instead of the
            404 of the app inside, with status 200.
        symlinks: Follow links that lead to a place ``inside`` the root, ``all`` of them, or ``none``.
        dotfiles: Serve names that begin with a dot; or the list of those to serve, such as ``.well-known``.
        immutable: Names whose content never changes, as they have a hash in them: a regular
            expression for the name or the path below the prefix, a callable that takes that path, or true for
            the usual forms. Caches keep them for a year.
        not_found: File for the 404 of paths below the prefix, with status 404.
        clean_urls: Serve ``about.html`` as ``/about``, and redirect the long form to the short one.
        headers: Header fields by pattern: ``*`` within a folder, ``**`` across; later ones win.
        types: Media types by extension or whole name, besides the built-in table.
        charset: Said of text types that name none; empty to say nothing.
        max_age: How long caches may use a file without asking. Unset: ``no-cache`` in live mode, which
            costs a 304, and a minute in immutable mode.
        encodings: Content codings whose precompressed siblings are sent, best first.
        sendfile: Let the front server send: ``x-accel-redirect`` (nginx) or ``x-sendfile`` (Apache, lighttpd).
            Conditions, ranges and codings are its affair then.
        sendfile_map: Folder to the internal address (nginx) or folder where the front server finds it.
        manifest: What ``lamella static build`` wrote; gives ``lamella.static`` to the apps inside.
        memory: Most bytes of small files to hold in memory; 0 holds none.
        max_ranges: Most parts of one answer; a request for more gets the whole file.

    Raises:
        ConfigError: A root or a manifest is missing, or an option is malformed.
    """

    provides = (STATIC,)
    requires = ()
    order = (
        Inside("security_headers", "L109", "files would lack the security headers"),
        Outside("session", "L110", "every file would read the session and could get its cookie"),
    )
    streams = True

    def __init__(
        self,
        app: WSGIApplication,
        *,
        root: FilePath | Sequence[FilePath],
        prefix: str = "/",
        mode: str = "live",
        index: str | Sequence[str] = "index.html",
        listing: bool = False,
        fallback: str | None = None,
        symlinks: str = "inside",
        dotfiles: bool | Sequence[str] = False,
        immutable: Regex | Callable[[str], bool] | bool | None = None,
        not_found: str | None = None,
        clean_urls: bool = False,
        headers: Mapping[str, Mapping[str, str]] = {},
        types: Mapping[str, str] = {},
        charset: str = "utf-8",
        max_age: Duration | None = None,
        encodings: Sequence[str] = ("zstd", "br", "gzip"),
        sendfile: str | None = None,
        sendfile_map: Mapping[str, str] = {},
        manifest: FilePath | None = None,
        memory: Size = "32 MiB",
        max_ranges: int = 64,
    ) -> None:
        roots = roots_of("root", root)
        base = prefix_of(prefix)
        choice("mode", mode, ("live", "immutable"))
        choice("symlinks", symlinks, ("none", "inside", "all"))
        if not isinstance(charset, str) or (charset and not is_token(charset)):
            raise ConfigError("charset", charset, "a charset such as utf-8")
        whole_number("max_ranges", max_ranges, 1, 10_000, "a number of parts")
        for option, value in (("listing", listing), ("clean_urls", clean_urls)):
            flag(option, value)
        budget = Budget(size("memory", memory))
        rules = Rules(
            content_types("types", types),
            charset,
            cache_control_of(max_age, mode),
            immutable_test("immutable", immutable),
            header_rules("headers", headers),
        )
        codings = strings("encodings", encodings, CODINGS.__contains__, "zstd, br, gzip")
        loader = Loader(symlinks, codings, rules)
        finder = Finder(roots, loader, names_of("index", index), listing, clean_urls, visible_dotfiles(dotfiles))
        inner = providing(direct(app), base, manifest, mode)
        choose = chooser()
        pages = {"fallback": page_of("fallback", fallback), "not_found": page_of("not_found", not_found)}
        kept = {option: finder.page(page) for option, page in pages.items()} if mode == "immutable" else {}
        for option, entry in kept.items():
            if entry is None and pages[option] is not None:
                raise ConfigError(option, pages[option], "a file in the root")
        miss = _missing(inner, finder, loader, pages, kept)
        respond = responder(loader, choose, miss, max_ranges, sendfile_of(sendfile, sendfile_map, roots))
        send = _sender(base, finder, respond, miss)

        if mode == "live":
            self.wsgi_closure = _live(base, inner, finder, choose, respond, send, miss, budget)
        else:
            outside = inner if miss is inner else _below_only(base, inner, miss)
            self.wsgi_closure = _immutable(base, finder, respond, send, outside, budget)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self.wsgi_closure(environ, start_response)


# --- the two modes ------------------------------------------------------------------------------


def _live(
    base: str,
    inner: WSGIApplication,
    finder: Finder,
    choose: Choose,
    respond: Respond,
    send: Callable[[Target, WSGIEnvironment, StartResponse], Iterable[bytes]],
    miss: WSGIApplication,
    budget: Budget,
) -> WSGIApplication:
    """Return the application that looks at each request."""
    below = base + "/"
    below_length = len(below)
    cut = len(base.encode("latin-1").decode("utf-8"))  # the canonical path is decoded
    cache: dict[str, FileEntry] = {}
    lock = threading.Lock()
    clock = time.monotonic
    stat = os.stat

    def wsgi_closure(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            path: str = environ["PATH_INFO"]
        except KeyError:  # PEP 3333: an empty variable may be absent
            path = ""
        if base not in path:  # half the time of a comparison, and nearly always the end of it
            return inner(environ, start_response)
        if path[:below_length] != below and path != base:
            return inner(environ, start_response)
        entry = cache.get(path)
        if entry is not None:
            if clock() < entry.deadline and is_as_it_was(entry, environ):
                return respond(entry, environ, start_response)
            forget(path)
        try:
            canonical = canonical_path(environ)
        except AmbiguousPathError as error:
            return refuse(environ, start_response, error)
        try:
            target = finder.find(canonical[cut:])
        except OSError:
            return answer_busy(environ, start_response)
        if target is None:
            return miss(environ, start_response)
        if type(target) is FileEntry:
            if target.settled and finder.is_direct(target, canonical[cut:]):
                remember(path, target)
            return respond(target, environ, start_response)
        return send(target, environ, start_response)

    def is_as_it_was(entry: FileEntry, environ: WSGIEnvironment) -> bool:
        """Tell whether the file, and the sibling that will be sent, are those that were read."""
        identity = entry.identity
        try:
            found = stat(identity.path)
            if signature_of(found) != identity.signature:
                return False
            accept_encoding = environ.get("HTTP_ACCEPT_ENCODING")
            if accept_encoding is not None and finder.loader.codings:
                if folder_signature_of(entry.folder) != entry.folder_signature:
                    return False
                if entry.codings:
                    chosen = choose(entry, accept_encoding)
                    if chosen is not None and chosen is not identity:
                        return signature_of(stat(chosen.path)) == chosen.signature
        except OSError:
            return False
        return True

    def remember(path: str, entry: FileEntry) -> None:
        entry.deadline = clock() + _BELIEVE_SECONDS
        with lock:
            if not budget.take(entry.held):
                while cache and budget.limit >= entry.held:
                    oldest = next(iter(cache))
                    budget.give(cache.pop(oldest).held)
                    if budget.take(entry.held):
                        break
                else:
                    return
            previous = cache.pop(path, None)
            if previous is not None:
                budget.give(previous.held)
            cache[path] = entry
            if len(cache) > _MOST_ENTRIES:
                budget.give(cache.pop(next(iter(cache))).held)

    def forget(path: str) -> None:
        with lock:
            entry = cache.pop(path, None)
            if entry is not None:
                budget.give(entry.held)

    return wsgi_closure


def _immutable(
    base: str,
    finder: Finder,
    respond: Respond,
    send: Callable[[Target, WSGIEnvironment, StartResponse], Iterable[bytes]],
    miss: WSGIApplication,
    budget: Budget,
) -> WSGIApplication:
    """Return the application that knows every path from the start.

    A path that is not in the table, as it stands, is no file, so an ambiguous one never means one.
    The table begins as bare names; what a path means is found out at its first request. So a
    hundred thousand files cost their names only.
    """
    table: dict[str, Any] = finder.table(base)
    lock = threading.Lock()
    cut = len(base.encode("latin-1").decode("utf-8"))  # the canonical path is decoded

    def wsgi_closure(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            path: str = environ["PATH_INFO"]
        except KeyError:  # PEP 3333: an empty variable may be absent
            path = ""
        if path not in table:
            return miss(environ, start_response)
        target = table.get(path)
        if type(target) is FileEntry:
            return respond(target, environ, start_response)
        if target is None:
            try:
                found = finder.find(check_path(path)[cut:] if path else "")
            except OSError:
                return answer_busy(environ, start_response)
            if found is None:
                table.pop(path, None)
                return miss(environ, start_response)
            with lock:
                target = table.get(path)
                if target is None:
                    if type(found) is FileEntry and not budget.take(found.held):
                        found.forget_content()
                    target = table[path] = found
        return send(target, environ, start_response)

    return wsgi_closure


def _below_only(base: str, inner: WSGIApplication, miss: WSGIApplication) -> WSGIApplication:
    """Return what answers a path that is not in the table: *miss* below the prefix, else *inner*."""
    below = base + "/"

    def outside(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not environ.get("PATH_INFO", "").startswith(below):
            return inner(environ, start_response)
        try:
            canonical_path(environ)
        except AmbiguousPathError as error:
            return refuse(environ, start_response, error)
        return miss(environ, start_response)

    return outside


# --- other answers than files --------------------------------------------------------------------


def _sender(
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


# --- misses -------------------------------------------------------------------------------------


def _missing(
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
