"""The engine: packed rows, tiers with exits, the cascade between them, streams."""
