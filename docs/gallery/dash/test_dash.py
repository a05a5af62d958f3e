"""Dash under a prefix: every address of the page is in the mount, and callbacks answer."""

from __future__ import annotations

import re
from typing import Any


def test_all_scripts_and_styles_are_in_the_mount(site: Any) -> None:
    """Dash reads no SCRIPT_NAME: it has its addresses from its constructor."""
    page = site.get("/figures/").text
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page)

    assert len(addresses) > 5
    assert [one for one in addresses if not one.startswith("/figures/")] == []
    assert any(one.startswith("/figures/assets/figures.css") for one in addresses)
    for address in addresses[:2] + addresses[-2:]:
        assert site.get(address).status == 200
    assert "unsafe-inline" in site.get("/figures/").headers["Content-Security-Policy"]
    assert "unsafe-inline" not in site.get("/").headers["Content-Security-Policy"]


def test_a_callback_answers(site: Any) -> None:
    """As the page in the browser asks it."""
    call = {
        "output": "..graph.figure...sum.children..",
        "outputs": [{"id": "graph", "property": "figure"}, {"id": "sum", "property": "children"}],
        "inputs": [{"id": "kind", "property": "value", "value": "cubes"}],
        "changedPropIds": ["kind.value"],
    }

    answer = site.post_json("/figures/_dash-update-component", call)

    assert answer.json["response"]["sum"]["children"] == "The sum of ten cubes is 2025."
    assert site.get("/figures/_dash-layout").json["type"] == "Main"
