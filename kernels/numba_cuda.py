"""The numba_cuda backend: kernels in Python, compiled by Numba for a GPU, or for the CPU model of kernels/hostcuda, which
executes their PTX. On a GPU its arrays are CuPy's: Numba's own have none of NumPy's protocols and convert to it silently.
"""
from functools import cache

from . import twins, versions
from .attention import numba_cuda as attention
from .conv2d import numba_cuda as conv2d
from .group_norm import numba_cuda as group_norm
from .noise_mse import numba_cuda as noise_mse
from .q_sample import numba_cuda as q_sample
from .sampler_step import numba_cuda as sampler_step

MODULES = (conv2d, attention, group_norm, sampler_step, q_sample, noise_mse)


@cache
def functions(device):
    """The backend's own functions on "gpu" or "host"."""
    return versions.backend("numba_cuda", {"gpu": twins.gpu, "host": twins.host}[device](), MODULES)
