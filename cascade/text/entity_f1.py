"""F1 of entities, as conlleval counts them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cascade.exceptions import OptionError
from cascade.policies.viterbi import Scheme


def entity_f1(truth: Sequence[Sequence[str]], given: Sequence[Sequence[str]]) -> float:
    """The harmonic mean of precision and recall of whole entities, in [0, 1]; 1 where neither has any.

    An entity begins at `B-X`, and at `I-X` that follows no `X`; in BIOES and BILOU it ends with `E-X` or `L-X`, and
    `S-X` or `U-X` is a whole one. It is right where place and type are.
    """
    both = (truth, given)
    wanted, found = ({(row, *chunk) for row, tags in enumerate(every) for chunk in _chunks(tags)} for every in both)
    return 2 * len(wanted & found) / (len(wanted) + len(found)) if wanted or found else 1.0


def check_bio(labels: Sequence[str]) -> None:
    """An `OptionError` unless labels are entities."""
    if not has_entities(labels):
        raise OptionError(f"entity F1 needs tags in BIO, BIOES or BILOU, got {', '.join(labels)}; leave out --f1")


def has_entities(labels: Iterable[str]) -> bool:
    """Whether these are tags of entities, in BIO, BIOES or BILOU, at least one of which begins one."""
    names = list(labels)
    try:
        Scheme.of(names)
    except OptionError:
        return False
    return any(name[:2] in ("B-", "S-", "U-") for name in names)


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
