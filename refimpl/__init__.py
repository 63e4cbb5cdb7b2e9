"""Exact NumPy reference of diffusion models and GANs: each equation one function, its gradient the next one."""
