"""Systems under test: one bundle under several policies, and the external baselines on the same checkpoint.

local                  tier 2 whole, cut and with exits, tier 1, the cascade: of a classifier or a tagger
transformers_pipeline  `transformers.pipeline` on the checkpoint (needs the `bench` extra)
baselines              that and what else a user would pick, and how to install it
conversion             a checkpoint in the formats that baselines read
padded                 texts as padded rows, for baselines that are a bare graph
process, worker        a system in a process of its own: the near end and the far end
"""
