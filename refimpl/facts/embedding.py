"""Embeddings: gradients, and what the inner products of sinusoidal ones are."""
import numpy as np

from refimpl import ops

from . import fact
from .gradients import pair


@pair(ops.embedding, ops.embedding_vjp, "table")
def _embedding(d):
    k = d.integer(1, 4)
    shape = [d.integer(1, 3) for _ in range(d.integer(0, 2))]
    indices = np.reshape([d.integer(0, k - 1) for _ in range(int(np.prod(shape)))], shape).astype(int)
    return {"indices": indices, "table": d.array(k, d.integer(1, 3))}


@pair(ops.sinusoidal_embedding, ops.sinusoidal_embedding_vjp, "t")
def _sinusoidal(d):
    return {"t": 10 * d.array(d.integer(1, 3)), "dim": d.integer(4, 9), "cos_first": d.choice([True, False]),
            "shift": d.choice([0, 1]), "max_period": d.choice([100.0, 1e4])}


@fact("F-F6", ops.sinusoidal_embedding, tolerance=1e-10)
def inner_product_depends_on_the_distance(d):
    """<PE(t), PE(t + k)> = sum_i cos(omega_i k), whatever t."""
    options = _sinusoidal(d)
    t, dim, shift = np.abs(options.pop("t")) * 100, options["dim"], options["shift"]
    k, half = d.real(-50, 50), dim // 2
    omega = options["max_period"] ** (-np.arange(half) / (half - shift))
    inner = np.sum(ops.sinusoidal_embedding(t, **options) * ops.sinusoidal_embedding(t + k, **options), axis=1)
    return np.max(abs(inner - np.sum(np.cos(omega * k))))
