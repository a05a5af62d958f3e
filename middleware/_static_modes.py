"""The two modes of ``static``: looking at each request, and knowing every path from the start."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from lamella.stack.kernel.paths import AmbiguousPathError, canonical_path, check_path
from lamella.stack.kernel.response import refuse

from ._static_answer import Choose, Respond, answer_busy
from ._static_files import FileEntry, folder_signature_of, signature_of
from ._static_find import Finder, Target
from ._static_options import Budget

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["below_only", "immutable_closure", "live_closure"]

# Live mode asks the file system at each request, by timestamps; after so many seconds it looks with its own eyes.
_BELIEVE_SECONDS = 1.0
_MOST_ENTRIES = 4096


def live_closure(
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


def immutable_closure(
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


def below_only(base: str, inner: WSGIApplication, miss: WSGIApplication) -> WSGIApplication:
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
