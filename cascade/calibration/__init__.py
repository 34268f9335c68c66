"""Calibration: thresholds from examples, with or without a guarantee. Needs the `calibrate` extra.

Shared rooms:
    examples             which examples count, labels as numbers
    observing, costs     running and timing all tiers once; what a token costs in each part
    texts, sentences     what the tiers say about texts (recorded, replayed) and sentences (run; of two tiers)
    runs                 what these two share; how far the work is
    chain, induction     all exits of some tiers as one chain of decision points; a price gives all its thresholds
    temperature          one number per tier and exit by which logits are divided
Of these:
    choosing             without a guarantee: the cheapest setting within an accuracy
    certify/             with one: claims, a path of settings, its test, the certificate
"""

from __future__ import annotations

from cascade.exceptions import need

need("cascade.calibration", "calibrate", "scipy")
