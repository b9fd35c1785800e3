"""FastAPI: a job runs on the loop of the service; other requests look at it and cancel it."""

from fastapi import FastAPI

from ragasync import AsyncBatchProcessor
from ragasync.simulation import ScriptedService

app, jobs = FastAPI(), {}
processor = AsyncBatchProcessor(ScriptedService(latency=0.05))  # your function


@app.post("/jobs/{name}")
async def start(name: str, texts: list[str]):
    jobs[name] = processor.start(texts, on_current_loop=True)


@app.get("/jobs/{name}")
async def look(name: str):
    return jobs[name].progress


@app.delete("/jobs/{name}")
async def cancel(name: str):
    jobs[name].cancel()
    return (await jobs.pop(name)).summary()
