"""A bar chart of the full stack as SVG, without a library."""

from __future__ import annotations

from html import escape

from driver import Results

_COLUMNS = (("untouched", "#9db4c0"), ("read", "#5c7f91"), ("write", "#253237"))
_BAR, _GAP, _LEFT, _WIDTH = 12, 14, 390, 960


def bars(found: Results) -> str:
    """One bar for each stack and use of the session, as long as its time; light and dark backgrounds."""
    rows = [(name, columns) for name, columns in found.items() if name != "bare application"]
    longest = max(result.median for _, columns in rows for result in columns.values())
    height = 40 + len(rows) * (3 * _BAR + _GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        'font-family="system-ui, sans-serif" font-size="13">',
        "<title>Microseconds per request of the full stack</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    x = _LEFT
    for column, colour in _COLUMNS:
        parts.append(f'<rect x="{x}" y="12" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{x + 17}" y="23">session {column}</text>')
        x += 150
    y = 40
    for name, columns in rows:
        weight = ' font-weight="bold"' if name.startswith("lamella") else ""
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 23}" text-anchor="end"{weight}>{escape(name)}</text>')
        for column, colour in _COLUMNS:
            value = columns[column].median
            width = max(1.0, value / longest * (_WIDTH - _LEFT - 70))
            parts.append(f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR - 1}" fill="{colour}"/>')
            label = f"{value:.0f}" if value >= 20 else f"{value:.1f}"
            parts.append(f'<text x="{_LEFT + width + 5:.1f}" y="{y + 10}" font-size="11">{label} µs</text>')
            y += _BAR
        y += _GAP
    parts.append("</svg>\n")
    return "\n".join(parts)
