"""Wrong noise and wrong sampling steps, entered in the zoo."""
import numpy as np
from zoo import wrong

from refimpl import ops


def _noise(z, shape, dtype, multiplier=0xD2511F53, rounds=10, textbook=False):
    """ops.normal with one thing changed."""
    key, index, draw = z
    size = int(np.prod(shape))
    c = [np.arange(-(-size // 4), dtype=np.uint64)[None, :], np.asarray(index, np.uint64)[:, None],
         np.uint64(draw), np.uint64(0)]
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(rounds):
        p0, p1 = np.uint64(multiplier) * c[0], np.uint64(0xCD9E8D57) * c[2]
        low, high = np.uint64(0xFFFFFFFF), np.uint64(32)
        c = [(p1 >> high) ^ c[1] ^ np.uint64(k0), p1 & low, (p0 >> high) ^ c[3] ^ np.uint64(k1), p0 & low]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    words = np.stack(np.broadcast_arrays(*c), axis=-1).reshape(len(index), -1)
    u = (np.float32(words[:, 0::2]) + np.float32(0.5)) * np.float32(2**-32) if textbook else \
        1 - (words[:, 0::2] >> np.uint64(8)) * 2.0**-24
    turns = words[:, 1::2]
    theta = np.pi / 2 * ((turns >> np.uint64(30)) + ((turns >> np.uint64(6)) & np.uint64(2**24 - 1)) * 2.0**-24)
    with np.errstate(all="ignore"):
        r = np.sqrt(-2 * np.log(u))
    z = np.stack([r * np.cos(theta), r * np.sin(theta)], axis=-1).reshape(len(index), -1)[:, :size]
    return z.reshape(len(index), *shape).astype(dtype)


@wrong("q_sample", "value", defect="a wrong Philox constant", where={"z": "key"})
def wrong_constant(x0, signal, noise, z):
    return ops.q_sample(x0, signal, noise, _noise(z, x0.shape[1:], x0.dtype, multiplier=0xD2511F55))


@wrong("q_sample", "value", defect="nine Philox rounds", where={"z": "key"})
def nine_rounds(x0, signal, noise, z):
    return ops.q_sample(x0, signal, noise, _noise(z, x0.shape[1:], x0.dtype, rounds=9))


@wrong("q_sample", "value", "non-finite", defect="the uniform of 32 bits in float32, coarse near 1", where={"z": "key"})
def textbook_uniform(x0, signal, noise, z):
    return ops.q_sample(x0, signal, noise, _noise(z, x0.shape[1:], x0.dtype, textbook=True))


@wrong("sampler_step", "value", defect="a sample's noise depends on its place in the batch", where={"z": "key"})
def by_place(x, e_c, e_u=None, w=1.0, *, z, **options):
    return ops.sampler_step(x, e_c, e_u, w, z=(z[0], np.arange(x.shape[0]), z[2]), **options)


@wrong("sampler_step", "non-finite", defect="a clip that eats NaN")
def eats_nan(x, e_c, e_u=None, w=1.0, *, lo=None, hi=None, **options):
    x = np.where(np.isnan(x), 0, x).astype(x.dtype) if lo is not None or hi is not None else x
    return ops.sampler_step(x, e_c, e_u, w, lo=lo, hi=hi, **options)


@wrong("sampler_step", "value", "integer", defect="guidance from the conditional side: weight w + 1")
def one_more(x, e_c, e_u=None, w=1.0, **options):
    return ops.sampler_step(x, e_c, e_u, w + 1, **options)


@wrong("sampler_step", "value", "integer", defect="the first sample's limits for all")
def first_limits(x, e_c, e_u=None, w=1.0, *, lo=None, hi=None, **options):
    lo, hi = (v if v is None or np.isscalar(v) or not len(v) else float(v[0]) for v in (lo, hi))
    return ops.sampler_step(x, e_c, e_u, w, lo=lo, hi=hi, **options)


@wrong("sampler_step_vjp", "value", "integer", defect="the gradient passes where the estimate is clipped")
def through_clip(dy, x, e_c, e_u=None, w=1.0, *, lo=None, hi=None, **options):
    return ops.sampler_step_vjp(dy, x, e_c, e_u, w, **options)
