"""Where the time goes: milliseconds of each tier and stage by batch, by operator, beside the host's peak."""
