"""pytest's side of the suite: its hooks and fixtures live in ``gemma3n_perf.pytest_plugin``."""

from gemma3n_perf.pytest_plugin.plugin import *  # noqa: F403  (pytest finds hooks by their names)
