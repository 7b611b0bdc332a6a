"""CUDA sources that fusions share. Few kernels, each used by every layer: a kernel costs a second to compile."""
