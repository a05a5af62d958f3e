"""Media types by file name, from a fixed table: the host's own tables would bring surprises.

IANA's registry as of 2026; RFC 9239 for JavaScript, RFC 9110 section 8.3 for the rest.
"""

from __future__ import annotations

from collections.abc import Mapping

from lamella.stack.kernel.errors import ConfigError
from lamella.stack.kernel.http import is_field_value, parse_parameters

__all__ = ["TYPES", "content_types", "type_of"]

#: Extension to media type, without charset.
TYPES = {
    ".3gp": "video/3gpp",
    ".7z": "application/x-7z-compressed",
    ".aac": "audio/aac",
    ".apng": "image/apng",
    ".atom": "application/atom+xml",
    ".avi": "video/x-msvideo",
    ".avif": "image/avif",
    ".bmp": "image/bmp",
    ".br": "application/x-brotli",
    ".bz2": "application/x-bzip2",
    ".cjs": "text/javascript",
    ".crx": "application/x-chrome-extension",
    ".css": "text/css",
    ".csv": "text/csv",
    ".doc": "application/msword",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".eot": "application/vnd.ms-fontobject",
    ".epub": "application/epub+zip",
    ".flac": "audio/flac",
    ".geojson": "application/geo+json",
    ".gif": "image/gif",
    ".glb": "model/gltf-binary",
    ".gltf": "model/gltf+json",
    ".gz": "application/gzip",
    ".heic": "image/heic",
    ".heif": "image/heif",
    ".htm": "text/html",
    ".html": "text/html",
    ".ico": "image/vnd.microsoft.icon",
    ".ics": "text/calendar",
    ".jar": "application/java-archive",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".js": "text/javascript",
    ".json": "application/json",
    ".jsonld": "application/ld+json",
    ".jxl": "image/jxl",
    ".kml": "application/vnd.google-earth.kml+xml",
    ".log": "text/plain",
    ".m3u8": "application/vnd.apple.mpegurl",
    ".m4a": "audio/mp4",
    ".m4v": "video/mp4",
    ".map": "application/json",
    ".md": "text/markdown",
    ".mid": "audio/midi",
    ".mjs": "text/javascript",
    ".mkv": "video/matroska",
    ".mov": "video/quicktime",
    ".mp3": "audio/mpeg",
    ".mp4": "video/mp4",
    ".mpd": "application/dash+xml",
    ".mpeg": "video/mpeg",
    ".mpg": "video/mpeg",
    ".odp": "application/vnd.oasis.opendocument.presentation",
    ".ods": "application/vnd.oasis.opendocument.spreadsheet",
    ".odt": "application/vnd.oasis.opendocument.text",
    ".oga": "audio/ogg",
    ".ogg": "audio/ogg",
    ".ogv": "video/ogg",
    ".opus": "audio/ogg",
    ".otf": "font/otf",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".ppt": "application/vnd.ms-powerpoint",
    ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ".rar": "application/vnd.rar",
    ".rss": "application/rss+xml",
    ".rtf": "application/rtf",
    ".svg": "image/svg+xml",
    ".swf": "application/vnd.adobe.flash.movie",
    ".tar": "application/x-tar",
    ".tgz": "application/gzip",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".toml": "application/toml",
    ".ts": "video/mp2t",
    ".tsv": "text/tab-separated-values",
    ".ttf": "font/ttf",
    ".txt": "text/plain",
    ".vtt": "text/vtt",
    ".wasm": "application/wasm",
    ".wav": "audio/wav",
    ".weba": "audio/webm",
    ".webm": "video/webm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".xhtml": "application/xhtml+xml",
    ".xls": "application/vnd.ms-excel",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".xml": "application/xml",
    ".xz": "application/x-xz",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".zip": "application/zip",
    ".zst": "application/zstd",
}


def content_types(option: str, own: Mapping[str, str]) -> dict[str, str]:
    """Return the table with the entries of *own* in it.

    Args:
        option: Name of the option, for the error.
        own: Extension (``.wasm``) or whole file name (``LICENSE``) to media type.

    Raises:
        ConfigError: A key is empty or has a slash, or a value is no media type.
    """
    if not isinstance(own, Mapping):
        raise ConfigError(option, own, 'a mapping such as { ".wasm" = "application/wasm" }')
    table = dict(TYPES)
    for name, media_type in own.items():
        if not isinstance(name, str) or not name or "/" in name:
            raise ConfigError(option, name, "an extension such as '.wasm' or a file name")
        parsed = parse_parameters(media_type) if isinstance(media_type, str) else None
        if parsed is None or parsed[0].count("/") != 1 or not is_field_value(media_type):
            raise ConfigError(option, media_type, "a media type such as 'application/wasm'")
        table[name.lower()] = media_type
    return table


def type_of(name: str, table: Mapping[str, str], charset: str) -> str:
    """Return the ``Content-Type`` of the file called *name*.

    A whole name counts before an extension; what is unknown is ``application/octet-stream``.
    Text gets *charset*, unless the table names one already or *charset* is empty.
    """
    name = name.lower()
    dot = name.rfind(".")
    media_type = table.get(name) or (table.get(name[dot:]) if dot >= 0 else None) or "application/octet-stream"
    if charset and media_type.startswith("text/") and "charset=" not in media_type:
        return f"{media_type}; charset={charset}"
    return media_type
