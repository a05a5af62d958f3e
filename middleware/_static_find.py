"""What a path below the prefix means: a file, another path, a folder to list, or nothing."""

from __future__ import annotations

import os

from lamella.stack.kernel.records import Record

from ._static_files import FileEntry, Loader
from ._static_lookup import Roots, is_hidden, open_beneath, scan

__all__ = ["Finder", "Listing", "Redirect", "Target"]


class Redirect(Record):
    """The path under which the file is known."""

    relative: str


class Listing(Record):
    """A folder to be listed."""

    relative: str


Target = FileEntry | Redirect | Listing


class Finder:
    """Finds what a path below the prefix means."""

    def __init__(
        self,
        roots: Roots,
        loader: Loader,
        index: tuple[str, ...],
        listing: bool,
        clean_urls: bool,
        visible: frozenset[str] | None,
    ) -> None:
        self.roots = roots
        self.loader = loader
        self.visible = visible
        self._index = index
        self._listing = listing
        self._clean_urls = clean_urls

    def find(self, relative: str) -> Target | None:
        """Return the file, redirect or listing for a canonical path below the prefix; None for a miss.

        Raises:
            OSError: The system cannot look now.
        """
        if is_hidden(relative, self.visible):
            return None
        if self._clean_urls:
            short = self._short_form(relative)
            if short is not None and self._file(relative) is not None:
                return Redirect(short)
        if relative.endswith("/"):
            for root in self.roots:
                for name in self._index:
                    entry = self.loader.load(root, relative + name)
                    if entry is not None:
                        return entry
            return Listing(relative) if self._listing and self._is_folder(relative) else None
        if relative:
            entry = self._file(relative) or (self._file(relative + ".html") if self._clean_urls else None)
            if entry is not None:
                return entry
        if self._is_folder(relative + "/") and self.find(relative + "/") is not None:
            return Redirect(relative + "/")
        return None

    def page(self, relative: str | None) -> FileEntry | None:
        """Return a file by its path; None where there is none."""
        return None if relative is None else self._file(relative)

    def _file(self, relative: str) -> FileEntry | None:
        for root in self.roots:
            entry = self.loader.load(root, relative)
            if entry is not None:
                return entry
        return None

    def _is_folder(self, relative: str) -> bool:
        for root in self.roots:
            descriptor = open_beneath(root, relative, self.loader.symlinks, folder=True)
            if descriptor is not None:
                os.close(descriptor)
                return True
        return False

    def _short_form(self, relative: str) -> str | None:
        """Return the clean form of a path that has another."""
        folder, slash, name = relative.rpartition("/")
        if name in self._index:
            return folder + slash
        return relative[:-5] if name.endswith(".html") and name != ".html" else None

    def is_direct(self, entry: FileEntry, relative: str) -> bool:
        """Tell whether no other file could come to stand for the path while this one is there."""
        name = self._index[0] if relative.endswith("/") and self._index else ""
        return entry.identity.root == self.roots[0] and entry.identity.relative == relative + name

    def table(self, base: str) -> dict[str, Target | None]:
        """Return every path that may mean something, in WSGI form, its meaning still open."""
        paths: dict[str, Target | None] = {base: None, base + "/": None}
        for root in self.roots:
            for path, is_folder in scan(root, self.loader.symlinks, self.visible):
                path = base + path
                paths[path] = None
                if is_folder:
                    paths[path + "/"] = None
                elif self._clean_urls and path.endswith(".html"):
                    paths[path[:-5]] = None
        return paths
