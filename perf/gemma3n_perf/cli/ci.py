"""``gemma3n-perf ci``: the steps of the workflows, each a command that runs on any machine."""

from gemma3n_perf.ci.cli import HELP, add_arguments, run

__all__ = ["HELP", "add_arguments", "run"]
