"""`cascade serve`: a bundle behind HTTP. Needs the `serve` extra.

Engine side:
    limits       all limits in one value
    served       one loaded pipeline by name, and its levels: as certified, then cheaper ones
    levels       the policies of each level
    work         a request, the works that it is cut into, its answers; works in turns
    load         how long what waits will take, and which level that asks for
    running      works go through the tiers together
    batcher      requests join batches; the deferred of all of them are pooled
    watching     a share of the answers, compared with full depth
    metrics      counters and histograms for Prometheus
    errors       what a request can end with, beside an answer
"""

from cascade.exceptions import MissingExtraError

try:
    import prometheus_client as prometheus_client
    import starlette as starlette
    import uvicorn as uvicorn
except ImportError as error:  # pragma: no cover - exercised in a subprocess by the tests
    raise MissingExtraError(
        f'cascade.serving needs the serve extra, but {error.name} is missing; pip install "cascade-encoder[serve]"'
    ) from error
