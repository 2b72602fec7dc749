"""PyTorch's exported operators as pure JAX functions."""
