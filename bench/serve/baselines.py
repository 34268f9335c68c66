"""What a user would write instead of `cascade serve`: FastAPI around a baseline of `systems`, in a process of its own.

A queue; one thread runs what came while it was busy, or within 5 ms, up to 32 requests, or each by itself. An answer
to `{"inputs": text}` is the label alone, which is less than `cascade serve` writes.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from cascade_bench.systems.baselines import BASELINES
from cascade_bench.systems.local import TRANSFORMERS
from cascade_bench.systems.process import Answerer, Job

MOST, WAIT = 32, 0.005
SERVERS: Mapping[str, tuple[str, int, str]] = {
    "pipeline": ("FastAPI, transformers pipeline, fp32", 1, TRANSFORMERS),
    "onnxruntime": ("FastAPI, ONNX Runtime int8, batches", MOST, "onnxruntime-int8"),
}
"""By key: the name, how many requests run together at most, and the baseline that is served."""


def application(model: Answerer, most: int) -> Any:
    """A server of a model that answers so many requests together at most."""
    from fastapi import FastAPI

    queue: asyncio.Queue[tuple[str, asyncio.Future[Any]]] = asyncio.Queue()
    pool = ThreadPoolExecutor(1)

    async def answer_batches() -> None:
        while True:
            some = [await queue.get()]
            if queue.qsize() < most - 1:
                await asyncio.sleep(WAIT)
            some += [queue.get_nowait() for _ in range(min(queue.qsize(), most - 1))]
            texts = [text for text, _ in some]
            labels = await asyncio.get_running_loop().run_in_executor(pool, model, texts, most)
            for (_, future), label in zip(some, labels, strict=True):
                if not future.done():  # its client may have gone
                    future.set_result(label)

    @asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[None]:
        task = asyncio.create_task(answer_batches())
        yield
        task.cancel()
        pool.shutdown()

    async def predict(asked: dict[str, str]) -> dict[str, Any]:
        future = asyncio.get_running_loop().create_future()
        queue.put_nowait((asked["inputs"], future))
        return {"label": await future}

    async def health() -> dict[str, str]:
        return {}

    app = FastAPI(lifespan=lifespan)
    app.add_api_route("/predict", predict, methods=["POST"])
    app.add_api_route("/health", health)
    return app


def main(key: str, job: str, port: str) -> None:
    """Serve until told to end. `job`: its fields, as JSON."""
    import uvicorn

    _, most, kind = SERVERS[key]
    app = application(BASELINES[kind].load(Job(**json.loads(job))), most)
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning", access_log=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
