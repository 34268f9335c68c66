"""The table: accuracy beside seconds of every system of a bundle, all measured in one interleaved run."""
