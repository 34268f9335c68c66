"""What a bundle holds: it is taken, or refused in one line, and nothing of it reaches the terminal raw."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from hypothesis import strategies as st

from cascade.bundle.certificate import Certificate
from cascade.bundle.manifest import Manifest
from cascade.policies.settings import Policies
from cascade.text.tokenizer import Tokenizer
from tests.bundle.test_manifest import MANIFEST, TAGGER
from tests.fuzz import fuzzed, tried
from tests.fuzz.bundles import mutated_json, mutated_text
from tests.fuzz.texts import text
from tests.models.certificates import certificate_of
from tests.models.toy import toy_tokenizer
from tests.models.words import wordpiece
from tests.text.test_entities import byte_level

CERTIFICATE = certificate_of(MANIFEST)
MANIFESTS = [json.loads(made.to_json()) for made in (MANIFEST, TAGGER)]
TOKENIZERS = [json.loads(made().to_str()) for made in (toy_tokenizer, wordpiece, byte_level)]


@fuzzed(40, st.sampled_from(MANIFESTS))
def test_manifests(rng: Random, raw: dict[str, Any]) -> None:
    made, _ = tried(lambda: Manifest.from_json(mutated_text(rng, raw)))
    if made is not None:
        again = Manifest.from_json(made.to_json())
        assert again == made
        assert again.models() == made.models()


@fuzzed(16)
def test_certificates(rng: Random) -> None:
    made, _ = tried(lambda: Certificate.from_json(mutated_json(rng, CERTIFICATE.to_json())))
    if made is not None:
        written = json.dumps(made.to_json())  # not a number is not equal to itself
        assert json.dumps(Certificate.from_json(json.loads(written)).to_json()) == written
        assert all(isinstance(sentence, str) for sentence in made.described())


@fuzzed(16, st.sampled_from([MANIFEST, TAGGER]))
def test_policies(rng: Random, manifest: Manifest) -> None:
    made, _ = tried(lambda: Policies.from_json(mutated_json(rng, manifest.policies.to_json())))
    if made is not None:
        tried(lambda: made.check(manifest.infos))
        assert Policies.from_json(json.loads(json.dumps(made.to_json()))) == made


@fuzzed(24, st.sampled_from(TOKENIZERS))
def test_tokenizers(rng: Random, raw: dict[str, Any]) -> None:
    """One that is taken reads any text, each alone as in a batch."""
    contents = mutated_text(rng, raw).encode("utf-8", "surrogatepass")
    made, _ = tried(lambda: Tokenizer.from_bytes(contents, name="tokenizer.json", max_length=16))
    if made is None:
        return
    texts = [text(rng)[:200] for _ in range(3)]
    together, _ = tried(lambda: made.encode(texts))
    if together is not None:
        alone = [made.encode([one]).units.rows.ids.tolist() for one in texts]
        assert together.units.rows.ids.tolist() == [one for part in alone for one in part]
