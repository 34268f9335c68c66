"""Settings with a guarantee: a path is chosen on one share of the examples and tested on the other.

claims              what can be asked
whole               all of it, for a classifier or a tagger
procedure           shares of the examples, the test, and why nothing passed
paths, word_paths   which settings are tested, in which order
events, bounds      what counts against a setting, what makes a guarantee doubtful, and what a count says about a rate
ledger              which questions were asked of the same examples
scores              the same for answers of any models, from rows
outcomes, written   what came of it, and that as the certificate of a bundle and as JSON
"""
