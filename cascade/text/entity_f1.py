"""F1 of entities, as conlleval counts them."""

from __future__ import annotations

from collections.abc import Sequence

from cascade.exceptions import OptionError


def entity_f1(truth: Sequence[Sequence[str]], given: Sequence[Sequence[str]]) -> float:
    """The harmonic mean of precision and recall of whole entities, in [0, 1]; 1 where neither has any.

    An entity begins at `B-X`, and at `I-X` that follows no `X`; in BIOES and BILOU it ends with `E-X` or `L-X`, and
    `S-X` or `U-X` is a whole one. It is right where place and type are.
    """
    wanted, found = (
        {(row, *chunk) for row, tags in enumerate(every) for chunk in _chunks(tags)} for every in (truth, given)
    )
    return 2 * len(wanted & found) / (len(wanted) + len(found)) if wanted or found else 1.0


def check_bio(labels: Sequence[str]) -> None:
    """An `OptionError` unless labels are entities in BIO."""
    other = [label for label in labels if label != "O" and not label.startswith(("B-", "I-"))]
    if other or "O" not in labels:
        raise OptionError(
            f"entity F1 needs the tags O, B-... and I-..., got {', '.join(other or labels)}; leave out --f1"
        )


def _chunks(tags: Sequence[str]) -> list[tuple[int, int, str]]:
    """Begin, end and type of each entity."""
    found, begin, kind, ended = [], 0, "", False
    for place, tag in enumerate((*tags, "O")):
        prefix, _, now = tag.partition("-")
        if kind and (ended or prefix in {"B", "S", "U"} or now != kind):
            found.append((begin, place, kind))
            kind = ""
        if now and not kind:
            begin, kind = place, now
        ended = prefix in {"E", "L", "S", "U"}
    return found
