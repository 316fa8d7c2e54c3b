"""The same application as mounted.py, by FastAPI."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

from fairlead_edge.mount import Edge

realtime = Edge()  # FAIRLEAD_NATS and FAIRLEAD_APP say where

app = FastAPI(lifespan=realtime.lifespan)


@app.get("/hello", response_class=PlainTextResponse)
async def hello() -> str:
    return "hello"


app.add_api_route("/metrics", realtime.metrics)
app.mount("/realtime", realtime)
