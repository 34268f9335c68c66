"""The command line: `cascade build | predict | serve | calibrate | certify | tune | inspect | demo`.

main       the group
predict/   a file or standard input to lines of JSON
serve      answers over HTTP (needs the extra)
demo/      the project's own sentences through the bundles that come with it
build      a fine-tuned model to a bundle (needs three extras)
inspect    what a bundle says about itself
calibrate/ settings with a guarantee (needs the extra)
certify    the same for a file of scores (needs the extra)
tune       times batches, tiers and exits on the user's texts and this host
show       numbers, sizes, times and routes in words
doors      `cascade-train`, `cascade-export` and `cascade-bench`, which need packages that this command must not load
"""

from __future__ import annotations

from cascade.cli.main import cascade, main

__all__ = ["cascade", "main"]
