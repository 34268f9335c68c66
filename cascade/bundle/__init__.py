"""Bundles on disk and on the Hub: manifest, hashes, certificate, opening and writing."""
