"""The cupy backend: kernels in CUDA C++, launched by CuPy on a GPU or executed on the CPU model of kernels/hostcuda."""
from functools import cache

from . import cuda, versions
from .attention import cupy_cuda as attention
from .conv2d import cupy_cuda as conv2d
from .group_norm import cupy_cuda as group_norm
from .noise_mse import cupy_cuda as noise_mse
from .q_sample import cupy_cuda as q_sample
from .sampler_step import cupy_cuda as sampler_step

MODULES = (conv2d, attention, group_norm, sampler_step, q_sample, noise_mse)


@cache
def functions(device):
    """The backend's own functions on "gpu" or "host"."""
    return versions.backend("cupy", {"gpu": cuda.gpu, "host": cuda.host}[device](), MODULES)
