"""Prepare a folder of files for serving: compressed siblings, and copies with hashed names.

The functions behind ``lamella compress`` and ``lamella static build``. Both give the same bytes
for the same files, on every machine and at every run.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import posixpath
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from lamella.stack.kernel.errors import ConfigError, import_extra

__all__ = ["MANIFEST", "Built", "Compressed", "build_static", "compress_folder", "progress_bar"]

#: Name of the manifest in the destination.
MANIFEST = "manifest.json"

SUFFIXES = {"zstd": ".zst", "br": ".br", "gzip": ".gz"}

# What is compressed in itself: trying costs time and wins nothing.
_COMPRESSED_SUFFIXES = (
    ".7z .aac .apng .avif .br .bz2 .crx .docx .epub .flac .gif .gz .heic .heif .jar .jpeg .jpg .jxl .m4a .m4v .mkv "
    ".mov .mp3 .mp4 .odp .ods .odt .oga .ogg .ogv .opus .png .pptx .rar .tgz .weba .webm .webp .woff .woff2 .xlsx "
    ".xz .zip .zst"
)
_COMPRESSED = frozenset(_COMPRESSED_SUFFIXES.split())

_HASH_LENGTH = 12

Progress = Callable[[int, int], object]


class Compressed(NamedTuple):
    """What :func:`compress_folder` did with one file."""

    #: The file, relative to the folder.
    name: str
    #: Its size in bytes.
    size: int
    #: Content coding to the size of the sibling, where one was worth writing.
    siblings: dict[str, int]
    #: Whether every sibling was already up to date.
    unchanged: bool


def compress_folder(
    folder: str | os.PathLike[str],
    *,
    encodings: Iterable[str] = ("zstd", "br", "gzip"),
    min_size: int = 200,
    workers: int | None = None,
    progress: Progress | None = None,
    force: bool = False,
) -> list[Compressed]:
    """Write compressed siblings (``app.css.br``) of the files below *folder*, where they are smaller.

    A sibling has the modification time of its file: one that already has it is left alone, and one
    of another time is written anew, or removed where it would not be smaller.

    Args:
        folder: Where to begin; dotfiles, links and compressed formats are left out.
        encodings: ``zstd``, ``br``, ``gzip``.
        min_size: Files below so many bytes are left out.
        workers: Threads; as many as there are processors where unset.
        progress: Called with the number of files done and of all files.
        force: Compress again what is up to date.

    Returns:
        One entry for each file that was looked at, sorted by name.

    Raises:
        ConfigError: No such folder, or an unknown coding.
        MissingExtraError: A coding needs a package that is not installed.
    """
    root = _folder("folder", folder)
    wanted = tuple(encodings)
    for coding in wanted:
        if coding not in SUFFIXES:
            raise ConfigError("encodings", coding, "some of zstd, br, gzip")
    compressors = {coding: _compressor(coding) for coding in wanted}
    sources = [path for path in _files(root) if path.suffix.lower() not in _COMPRESSED]
    done = 0
    results = []
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        # zlib, Brotli and Zstandard release the interpreter's lock while they work.
        for result in pool.map(lambda path: _compress(root, path, compressors, min_size, force), sources):
            results.append(result)
            done += 1
            if progress is not None:
                progress(done, len(sources))
    return results


def _compress(
    root: Path, path: Path, compressors: dict[str, Callable[[bytes], bytes]], min_size: int, force: bool
) -> Compressed:
    """Write the siblings of one file."""
    found = path.stat()
    name = path.relative_to(root).as_posix()
    siblings: dict[str, int] = {}
    unchanged = True
    content: bytes | None = None
    for coding, compress in compressors.items():
        sibling = path.with_name(path.name + SUFFIXES[coding])
        if found.st_size < min_size:
            unchanged = not _remove(sibling) and unchanged
            continue
        if not force and sibling.is_file() and sibling.stat().st_mtime_ns == found.st_mtime_ns:
            siblings[coding] = sibling.stat().st_size
            continue
        content = path.read_bytes() if content is None else content
        small = compress(content)
        if len(small) < len(content):
            _write(sibling, small, found)
            siblings[coding] = len(small)
            unchanged = False
        else:
            unchanged = not _remove(sibling) and unchanged
    return Compressed(name, found.st_size, siblings, unchanged)


def _compressor(coding: str) -> Callable[[bytes], bytes]:
    """Return the strongest setting of a coding; slow, for it is done once."""
    if coding == "gzip":
        # mtime=0: no time and no name in the header, so that equal files give equal bytes.
        return lambda content: gzip.compress(content, 9, mtime=0)
    if coding == "br":
        brotli = import_extra("brotli", "compress")
        return lambda content: bytes(brotli.compress(content, quality=11))
    zstandard = import_extra("zstandard", "compress")
    # RFC 9659: a browser need not take windows over 8 MiB. A compressor belongs to one thread.
    parameters = zstandard.ZstdCompressionParameters.from_level(19, window_log=23)
    return lambda content: bytes(zstandard.ZstdCompressor(compression_params=parameters).compress(content))


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def _write(path: Path, content: bytes, like: os.stat_result | None = None) -> None:
    """Write a whole file or none of it: a server may be reading the old one."""
    descriptor, temporary = tempfile.mkstemp(prefix=".", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        if like is not None:
            os.chmod(temporary, like.st_mode & 0o777)
            os.utime(temporary, ns=(like.st_mtime_ns, like.st_mtime_ns))
        else:
            os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _files(root: Path) -> Iterator[Path]:
    """Go through the regular files below *root*, sorted, without dotfiles and links."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            if not name.startswith(".") and not path.is_symlink() and path.is_file():
                yield path


def _folder(option: str, value: str | os.PathLike[str]) -> Path:
    path = Path(value)
    if not path.is_dir():
        raise ConfigError(option, str(value), "a folder that exists")
    return path


# --- hashed names -------------------------------------------------------------------------------


class Built(NamedTuple):
    """What :func:`build_static` wrote."""

    #: Name to hashed name; both relative, with slashes.
    files: dict[str, str]
    #: Path of the manifest.
    manifest: Path
    #: References in style sheets and scripts that lead to no file: (file, reference).
    missing: list[tuple[str, str]]


# CSS Syntax: a comment, a string, or url( … ) with or without quotes. Alternatives begin with different
# characters or words, and none nests a repetition, so matching is linear.
_CSS_TOKEN = re.compile(
    r"""(?P<comment>/\*.*?\*/)
    |(?P<import>@import\s+)(?P<import_quote>["'])(?P<import_url>[^"'\\\n]*)(?P=import_quote)
    |(?P<url>\burl\(\s*)(?P<quote>["']?)(?P<target>[^"'()\\\n]*?)(?P=quote)(?P<end>\s*\))
    |(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')""",
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
# ECMA-426 section 11.1.2: "//# sourceMappingURL=", "//@" for old tools, and "/*# … */" in CSS.
_SOURCE_MAP = re.compile(r"(?P<head>(?://|/\*)[#@]\s*sourceMappingURL=)(?P<target>[^\s'\"*]+)")


def build_static(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    manifest: str = MANIFEST,
    prefix: str | None = None,
    keep_plain: bool = True,
    strict: bool = False,
    progress: Progress | None = None,
) -> Built:
    """Copy the files below *source* to *destination*, each under a name with a hash of its content in it.

    In style sheets ``url()`` and ``@import``, in style sheets and scripts ``sourceMappingURL``, are
    rewritten to the hashed names; the hash of a file covers those of what it refers to. Files in a cycle of
    references share one hash of all their contents.

    Args:
        source: The files; dotfiles and links are left out.
        destination: Made where it is missing; nothing in it is removed, so that old pages find old files.
        manifest: Name of the manifest in *destination*.
        prefix: Where the files will be served: references that begin with it are rewritten too.
        keep_plain: Copy every file under its plain name as well.
        strict: A reference that leads to no file is an error.
        progress: Called with the number of files done and of all files.

    Raises:
        ConfigError: No such folder; the destination lies in the source; or, with *strict*, a
            reference leads nowhere.
    """
    root = _folder("source", source)
    target = Path(destination)
    if target.resolve() == root.resolve() or root.resolve() in target.resolve().parents:
        raise ConfigError("destination", str(destination), "a folder outside the source")
    names = [path.relative_to(root).as_posix() for path in _files(root)]
    builder = _Builder(root, names, prefix)
    missing = builder.missing()
    if strict and missing:
        name, reference = missing[0]
        raise ConfigError("source", f"{name}: {reference}", "references to files that exist")
    target.mkdir(parents=True, exist_ok=True)
    hashed: dict[str, str] = {}
    for done, name in enumerate(names, 1):
        hashed[name] = builder.hashed_name(name)
        for output in (hashed[name], name) if keep_plain else (hashed[name],):
            place = target / output
            place.parent.mkdir(parents=True, exist_ok=True)
            content = builder.content(name)
            if content is None:
                shutil.copyfile(root / name, place)
                shutil.copystat(root / name, place)
            else:
                _write(place, content, (root / name).stat())
        if progress is not None:
            progress(done, len(names))
    path = target / manifest
    text = json.dumps({"version": 1, "files": hashed}, indent=1, sort_keys=True, ensure_ascii=False)
    _write(path, (text + "\n").encode())
    return Built(hashed, path, missing)


class _Builder:
    """Computes hashed names and rewritten contents, each once."""

    def __init__(self, root: Path, names: list[str], prefix: str | None) -> None:
        self._root = root
        self._prefix = None if prefix is None else prefix.rstrip("/") + "/"
        self._names = frozenset(names)
        self._texts = {name: self._text(name) for name in names if name.endswith((".css", ".js", ".mjs", ".cjs"))}
        self._references = {name: self._referred(name) for name, text in self._texts.items() if text is not None}
        self._cycles = _cycles({name: sorted(found) for name, found in self._references.items()})
        self._hashes: dict[str, str] = {}
        self._contents: dict[str, bytes] = {}

    def _text(self, name: str) -> str | None:
        """Read a style sheet or script; None where it is not UTF-8 and so left as it is."""
        try:
            return (self._root / name).read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            return None

    def _referred(self, name: str) -> set[str]:
        """Return the files that *name* refers to."""
        found: set[str] = set()

        def note(reference: str) -> str:
            resolved = self._resolve(name, reference)
            if resolved is not None:
                found.add(resolved[0])
            return reference

        self._rewrite(name, note)
        return found

    def missing(self) -> list[tuple[str, str]]:
        """Return the references that lead to no file."""
        result: list[tuple[str, str]] = []
        for name in sorted(self._references):

            def note(reference: str, name: str = name) -> str:
                if self._path(name, reference) is not None and self._resolve(name, reference) is None:
                    result.append((name, reference))
                return reference

            self._rewrite(name, note)
        return result

    def _resolve(self, name: str, reference: str) -> tuple[str, str] | None:
        """Return the file that a reference in *name* leads to, and the query and fragment after it."""
        path = self._path(name, reference)
        if path is None or path not in self._names:
            return None
        return path, reference[len(urlsplit(reference).path) :]

    def _path(self, name: str, reference: str) -> str | None:
        """Return what a reference in *name* means below the root; None where it leads elsewhere."""
        try:
            parts = urlsplit(reference)
        except ValueError:
            return None
        if parts.scheme or parts.netloc or not parts.path:
            return None
        if not parts.path.startswith("/"):
            return posixpath.normpath(posixpath.join(posixpath.dirname(name), unquote(parts.path)))
        if self._prefix is not None and parts.path.startswith(self._prefix):
            return posixpath.normpath(unquote(parts.path[len(self._prefix) :]))
        return None

    def _rewrite(self, name: str, change: Callable[[str], str]) -> str:
        """Return the text of *name* with *change* applied to every reference."""
        text = self._texts[name] or ""

        def in_css(match: re.Match[str]) -> str:
            if match["import"]:
                mark = match["import_quote"]
                return f"{match['import']}{mark}{change(match['import_url'])}{mark}"
            if match["url"]:
                return f"{match['url']}{match['quote']}{change(match['target'])}{match['quote']}{match['end']}"
            return match[0]

        if name.endswith(".css"):
            text = _CSS_TOKEN.sub(in_css, text)
        return _SOURCE_MAP.sub(lambda match: match["head"] + change(match["target"]), text)

    def content(self, name: str) -> bytes | None:
        """Return the rewritten content; None where the file is copied as it is."""
        if not self._references.get(name):
            return None
        if name not in self._contents:

            def change(reference: str) -> str:
                resolved = self._resolve(name, reference)
                if resolved is None:
                    return reference
                path, rest = resolved
                hashed = self.hashed_name(path)
                if self._prefix is not None and reference.startswith(self._prefix):
                    return self._prefix + quote(hashed) + rest
                return quote(posixpath.relpath(hashed, posixpath.dirname(name) or ".")) + rest

            self._contents[name] = self._rewrite(name, change).encode()
        return self._contents[name]

    def hashed_name(self, name: str) -> str:
        """Return *name* with the hash before its last extension."""
        folder, slash, last = name.rpartition("/")
        stem, dot, extension = last.rpartition(".")
        if not stem:
            stem, dot, extension = last, "", ""
        return f"{folder}{slash}{stem}.{self._hash(name)}{dot}{extension}"

    def _hash(self, name: str) -> str:
        if name not in self._hashes:
            digest = hashlib.sha256()
            cycle = self._cycles.get(name)
            if cycle is None:
                content = self.content(name)
                digest.update((self._root / name).read_bytes() if content is None else content)
                self._hashes[name] = digest.hexdigest()[:_HASH_LENGTH]
            else:
                outside = sorted({path for member in cycle for path in self._references[member]} - set(cycle))
                for member in cycle:
                    digest.update((self._root / member).read_bytes())
                for path in outside:
                    digest.update(self._hash(path).encode())
                for member in cycle:
                    own = hashlib.sha256(digest.digest() + member.encode())
                    self._hashes[member] = own.hexdigest()[:_HASH_LENGTH]
        return self._hashes[name]


def _cycles(graph: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the members of each cycle of references, by member (Tarjan's components, without recursion)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    on_stack: set[str] = set()
    result: dict[str, list[str]] = {}
    for start in graph:
        if start in order:
            continue
        work = [(start, iter(graph[start]))]
        order[start] = low[start] = len(order)
        stack.append(start)
        on_stack.add(start)
        while work:
            name, following = work[-1]
            for other in following:
                if other not in graph:
                    continue
                if other not in order:
                    order[other] = low[other] = len(order)
                    stack.append(other)
                    on_stack.add(other)
                    work.append((other, iter(graph[other])))
                    break
                if other in on_stack:
                    low[name] = min(low[name], order[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[name])
                if low[name] == order[name]:
                    members = []
                    while True:
                        member = stack.pop()
                        on_stack.discard(member)
                        members.append(member)
                        if member == name:
                            break
                    if len(members) > 1 or name in graph[name]:
                        for member in members:
                            result[member] = sorted(members)
    return result


def progress_bar(label: str, run: Callable[[Progress], object]) -> None:
    """Call *run* with a progress function that draws a bar on a terminal, and nothing elsewhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bar(*columns, transient=True) as bar:
        task = bar.add_task(label, total=None)
        run(lambda done, total: bar.update(task, completed=done, total=total))
