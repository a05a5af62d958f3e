"""A FastAPI app: a page, an API, its docs, and who is asking from the layers outside."""

from contextlib import asynccontextmanager
from html import escape

from fastapi import FastAPI, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from lamella.stack.kernel.context import current


@asynccontextmanager
async def lifespan(app):
    app.state.readings = {"oslo": 4.5}
    yield


app = FastAPI(title="Weather", lifespan=lifespan)


def user() -> str:
    """The layer `context` hands the WSGI request on, into the event loop as well."""
    return current()["REMOTE_USER"]


@app.get("/", response_class=HTMLResponse)
async def index(request: Request):
    rows = "".join(f"<li>{escape(city)}: {celsius} °C</li>" for city, celsius in app.state.readings.items())
    root = request.scope["root_path"]
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Weather</title>
<h1>Weather</h1><p>You are <b id="user">{escape(user())}</b>. <a href="/">Portal</a> <a href="{root}/docs">Docs</a></p>
<ul>{rows}</ul>
<form method="post" action="{request.url_for("add").path}"><input name="city" aria-label="City" required>
<input name="celsius" type="number" aria-label="Celsius" required><button>Add</button></form></html>"""


@app.post("/readings")
async def add(request: Request, city: str = Form(), celsius: float = Form()):
    app.state.readings[city] = celsius
    return RedirectResponse(request.url_for("index"), 303)


@app.get("/readings/{city}")
async def reading(city: str):
    return {"city": city, "celsius": app.state.readings.get(city)}
