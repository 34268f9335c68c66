"""Systems under test: one bundle under several policies, and the external baselines on the same checkpoint."""
