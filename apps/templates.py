"""Jinja2 templates for views: escaping always on, ``request`` and ``url_for`` inside.

Needs the extra ``templates``.
"""

from __future__ import annotations

from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamella.stack.kernel.errors import ConfigError, import_extra

if TYPE_CHECKING:
    from .requests import Request

__all__ = ["Templates"]


class Templates:
    """A folder of templates.

    Every template escapes what it is given, whatever its name ends in.

    Args:
        folder: Where they are, or a Jinja2 loader.
        globals: More names for all templates.
        filters: More filters.

    Raises:
        ConfigError: There is no such folder.
        MissingExtraError: Jinja2 is not installed.
    """

    def __init__(
        self,
        folder: str | PathLike[str] | object,
        *,
        globals: dict[str, Any] | None = None,
        filters: dict[str, Any] | None = None,
    ) -> None:
        jinja2 = import_extra("jinja2", "templates")
        loader: Any = folder
        if isinstance(folder, (str, PathLike)):
            if not Path(folder).is_dir():
                raise ConfigError("templates", fspath(folder), "a folder that exists")
            loader = jinja2.FileSystemLoader(fspath(folder))
        elif not isinstance(folder, jinja2.BaseLoader):
            raise ConfigError("templates", folder, "a folder, or a Jinja2 loader")
        #: The Jinja2 environment.
        self.environment: Any = jinja2.Environment(loader=loader, autoescape=True)
        self.environment.globals.update(globals or {})
        self.environment.filters.update(filters or {})

    def render(self, request: Request, template: str, /, **context: object) -> str:
        """Render *template* for *request*.

        Args:
            request: The request; its ``url_for`` is there as ``url_for``.
            template: Name, relative to the folder.
            **context: More names.
        """
        found = self.environment.get_template(template)
        text: str = found.render({"request": request, "url_for": request.url_for, **context})
        return text
