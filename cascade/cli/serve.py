"""`cascade serve`: bundles over HTTP. Needs the extra `serve`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click

from cascade.bundle.opening import open_bundle
from cascade.core.limits import Limits
from cascade.exceptions import OptionError, need
from cascade.runtime.threads import check_threads

C = TypeVar("C", bound=Callable[..., Any])


def _option(name: str, kind: Any, default: Any, text: str, **more: Any) -> Callable[[C], C]:
    """An option that is also read from the environment, by TEI's name."""
    dashed = f"--{name.replace('_', '-')}"
    shown = {"default": default, "show_default": default is not None, "envvar": name.upper()}
    return click.option(dashed, type=kind, help=text, **shown, **more)


def _limits(command: C) -> C:
    """Options for all limits."""
    for own in reversed(fields(Limits)):
        kind = {bool: bool, float: float}.get(type(own.default), int)
        bare: dict[str, Any] = {"is_flag": False, "flag_value": "true"} if kind is bool else {}  # a name alone, as TEI
        command = _option(own.name, kind, own.default, own.metadata["help"], **bare)(command)
    return command


@click.command(short_help="Answer over HTTP, in the forms of TEI, vLLM and KServe (needs an extra).")
@click.argument("bundle", required=False, envvar="MODEL_ID")
@click.option("--model", "models", multiple=True, metavar="NAME=PATH", help="A bundle by name; may be repeated.")
@_option("served_model_name", str, None, "Of BUNDLE.", metavar="NAME")
@_option("revision", str, None, "Of bundles on the Hub.", metavar="NAME")
# TEI reads HOSTNAME too, which containers set to names that only they know.
@click.option("--hostname", envvar="CASCADE_HOSTNAME", default="0.0.0.0", show_default=True, help="Where to listen.")  # noqa: S104
@_option("port", click.IntRange(0, 65535), 3000, "0: any.")
@_option("workers", click.IntRange(1), 1, "Processes.")
@_option("threads", click.IntRange(1), None, "Of a worker or replica.", metavar="N")
@click.option("--ray", "on_ray", is_flag=True, help="On Ray Serve: each later tier scales by itself. Needs an extra.")
@click.option("--max-replicas", type=click.IntRange(1), default=1, show_default=True, metavar="N",
              help="Of each tier, with --ray.")  # fmt: skip
@_limits
@_option("api_key", str, None, "Refuse requests without `Authorization: Bearer KEY`.", metavar="KEY")
@click.option("--cors-allow-origin", "origins", envvar="CORS_ALLOW_ORIGIN", multiple=True, metavar="URL",
              help="[default: any]")  # fmt: skip
@click.option("--tei-metrics", envvar="TEI_METRICS", is_flag=True, help="Count under TEI's names as well.")
@_option("monitor", click.FloatRange(0, 1), 0.0, "Of the answers, compared with full depth.", metavar="SHARE")
@_option("log_share", click.FloatRange(0, 1), 0.01, "Of the requests, logged as a line of JSON.", metavar="SHARE")
@_option("otlp_endpoint", str, None, "Send spans there; needs OpenTelemetry.", metavar="URL")
@_option("otlp_service_name", str, "cascade", "", metavar="NAME")
def serve(bundle: str | None, models: Sequence[str], served_model_name: str | None, **given: Any) -> int:
    """Answer over HTTP. BUNDLE, a folder or a Hub id, is the default model; --model adds others by name.

    Texts come in the forms of text-embeddings-inference (/predict), vLLM (/classify) and KServe (:predict, infer);
    /predict_tokens tags. /docs describes all routes, /metrics is for Prometheus, / is a page to try things on. Under
    load answers get cheaper first, and say so; then requests are refused. SIGTERM ends it once what was accepted is
    answered; SIGHUP reads the bundles again. Each option but --model can be an environment variable, as in TEI.

    \b
    Example:
      cascade serve models/sentiment
      cascade serve models/sentiment --model tags=models/pos --port 8080 --workers 2
      curl localhost:3000/predict -H 'Content-Type: application/json' -d '{"inputs": "a gripping film"}'
    """
    from cascade.serving.workers import Setup  # the room guards its door
    from cascade.serving.workers import serve as run

    workers, endpoint, on_ray = given["workers"], given["otlp_endpoint"], given["on_ray"]
    if on_ray and workers > 1:
        raise OptionError(f"--workers must be 1 with --ray, got {workers}; give --max-replicas")
    if on_ray:
        need("cascade serve --ray", "serve,ray", "ray")
    named = _named(bundle, served_model_name, models)
    for _, path in named:
        open_bundle(path, verify=False, revision=given["revision"])  # faults are told here, downloads are done once
    setup = Setup(
        models=named,
        limits=Limits(**{own.name: given[own.name] for own in fields(Limits)}),
        threads=given["threads"] or (1 if on_ray else max(check_threads(None) // workers, 1)),
        origins=given["origins"] or ("*",),
        otlp=None if endpoint is None else (endpoint, given["otlp_service_name"]),
        **{name: given[name] for name in ("monitor", "tei_metrics", "api_key", "log_share", "revision")},
    )
    if on_ray:
        from cascade.serving.on_ray import serve_on_ray

        return serve_on_ray(setup, hostname=given["hostname"], port=given["port"], max_replicas=given["max_replicas"])
    return run(setup, hostname=given["hostname"], port=given["port"], workers=workers)


def _named(bundle: str | None, name: str | None, models: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Names and places of all bundles, the default one first."""
    found = [] if bundle is None else [(name or Path(bundle).resolve().name, bundle)]
    for model in models:
        one, _, path = model.partition("=")
        if not one or not path:
            raise OptionError(f"--model must be NAME=PATH, got {model}; write --model tags=models/pos")
        found.append((one, path))
    if not found:
        raise OptionError("cascade serve must have a bundle, got none; name one, or give --model NAME=PATH")
    return tuple(found)
