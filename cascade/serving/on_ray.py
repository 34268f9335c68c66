"""`cascade serve --ray`: the first tier and HTTP in one deployment of Ray Serve, each later tier in one of its own.

Deployments scale apart. A later tier is asked by all replicas of the first, together.
"""

from __future__ import annotations

import math
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import ray
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingContext, AutoscalingPolicy
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import Response

from cascade.bundle.manifest import TAGGING
from cascade.bundle.opening import open_bundle
from cascade.exceptions import BundleError
from cascade.pipelines.loading import load
from cascade.serving.remote import LaterTier, RemoteTier
from cascade.serving.served import Served
from cascade.serving.wire import Scope
from cascade.serving.workers import Setup

REPLICA_TOKENS: Final = 4096
"""Tokens for each replica of a later tier, waiting and under way: with more there is to be another."""
ONGOING: Final = 16
"""Requests for each replica of the first tier."""
QUIET: Final = {"enable_access_log": False, "log_level": "WARNING"}
"""What Ray's processes log. Requests are logged as without Ray, by the replicas of the first tier."""


class Front:
    """HTTP and the first tier of all models; `later`: deployments of the later tiers of each model."""

    def __init__(self, setup: Setup, later: Mapping[str, Sequence[DeploymentHandle]]) -> None:
        served = [self._served(setup, name, path, later[name]) for name, path in setup.models]
        self._app = setup.app(served)
        self._started = False

    async def __call__(self, request: Request) -> Response:
        """Answer as the server without Ray does."""
        if not self._started:
            self._started = True
            self._app.start()
        sent: list[Scope] = []

        async def send(message: Scope) -> None:
            sent.append(message)

        await self._app(dict(request.scope), request.receive, send)
        if not sent:  # the client has gone
            return Response(status_code=499)
        response = Response(sent[1]["body"], status_code=sent[0]["status"])
        response.raw_headers = list(sent[0]["headers"])
        return response

    def _served(self, setup: Setup, name: str, path: str, later: Sequence[DeploymentHandle]) -> Served:
        pipeline = load(path, threads=setup.threads, revision=setup.revision)
        first, *others = pipeline.tiers
        replace(pipeline, tiers=tuple(others)).close()
        remote = [
            RemoteTier(
                ask=handle.score.remote,
                labels=len(pipeline.labels),
                layers=tuple(getattr(tier, "layers", ())),
                encoder=getattr(tier, "encoder", None),
                words=pipeline.task == TAGGING,
                behind=lambda: self._app.models.of(name).deferred_tokens,
            )
            for tier, handle in zip(others, later, strict=True)
        ]
        own = replace(pipeline, tiers=(first, *remote)).with_policies(pipeline.policies)
        return Served(name, own, share=setup.monitor)


def by_tokens(context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
    """So many replicas of a later tier that each has about `REPLICA_TOKENS` tokens, waiting and under way."""
    each = (context.aggregated_metrics or {}).get("tokens", {})
    return max(math.ceil(sum(each.values()) / REPLICA_TOKENS), 1), {}


def application(setup: Setup, *, replicas: tuple[int, int] = (1, 1), later_replicas: tuple[int, int] = (1, 1)) -> Any:
    """The application that `ray.serve.run` takes.

    `setup`: what is served, and how many threads each replica has, which is what Ray reserves for it; `replicas`: of
    the first tier, at least and at most, more while more requests are under way; `later_replicas`: of each later tier,
    more while more tokens wait (`by_tokens`).
    """
    threads = setup.threads or 1
    scaled = AutoscalingConfig(min_replicas=replicas[0], max_replicas=replicas[1], target_ongoing_requests=ONGOING)
    by_load = AutoscalingConfig(
        min_replicas=later_replicas[0],
        max_replicas=later_replicas[1],
        policy=AutoscalingPolicy(policy_function=by_tokens),
        metrics_interval_s=1.0,
        upscale_delay_s=5.0,
    )
    deployed: Any = partial(serve.deployment, ray_actor_options={"num_cpus": threads}, logging_config=QUIET)
    front = deployed(Front, name="first-tier", autoscaling_config=scaled, max_ongoing_requests=512)
    later, handles = deployed(LaterTier, autoscaling_config=by_load, max_ongoing_requests=256), {}
    for name, path in setup.models:
        bundle = open_bundle(path, verify=False, revision=setup.revision)
        handles[name] = [
            later.options(name=f"{name}-tier-{number + 1}").bind(path, number, threads, setup.revision)
            for number in range(1, len(bundle.manifest.tiers))
        ]
    return front.bind(setup, handles)


def serve_on_ray(setup: Setup, *, hostname: str, port: int, max_replicas: int = 1) -> int:
    """Serve on the cluster that `RAY_ADDRESS` names, else on one of this machine's, until SIGTERM or Ctrl-C.

    `max_replicas`: of each tier. Returned is the status of the process. A replica that could not be started, say
    because its node does not have the bundle at that path, is a `BundleError`.
    """
    ended = threading.Event()
    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level="WARNING")
    for number in (signal.SIGINT, signal.SIGTERM):  # in the place of Ray's, which abort
        signal.signal(number, lambda *_: ended.set())
    serve.start(http_options={"host": hostname, "port": port}, logging_config=QUIET)
    try:
        serve.run(application(setup, replicas=(1, max_replicas), later_replicas=(1, max_replicas)), name="cascade")
    except RuntimeError as error:
        places, why = ", ".join(path for _, path in setup.models), " ".join(str(error).split())[:300]
        raise BundleError(f"each node of the cluster must have {places}, with this version, but: {why}") from None
    else:
        names = ", ".join(f"{name} ({path})" for name, path in setup.models)
        print(f"Serving {names} on http://{hostname}:{port}, on Ray", file=sys.stderr, flush=True)
        ended.wait()
    finally:
        serve.shutdown()
        ray.shutdown()
    return 0
