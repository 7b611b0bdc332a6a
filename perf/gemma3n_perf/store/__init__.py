"""Versioned JSON on disk: sessions, baselines, published references. Written whole or not at all."""
