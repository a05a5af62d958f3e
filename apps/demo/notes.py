"""The demo site: notes with a form, a JSON API, a download, a page that streams."""

from __future__ import annotations

import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from lamella.apps.router import Request, Router, abort, redirect, send_file
from lamella.stack.kernel.keys import CSRF, IDENTITY, SESSION

from . import store

__all__ = ["application"]

application = Router(templates=Path(__file__).parent / "templates")


def _page(request: Request, template: str, **context: Any) -> str:
    """Render a page with what every page shows; the session is read only where there is one."""
    environ = request.environ
    identity, csrf, session = IDENTITY.get(environ), CSRF.get(environ), SESSION.get(environ)
    return application.render(
        request,
        template,
        root=environ.get("SCRIPT_NAME", ""),
        user=identity.user if identity else "",
        csrf_field=csrf or "",
        flashes=session.flashes() if session is not None else [],
        **context,
    )


def _author(request: Request) -> str:
    identity = IDENTITY.get(request.environ)
    return identity.user if identity else "anonymous"


def _say(request: Request, message: str) -> None:
    """Show *message* on the next page."""
    session = SESSION.get(request.environ)
    if session is not None:
        session.flash(message)


def _note(number: int) -> store.Note:
    return store.find(number) or abort(404, "There is no such note.")


@application.get("/")
def index(request: Request) -> str:
    """All notes, and the form."""
    return _page(request, "index.html", notes=store.all_notes())


@application.post("/notes")
def create(request: Request) -> Any:
    """Keep what the form says."""
    title = request.POST["title"].strip()[:120]
    if not title:
        abort(400, "A note needs a title.")
    note = store.add(title, request.POST.get("text", "")[:20_000], _author(request))
    _say(request, f"Kept “{note.title}”.")
    return redirect(request.url_for("show", id=note.id), 303)


@application.get("/notes/<int:id>")
def show(request: Request, id: int) -> str:
    """One note."""
    return _page(request, "note.html", note=_note(id))


@application.get("/notes/<int:id>.txt")
def download(request: Request, id: int) -> Any:
    """One note as a file."""
    note = _note(id)
    text = BytesIO(f"{note.title}\n\n{note.text}\n".encode())
    kind = "text/plain; charset=utf-8"
    return send_file(text, request.environ, filename=f"{note.title}.txt", content_type=kind, download=True)


@application.post("/notes/<int:id>/remove")
def delete(request: Request, id: int) -> Any:
    """Remove a note; the stack file lets only people who are logged in do that."""
    if not store.remove(id):
        abort(404, "There is no such note.")
    _say(request, "Removed.")
    return redirect(request.url_for("index"), 303)


@application.get("/api/notes")
def api_list(request: Request) -> list[dict[str, Any]]:
    """The notes as JSON."""
    return [note._asdict() for note in store.all_notes()]


@application.post("/api/notes")
def api_create(request: Request) -> Any:
    """A new note from JSON."""
    data = request.json
    title, text = (data.get("title"), data.get("text", "")) if isinstance(data, dict) else (None, "")
    if not isinstance(title, str) or not isinstance(text, str) or not title.strip():
        abort(400, "A note is an object with a title, and perhaps a text.")
    note = store.add(title.strip()[:120], text[:20_000], _author(request))
    return note._asdict(), 201, {"Location": request.url_for("show", id=note.id)}


@application.get("/stream")
def stream(request: Request) -> Any:
    """A page that arrives line by line; no layer holds a line back."""

    def lines() -> Iterator[str]:
        yield "<!doctype html><html lang=en><meta charset=utf-8><title>Stream</title>"
        yield f"<link rel=stylesheet href='{request.script_name}/static/style.css'><main><h1>One by one</h1>"
        for number in range(1, 11):
            yield f"<p>Line {number} of 10, made at <data value={time.time():.4f}>{time.strftime('%X')}</data></p>\n"
            time.sleep(0.3)
        yield "<p><a href='./'>Back</a></p></main>"

    return lines(), 200, {"Content-Type": "text/html; charset=utf-8"}


@application.get("/clock")
def clock(request: Request) -> str:
    """A page whose script listens to the events."""
    return _page(request, "clock.html")


@application.get("/events")
def events(request: Request) -> Any:
    """Server-sent events: the time, four times a second, for five seconds; the browser then asks again."""

    def ticks() -> Iterator[str]:
        yield "retry: 1000\n\n"
        for number in range(1, 21):
            yield f"id: {number}\ndata: {time.time():.4f}\n\n"
            time.sleep(0.25)

    return ticks(), 200, {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}


@application.get("/favicon.ico")
def favicon(request: Request) -> Any:
    """Browsers ask for it wherever a page names no other."""
    return redirect(f"{request.script_name}/static/favicon.svg", 308)


@application.get("/boom")
def boom(request: Request) -> str:
    """An error, to see the error page."""
    raise RuntimeError("this page is broken on purpose")
