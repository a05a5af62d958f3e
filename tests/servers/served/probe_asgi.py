"""The same, as a FastAPI app behind the bridge."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, StreamingResponse

SEEN = {"cancelled": 0, "background": 0, "started": 0}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Count the startups, and say when it ends."""
    SEEN["started"] += 1
    yield
    await asyncio.to_thread(print, "lifespan: shut down", flush=True)


app = FastAPI(lifespan=lifespan)


@app.get("/sync")
def sync(request: Request) -> dict[str, str]:
    """In a thread of the framework."""
    return {"url": request.url_for("sync").path}


@app.post("/echo")
async def echo(request: Request) -> PlainTextResponse:
    """The whole body."""
    return PlainTextResponse(await request.body())


@app.get("/seen")
async def seen() -> dict[str, int]:
    """What happened where nobody could be told."""
    return SEEN


async def _ticks() -> AsyncIterator[bytes]:
    try:
        for _ in range(200):
            yield b"tick\n" * 200
            await asyncio.sleep(0.02)
    finally:
        SEEN["cancelled"] += 1


@app.get("/forever")
async def forever() -> StreamingResponse:
    """Four seconds of a stream."""
    return StreamingResponse(_ticks())


@app.get("/raise")
async def fails() -> None:
    """FastAPI answers 500 by itself."""
    raise RuntimeError("in an endpoint")
