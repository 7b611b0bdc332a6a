"""The small things between products, each in one block of threads: norms, AltUp, LAUREL, embeddings.

A few thousand elements fit one block, and one block may wait for itself; several kernels may only wait
for the host. E elements a thread, element ``i = tid + e * THREADS``.
"""

from gemma3n_perf.fusions.kernels.common import source

PREDICT = source("predict")
AFTER_ATTENTION = source("after_attention")
CORRECT = source("correct")
EMBED = source("embed")
PREPARE = source("prepare")
FINISH = source("finish")
