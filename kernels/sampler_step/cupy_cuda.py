"""sampler_step and q_sample of the CUDA backends: the reference's arguments to the kernel's."""
import numpy as np

from kernels.cuda import NULL

FILE = "sampler_step/sampler_step.cu"
THREADS = 256
QUADS = {"vector": 1, "best": 2}  # blocks of four elements a thread


def sampler_step(device, x, e_c, e_u=None, w=1.0, *, a, b, lo=None, hi=None, c_x=0.0, c_0=0.0, c_e=0.0, history=(),
                 c_h=(), z=None, sigma=0.0, algorithm="best"):
    """refimpl.ops.sampler_step in one pass over memory. algorithm: naive, vector or best."""
    data = lambda name, value: NULL if value is None else device.data(name, value)
    x = device.data("x", x)
    n, size = x.shape[0], int(np.prod(x.shape[1:]))
    key, index, draw = z if isinstance(z, tuple) else (0, (), 0)
    on_device = lambda values, dtype: device.xp.asarray(np.ascontiguousarray(values, dtype))
    limit = lambda v, none: (NULL, none if v is None else v) if np.ndim(v) == 0 else (on_device(v, np.float32), 0.0)
    (lo, lo_all), (hi, hi_all) = limit(lo, -np.inf), limit(hi, np.inf)
    hs = [device.data("history", h) for h in history] + [NULL] * (3 - len(history))
    x_s, x0_hat = device.empty(x.shape), device.empty(x.shape)
    if size % 4 or not x.size:
        algorithm = "naive"
    quads = QUADS.get(algorithm)
    per_block = THREADS * 4 * quads if quads else THREADS
    numbers = [w, a, b, lo_all, hi_all, c_x, c_0, c_e, *c_h, *[0.0] * (3 - len(c_h)), sigma]
    if x.size:
        device.launch(FILE, f"sampler_step_{algorithm}", (-(-x.size // per_block),), (THREADS,), (
            x_s, x0_hat, x, data("e_c", e_c), data("e_u", e_u), lo, hi, *hs,
            NULL if isinstance(z, tuple) else data("z", z), on_device(index, np.uint32),
            np.uint32(key & 0xFFFFFFFF), np.uint32(key >> 32), np.uint32(draw),
            *(np.float32(v) for v in numbers), np.int32(n), np.int64(size)))
    return x_s, x0_hat
