"""History: what was stored of each commit, as asv results; steps in it, and what a duel said of them."""
