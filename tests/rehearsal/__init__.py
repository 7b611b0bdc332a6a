"""A pull request on this machine, from plan to comment: ``make rehearse``."""
