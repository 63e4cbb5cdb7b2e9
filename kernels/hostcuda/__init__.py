"""CUDA kernels executed and checked on the CPU: change `import cupy` to `from kernels import hostcuda as cupy` and run."""
from .build import HostCudaError
from .module import RawModule, raw_kernel as RawKernel
from .numba_ptx import jit
from .ptx import PtxModule
from .traffic import traffic
