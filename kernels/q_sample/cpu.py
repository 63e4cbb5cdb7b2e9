"""q_sample on the CPU: the sampling step's pass over memory, with its coefficients of x and z alone."""
from ..arrays import write
from ..contract import Kernel, register
from ..sampler_step.cpu import launch


def q_sample(out, x0, signal, noise, z):
    """Fill out, x_t."""
    if x0.size:
        inputs = (x0, None if isinstance(z, tuple) else z)
        write(out, "C", inputs, lambda y: launch(y, y, x0, None, None, z, (), (0, 0, 0, 0, 0, signal, 0, 0, noise)))


register(Kernel("q_sample", "cpu", "fused", q_sample))
