import asyncio
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import RedirectResponse, StreamingResponse
from pydantic import BaseModel


@asynccontextmanager
async def lifespan(app):
    app.state.readings = {"oslo": 4.5}
    yield


app = FastAPI(title="Weather", lifespan=lifespan)


class Reading(BaseModel):
    city: str
    celsius: float


@app.get("/readings/{city}")
async def reading(city: str, request: Request):
    if city not in request.app.state.readings:
        raise HTTPException(404, "no reading")
    return {"city": city, "celsius": request.app.state.readings[city], "here": str(request.url)}


@app.post("/readings", status_code=201)
async def add(reading: Reading, request: Request):
    request.app.state.readings[reading.city] = reading.celsius
    return RedirectResponse(request.url_for("reading", city=reading.city), status_code=303)


@app.get("/live")
async def live():
    async def lines():
        for n in range(3):
            await asyncio.sleep(0.01)
            yield f"{n}\n"

    return StreamingResponse(lines(), media_type="text/plain")
