"""A file as HTTP sees it: its representations, their headers, and the bytes of a part of it."""

from __future__ import annotations

import errno
import io
import os
import time
from collections.abc import Iterable, Iterator

from lamella.stack.kernel.conditional import not_modified_headers
from lamella.stack.kernel.http import ETag, format_date
from lamella.stack.kernel.records import Record
from lamella.stack.kernel.response import Headers, add_vary, set_header

from ._static_lookup import open_again, open_beneath
from ._static_rules import Rules

__all__ = [
    "BLOCK",
    "CODINGS",
    "SMALL",
    "FileEntry",
    "FileSegments",
    "Loader",
    "Representation",
    "folder_signature_of",
    "multipart",
    "signature_of",
]

#: Bytes read at once where the server has no ``wsgi.file_wrapper``: with 8 KiB, as is usual, granian
#: sends 1.2 GB/s, with these 5.3.
BLOCK = 256 * 1024
#: Files up to this size are answered as bytes. Behind uWSGI's HTTP socket a file wrapper costs 44 ms
#: (headers and content leave in two packets); from memory they are also faster than ``sendfile``.
SMALL = 64 * 1024

#: Content coding to the suffix of its precompressed sibling.
CODINGS = {"zstd": ".zst", "br": ".br", "gzip": ".gz"}

# How long ago a file must have changed before its timestamps tell every further change: the
# kernel's clock ticks each 10 ms at worst; file systems with whole seconds need two of them.
_SETTLED_NS = 100_000_000
_SETTLED_COARSE_NS = 2_000_000_000

Signature = tuple[int, int, int, int, int]


class Representation:
    """One representation of a file: as it is, or in one content coding.

    Attributes:
        coding: ``identity`` or a content coding.
        etag: Its entity-tag as text.
        modified: Its modification date in seconds.
        headers: Those of a 200: ``Content-Length`` first, ``Content-Type`` second.
        kept_headers: Those of a 304.
        body: The content, where it is held in memory.
        size: Length of the content.
        signature: What ``fstat`` said of it: change times, size, identity.
    """

    __slots__ = (
        "body",
        "coding",
        "etag",
        "etag_parsed",
        "headers",
        "kept_headers",
        "modified",
        "path",
        "relative",
        "root",
        "signature",
        "size",
    )

    body: bytes | None
    coding: str
    etag: str
    etag_parsed: ETag
    headers: Headers
    kept_headers: Headers
    modified: int
    path: str
    relative: str
    root: str
    signature: Signature
    size: int


class FileEntry:
    """A file and its precompressed siblings.

    Attributes:
        identity: The file as it is.
        variants: Content coding to representation; empty where there are no siblings.
        codings: The keys of *variants* in the server's order.
        folder: The folder it lies in, where siblings may appear.
        folder_signature: When that folder changed last.
        settled: Whether timestamps will tell of every further change.
        deadline: Clock time until which timestamps are believed.
        held: Bytes held in memory.
    """

    __slots__ = ("codings", "deadline", "folder", "folder_signature", "held", "identity", "settled", "variants")

    identity: Representation
    variants: dict[str, Representation]
    codings: tuple[str, ...]
    folder: str
    folder_signature: tuple[int, int]
    settled: bool
    deadline: float
    held: int

    def forget_content(self) -> None:
        """Hold nothing in memory: the content is read at each request."""
        for representation in self.all():
            representation.body = None
        self.held = 0

    def all(self) -> Iterator[Representation]:
        """Go through the representations."""
        yield self.identity
        yield from self.variants.values()


def signature_of(found: os.stat_result) -> Signature:
    """Return what tells one state of a file from another."""
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev


def folder_signature_of(folder: str) -> tuple[int, int]:
    """Return what tells whether a folder has got or lost a name; zeros where it is gone."""
    try:
        found = os.stat(folder)
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_ino


class Loader(Record):
    """Reads files into entries, by the options of one layer."""

    #: ``none``, ``inside`` or ``all``.
    symlinks: str
    #: The content codings to look for, the server's favourite first.
    codings: tuple[str, ...]
    #: Gives the fields of a file by its relative path, the type first.
    fields: Rules

    def load(self, root: str, relative: str) -> FileEntry | None:
        """Read one file and its siblings; None where there is no such file.

        Raises:
            OSError: The system cannot open it now.
        """
        now = time.time_ns()
        identity = self._represent(root, relative, "identity", relative)
        if identity is None:
            return None
        folder = os.path.dirname(root + relative)
        # Before the siblings are looked for: one that appears later changes it.
        folder_signature = folder_signature_of(folder) if self.codings else (0, 0)
        entry = FileEntry()
        entry.identity = identity
        entry.variants = {}
        for coding in self.codings:
            variant = self._represent(root, relative + CODINGS[coding], coding, relative)
            if variant is not None:
                entry.variants[coding] = variant
        entry.codings = tuple(entry.variants)
        if entry.variants:
            for representation in entry.all():
                representation.headers = add_vary(representation.headers, "Accept-Encoding")
                representation.kept_headers = not_modified_headers(representation.headers)
        entry.folder = folder
        entry.folder_signature = folder_signature
        changed = [folder_signature[0], *(representation.signature[1] for representation in entry.all())]
        entry.settled = all(_is_settled(at, now) for at in changed)
        entry.deadline = 0.0
        entry.held = sum(len(representation.body or b"") for representation in entry.all())
        return entry

    def open(self, representation: Representation) -> io.FileIO | None:
        """Open the file again to send it; None where it is no longer the same.

        Raises:
            OSError: The system cannot open it now.
        """
        descriptor = self._reopen(representation)
        return None if descriptor is None else io.FileIO(descriptor, "rb")

    def read(self, representation: Representation) -> bytes | None:
        """Read a small file again; None where it is no longer the same.

        Raises:
            OSError: The system cannot open it now.
        """
        descriptor = self._reopen(representation)
        if descriptor is None:
            return None
        try:
            body = os.read(descriptor, SMALL + 1)
        finally:
            os.close(descriptor)
        return body if len(body) == representation.size else None

    def _reopen(self, representation: Representation) -> int | None:
        """Open the file, if it still is the very one that was found to lie where it may."""
        descriptor = open_again(representation.path)
        if descriptor is None:
            return None
        if signature_of(os.fstat(descriptor)) == representation.signature:
            return descriptor
        os.close(descriptor)
        return None

    def _represent(self, root: str, relative: str, coding: str, named: str) -> Representation | None:
        """Read one representation; *named* is the file that the client asked for."""
        descriptor = open_beneath(root, relative, self.symlinks)
        if descriptor is None:
            return None
        result = Representation()
        result.body = None
        with io.FileIO(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if found.st_size <= SMALL:
                found, result.body = _read_steadily(file, found)
        result.root, result.relative, result.path = root, relative, root + relative
        result.signature = signature_of(found)
        result.size = found.st_size
        result.coding = coding
        suffix = "" if coding == "identity" else CODINGS[coding].replace(".", "-")
        result.etag_parsed = ETag(f"{found.st_mtime_ns & 0xFFFFFFFFFFFFFFFF:x}-{found.st_size:x}{suffix}")
        result.etag = str(result.etag_parsed)
        # Section 8.8.2.1: a date in the future is replaced by the present.
        result.modified = min(found.st_mtime_ns // 1_000_000_000, int(time.time()))
        content_type, *fields = self.fields(named)
        headers = [("Content-Length", str(found.st_size)), content_type]
        if coding != "identity":
            headers.append(("Content-Encoding", coding))
        headers += [
            ("ETag", result.etag),
            ("Last-Modified", format_date(result.modified)),
            ("Accept-Ranges", "bytes"),
        ]
        result.headers = headers + fields
        result.kept_headers = not_modified_headers(result.headers)
        return result


def _is_settled(changed_ns: int, now_ns: int) -> bool:
    """Tell whether a further change would show in the timestamp."""
    margin = _SETTLED_COARSE_NS if changed_ns % 1_000_000_000 == 0 else _SETTLED_NS
    return changed_ns + margin < now_ns


def _read_steadily(file: io.FileIO, found: os.stat_result) -> tuple[os.stat_result, bytes | None]:
    """Read a small file; again, where it changed in between. None where it never holds still."""
    for _ in range(3):
        file.seek(0)
        body = b""
        while len(body) <= SMALL and (block := file.read(SMALL + 1 - len(body))):
            body += block
        again = os.fstat(file.fileno())
        if signature_of(again) == signature_of(found) and len(body) == again.st_size:
            return found, body
        found = again
    return found, None


class FileSegments:
    """The body of an answer that is parts of a file, with bytes of our own between them.

    Where the file has become shorter than it was when it was promised, iteration raises
    ``ConnectionResetError``: only a broken connection tells the client that something is missing.
    The file is closed at the end or by ``close()``.

    Args:
        file: Open for reading.
        segments: Bytes to send as they are, or ``(start, stop)`` in the file.
    """

    __slots__ = ("_at", "_file", "_segments", "_stop")

    def __init__(self, file: io.FileIO, segments: Iterable[bytes | tuple[int, int]]) -> None:
        self._file = file
        self._segments = iter(segments)
        self._at = self._stop = 0

    def __iter__(self) -> FileSegments:
        return self

    def __next__(self) -> bytes:
        while self._at >= self._stop:
            segment = next(self._segments, None)
            if segment is None:
                self._file.close()
                raise StopIteration
            if isinstance(segment, bytes):
                return segment
            self._at, self._stop = segment
            self._file.seek(self._at)
        block: bytes = self._file.read(min(BLOCK, self._stop - self._at))
        if not block:
            self._file.close()
            raise ConnectionResetError(errno.ECONNRESET, "a file became shorter while it was being sent")
        self._at += len(block)
        return block

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def multipart(
    headers: Headers, size: int, ranges: list[tuple[int, int]], boundary: str
) -> tuple[Headers, list[bytes | tuple[int, int]]] | None:
    """Make a ``multipart/byteranges`` answer (RFC 9110 section 14.6).

    Args:
        headers: Those of the 200; ``Content-Length`` first, ``Content-Type`` second.
        size: Length of the representation.
        ranges: Two or more.
        boundary: Occurs nowhere in the content.

    Returns:
        The headers and the segments of the body; None where the whole representation would be
        cheaper: over twice its size (and 400 bytes, so that two parts of a tiny file may be had).
    """
    content_type = headers[1][1]
    segments: list[bytes | tuple[int, int]] = []
    length = 0
    for index, (start, stop) in enumerate(ranges):
        head = (
            f"{'' if index == 0 else chr(13) + chr(10)}--{boundary}\r\n"
            f"Content-Type: {content_type}\r\nContent-Range: bytes {start}-{stop - 1}/{size}\r\n\r\n"
        ).encode("latin-1")
        segments += [head, (start, stop)]
        length += len(head) + stop - start
    end = f"\r\n--{boundary}--\r\n".encode()
    segments.append(end)
    length += len(end)
    if length > 2 * size + 400:
        return None
    fields = set_header(headers[2:], "Content-Type", f"multipart/byteranges; boundary={boundary}")
    return [("Content-Length", str(length)), *fields], segments
