"""The mark of a test that needs a GPU; apart from the rest, since it imports CuPy."""
import pytest

from kernels import cuda


def no_gpu():
    """Why nothing can run on a GPU here, or None."""
    try:
        cuda.array_module()
    except ImportError as error:
        return str(error)


needs_gpu = pytest.mark.skipif(no_gpu() is not None, reason=str(no_gpu()))
