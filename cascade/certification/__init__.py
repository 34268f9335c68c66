"""Certification: thresholds with a guarantee about the accuracy they lose. Needs the `calibrate` extra.

bounds, sequence       exact tests of a rate, in an order that is fixed before the data is seen
temperature            one number per tier and exit by which logits are divided
isotonic               from confidence to accuracy, for `exit_accuracy.Accuracy`
helping                where tier 2 helps, for `learned_routing.Learned`; whether that beats the largest probability
reliability            how far confidence can be trusted: ECE, AUROC, risk against coverage
"""

from cascade.exceptions import MissingExtraError

try:
    import scipy as scipy
    import sklearn as sklearn
except ImportError as error:  # pragma: no cover - exercised in a subprocess by the tests
    raise MissingExtraError(
        "cascade.certification needs the calibrate extra, but "
        f'{error.name} is missing; pip install "cascade-encoder[calibrate]"'
    ) from error
