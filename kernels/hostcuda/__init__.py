"""CUDA kernels executed and checked on the CPU: change `import cupy` to `from kernels import hostcuda` and run."""
from .module import HostCudaError, RawModule
from .numba_ptx import jit
from .ptx import PtxModule
from .traffic import traffic
