"""Fusions that would win without being faster, each by another way. None may."""
