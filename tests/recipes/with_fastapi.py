"""FastAPI: a job runs on the loop of the service; other requests look at it and steer it."""

from fastapi import FastAPI

from ragasync import AsyncBatchProcessor, Job

app = FastAPI()
jobs: dict[str, Job] = {}


async def embed(text: str) -> list[float]:
    return [float(len(text))]  # your call


@app.post("/jobs/{name}")
async def start(name: str, texts: list[str]) -> str:
    jobs[name] = AsyncBatchProcessor(embed).start(texts, on_current_loop=True)
    return f"started: look at /jobs/{name}"


@app.get("/jobs/{name}")
async def look(name: str) -> dict[str, int]:
    now = jobs[name].progress
    return {"done": now.done, "failed": now.failed, "total": now.total or 0}


@app.delete("/jobs/{name}")
async def cancel(name: str) -> str:
    jobs[name].cancel()
    return (await jobs.pop(name)).summary()
