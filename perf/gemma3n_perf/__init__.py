"""Performance regression suite for Gemma3n decode on MLX: faster, slower or neither, on this chip."""
