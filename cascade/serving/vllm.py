"""vLLM's routes for classifiers, `/classify` and `/v1/models`, which SGLang's clients and NeMo Guardrails speak too."""

from __future__ import annotations

import json
import time
from secrets import token_hex
from typing import Final

from cascade.serving.asking import ask, raw_of, replied, routes_of
from cascade.serving.errors import Refused, as_vllm
from cascade.serving.wire import Call, Reply, Route, field, strings

STARTED: Final = int(time.time())


async def classify(call: Call) -> Reply:
    """`POST /classify`: the best label of each text and the probabilities of all, in the order of the labels."""
    body = call.json
    texts, _ = strings(body, "input")
    if not texts:
        raise Refused("input must hold a text, got none", 400)
    routes, activation = field(body, "routes", bool, False), field(body, "use_activation", bool, True)
    answers = await ask(call, texts, truncate=None if body.get("truncate_prompt_tokens") is None else True)
    served, scores = answers.served, answers.probabilities
    labels, scores = served.labels, scores if activation else raw_of(served, scores)
    rows = zip(scores.argmax(axis=1).tolist(), scores.tolist(), strict=True)
    data = [
        {"index": index, "label": labels[best], "probs": row, "num_classes": len(labels)}
        for index, (best, row) in enumerate(rows)
    ]
    used = {"prompt_tokens": answers.tokens, "total_tokens": answers.tokens, "completion_tokens": 0}
    about = {"id": f"classify-{token_hex(16)}", "object": "list", "created": int(time.time()), "model": served.name}
    more = {"routes": routes_of(answers), "degraded": answers.degraded} if routes else {}
    answer = {**about, "data": data, "usage": {**used, "prompt_tokens_details": None}, **more}
    return replied(call, json.dumps(answer, separators=(",", ":")), answers)


async def models(call: Call) -> Reply:
    """`GET /v1/models`: what is served; also in KServe's form, under `models`."""
    batchers = call.models.batchers
    data = [
        {
            "id": name,
            "object": "model",
            "created": STARTED,
            "owned_by": "cascade",
            "root": str(batcher.served.pipeline.bundle.folder),
            "parent": None,
            "max_model_len": batcher.served.max_input_length,
        }
        for name, batcher in batchers.items()
    ]
    return Reply.of({"object": "list", "data": data, "models": list(batchers)})


ROUTES: Final = (
    *(Route(path, classify, as_vllm) for path in ("/classify", "/v1/classify")),
    Route("/v1/models", models, as_vllm, "GET"),
)
