"""The pages of ``login``: ours, or the user's own template with the same names in it."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from html import escape
from pathlib import Path

from lamella.stack.kernel.errors import ConfigError

__all__ = ["LOGIN", "LOGOUT", "Template", "alert", "hidden", "remember_box"]

_NAME = re.compile(r"\{\{ *([a-z_]+) *\}\}")

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5b6570; --page: #f3f4f6; --card: #fff; --line: #c9ced6;
  --accent: #1f5fbf; --on-accent: #fff; --bad: #a4141f; --bad-soft: #fdecec; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7eaee; --soft: #a2abb6; --page: #14171b; --card: #1d2126;
  --line: #414954; --accent: #7db1ff; --on-accent: #0c1420; --bad: #ffb1b1; --bad-soft: #3a1d20; } }
* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; min-height: 100dvh; display: grid; place-items: center; padding: 1.25rem;
  background: var(--page); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
main { width: 100%; max-width: 22rem; padding: 2rem 1.75rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .75rem; }
h1 { margin: 0 0 1.25rem; font-size: 1.4rem; line-height: 1.2; }
label { display: block; margin: 0 0 .3rem; font-weight: 600; font-size: .9rem; }
.field { width: 100%; margin: 0 0 1rem; padding: .6rem .7rem; font: inherit; color: inherit; background: transparent;
  border: 1px solid var(--line); border-radius: .4rem; }
.check { display: flex; gap: .5rem; align-items: center; margin: 0 0 1.1rem; font-weight: 400; }
.check input { width: 1.05rem; height: 1.05rem; margin: 0; accent-color: var(--accent); }
button { width: 100%; padding: .65rem; font: inherit; font-weight: 600; color: var(--on-accent);
  background: var(--accent); border: 0; border-radius: .4rem; cursor: pointer; }
button:hover { filter: brightness(1.08); }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.alert { margin: 0 0 1.1rem; padding: .6rem .75rem; color: var(--bad); background: var(--bad-soft);
  border-radius: .4rem; }
.note { margin: 0 0 1.1rem; color: var(--soft); }
"""

_HEAD = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>{{{{ title }}}}</title>
<style{{{{ nonce }}}}>{_STYLE}</style>
</head>
<body>
<main>
<h1>{{{{ title }}}}</h1>
"""

_LOGIN = (
    _HEAD
    + """{{ alert }}
<form method="post" action="{{ action }}">
{{ fields }}
<label for="username">User name</label>
<input class="field" id="username" name="username" value="{{ user }}" autocomplete="username" autocapitalize="none"
  spellcheck="false" maxlength="255" required autofocus>
<label for="password">Password</label>
<input class="field" id="password" name="password" type="password" autocomplete="current-password" required>
{{ remember }}
<button>Sign in</button>
</form>
</main>
</body>
</html>
"""
)

_LOGOUT = (
    _HEAD
    + """{{ alert }}
<form method="post" action="{{ action }}">
{{ fields }}
<button>Sign out</button>
</form>
</main>
</body>
</html>
"""
)

_REMEMBER = '<label class="check"><input type="checkbox" name="remember" value="1"{checked}> Keep me signed in</label>'
# What is put in as it is: made here, of escaped parts.
_MARKUP = frozenset({"fields", "alert", "remember", "nonce"})
_KNOWN = frozenset({"title", "action", "user"}) | _MARKUP


class Template:
    """A page with ``{{ names }}``; text is escaped for HTML, also inside quotes.

    Args:
        text: The page.
        option: Name of the option it came from, for errors.

    Raises:
        ConfigError: It has an unknown name, or lacks one that it cannot work without.
    """

    def __init__(self, text: str, option: str = "template") -> None:
        names = set(_NAME.findall(text))
        unknown = sorted(names - _KNOWN)
        if unknown:
            raise ConfigError(option, unknown[0], "only the names " + ", ".join(sorted(_KNOWN)))
        for needed in ("action", "fields"):
            if needed not in names:
                raise ConfigError(option, "a page without it", f"a form with {{{{ {needed} }}}}")
        self._pieces = _NAME.split(text)
        style = re.search(r"<style[^>]*>(.*?)</style>", text, re.DOTALL)
        octets = b"" if style is None else style[1].encode()
        #: The hash of the page's style, for its Content-Security-Policy; empty where it has none.
        self.style_hash = base64.b64encode(hashlib.sha256(octets).digest()).decode() if octets else ""

    @classmethod
    def read(cls, option: str, path: Path) -> Template:
        """Read a page of the user's own."""
        try:
            return cls(path.read_text(encoding="utf-8"), option)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(option, str(path), f"a page in UTF-8 ({type(error).__name__})") from None

    def render(self, values: Mapping[str, str]) -> bytes:
        """Return the page; a name without a value is empty."""
        pieces = []
        for number, piece in enumerate(self._pieces):
            if number % 2 == 0:
                pieces.append(piece)
            else:
                value = values.get(piece, "")
                pieces.append(value if piece in _MARKUP else escape(value))
        return "".join(pieces).encode("utf-8", "replace")


LOGIN = Template(_LOGIN)
LOGOUT = Template(_LOGOUT)


def hidden(fields: Mapping[str, str]) -> str:
    """Return hidden inputs."""
    return "\n".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">' for name, value in fields.items()
    )


def alert(message: str) -> str:
    """Return a message that a screen reader announces; nothing for none."""
    return f'<p class="alert" role="alert">{escape(message)}</p>' if message else ""


def remember_box(checked: bool) -> str:
    """Return the box that asks for a longer login."""
    return _REMEMBER.format(checked=" checked" if checked else "")
