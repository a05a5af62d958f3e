"""A guest book that was written for Flask, long before anybody thought of lamella.

It knows nothing of where it is mounted: ``url_for`` follows ``SCRIPT_NAME``.
"""

from __future__ import annotations

from flask import Flask, redirect, render_template_string, request, url_for
from werkzeug.wrappers import Response

app = Flask(__name__)
entries: list[str] = ["First!"]

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Guest book</title><link rel="stylesheet" href="/static/style.css"></head>
<body><header><a class="brand" href="/">lamella notes</a>
<nav><a href="{{ url_for('index') }}">Guest book</a></nav></header>
<main><h1>Guest book</h1>
<p class="lead">A Flask app, mounted at <code>{{ request.script_root or '/' }}</code>.
{% if request.remote_user %}You are <strong>{{ request.remote_user }}</strong>.{% endif %}</p>
<form method="post" action="{{ url_for('sign') }}"><label>Your line <input name="line" required maxlength="200"></label>
<button>Sign</button></form>
<ul class="cards">{% for entry in entries %}<li>{{ entry }}</li>{% endfor %}</ul></main></body></html>"""


@app.get("/")
def index() -> str:
    """Show the book."""
    return render_template_string(PAGE, entries=reversed(entries))


@app.post("/sign")
def sign() -> Response:
    """Add a line and show the book."""
    line = request.form["line"].strip()[:200]
    if line:
        entries.append(line)
        del entries[:-50]
    return redirect(url_for("index"))


@app.get("/who")
def who() -> dict[str, str | None]:
    """Tell what the app sees of the request."""
    return {"user": request.remote_user, "root": request.script_root, "path": request.path}
