"""`cascade serve`: a bundle behind HTTP. Needs the `serve` extra.

Engine side:
    levels       the policies of each level: as certified, then cheaper ones
    served       one loaded pipeline by name, with these; a share of its answers, compared with full depth
    work         what waits: requests, the works that they are cut into, in turns; answers
    load         how long what waits will take, and which level that asks for
    running      works go through the tiers together
    batcher      requests join batches; the deferred of all of them are pooled
    metrics      counters and histograms for Prometheus
    errors       what a request can end with, beside an answer, in the forms that clients read
HTTP side:
    models       the bundles that are served, by name; reloading them
    wire         one request and one answer: headers, bodies, JSON
    asking       what all dialects share: asking within the limits, scores, routes and costs
    tei, vllm, kserve, tokens    the routes by whose clients speak them
    openapi      the document of all routes, and a page of it
    page         the page at `/`: texts, thresholds to try, traffic
    app          all routes as one ASGI application, behind keys, origins and counters
    logs         lines of JSON about requests, and spans
    workers      one process or several that serve it, and their signals
    client       a client in one file
"""

from cascade.exceptions import need

need("cascade.serving", "serve", "httptools", "prometheus_client", "uvicorn")
