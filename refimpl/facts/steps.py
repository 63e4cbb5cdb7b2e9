"""Inputs for the gradients of a diffusion step, and its special cases."""
import numpy as np

from refimpl import ops

from . import fact
from .gradients import pair


def _x(d):
    return 2 * d.array(d.integer(1, 3), d.integer(1, 4))


def _level(d, x):
    """A signal and a noise per sample."""
    angle = np.array([d.real(0.1, 1.4) for _ in range(x.shape[0])])
    return np.cos(angle), np.sin(angle)


@pair(ops.q_sample, ops.q_sample_vjp, "x0", "z")
def _q_sample(d):
    x0 = _x(d)
    signal, noise = _level(d, x0)
    return {"x0": x0, "signal": signal, "noise": noise, "z": d.array(*x0.shape)}


@pair(ops.sampler_step, ops.sampler_step_vjp, "x", "e_c", "e_u")
def _sampler_step(d):
    x, terms = _x(d), d.integer(0, 2)
    hi = d.choice([None, d.real(0.1, 2), np.array([d.real(0.1, 2) for _ in range(x.shape[0])])])
    coefficients = {name: d.real(-2, 2) for name in ("w", "a", "b", "c_x", "c_0", "c_e", "sigma")}
    z = d.choice([d.array(*x.shape), (d.key(), np.arange(x.shape[0]), d.integer(0, 9))])
    return coefficients | {"x": x, "e_c": d.array(*x.shape), "e_u": d.array(*x.shape), "lo": -1.0, "hi": hi, "z": z,
                           "history": [d.array(*x.shape) for _ in range(terms)],
                           "c_h": [d.real(-2, 2) for _ in range(terms)]}


@pair(ops.noise_mse, ops.noise_mse_vjp, "e", "z")
def _noise_mse(d):
    e = _x(d)
    return {"e": e, "z": d.array(*e.shape)}


@fact("simplified loss", ops.noise_mse, ops.noise_mse_vjp, ops.normal, tolerance=1e-12)
def mean_of_the_samples_losses(d):
    """Their mean is the mean squared error of the batch, gradients included; z may be (key, index, draw)."""
    e, key, draw = _x(d), d.key(), d.integer(0, 999)
    index = np.array([d.integer(0, 10**6) for _ in range(e.shape[0])])
    z = ops.normal(key, index, draw, e.shape[1:], dtype=e.dtype)
    share = np.full(e.shape[0], 1 / e.shape[0])
    (de, dz), (de_keyed, none) = (ops.noise_mse_vjp(share, e, noise) for noise in (z, (key, index, draw)))
    losses = ops.noise_mse(e, z)
    return max(abs(share @ losses - ops.mse(e, z)), np.max(abs(losses - ops.noise_mse(e, (key, index, draw)))),
               *(np.max(abs(a - b)) for a, b in zip((de, dz), ops.mse_vjp(1.0, e, z))),
               np.max(abs(de - de_keyed)), float(none is not None))


@fact("there and back", ops.q_sample, ops.sampler_step, tolerance=1e-12)
def estimate_inverts_noising(d):
    """With the true noise as e, x0_hat = (x_t - noise z)/signal is x0, and x_s is x0 at any other level."""
    x0 = _x(d)
    z = d.array(*x0.shape)
    (signal, noise), (signal_s, noise_s) = ((np.cos(a), np.sin(a)) for a in (d.real(0.1, 1.4), d.real(0, 1.4)))
    x_s, x0_hat = ops.sampler_step(ops.q_sample(x0, signal, noise, z), z, a=1 / signal, b=-noise / signal,
                                   c_0=signal_s, c_e=noise_s)
    return max(np.max(abs(x0_hat - x0)), np.max(abs(x_s - ops.q_sample(x0, signal_s, noise_s, z))))


@fact("formula", ops.sampler_step, tolerance=1e-12)
def step_by_the_docstring(d):
    """x_s = c_x x + c_0 x0_hat + c_e e + sum c_h history + sigma z, e = (1 - w) e_u + w e_c, term by term."""
    inputs = _sampler_step(d)
    x, e_c, e_u, z, lo, hi, history, c_h = (inputs[n] for n in ("x", "e_c", "e_u", "z", "lo", "hi", "history", "c_h"))
    w, a, b, c_x, c_0, c_e, sigma = (inputs[n] for n in ("w", "a", "b", "c_x", "c_0", "c_e", "sigma"))
    z = ops.normal(*z, x.shape[1:], dtype=x.dtype) if isinstance(z, tuple) else z
    e = (1 - w) * e_u + w * e_c
    x0 = np.clip(a * x + b * e, lo, hi if hi is None else np.reshape(hi, (-1, 1)))
    terms = [(c_x, x), (c_0, x0), (c_e, e), (sigma, z), *zip(c_h, history)]
    x_s, x0_hat = ops.sampler_step(**inputs)
    return max(np.max(abs(x_s - sum(c * term for c, term in terms))), np.max(abs(x0_hat - x0)))


@fact("guidance", ops.sampler_step, ops.sampler_step_vjp, tolerance=1e-12)
def guidance_of_one_is_the_condition(d):
    """w = 1 is the conditional prediction alone and w = 0 the unconditional one, gradients included."""
    inputs = _sampler_step(d)
    x, e_c, e_u = (inputs.pop(name) for name in ("x", "e_c", "e_u"))
    inputs.pop("w")
    dy = d.array(*x.shape), d.array(*x.shape)
    error = 0.0
    for w, e in ((1.0, e_c), (0.0, e_u)):
        both, alone = ops.sampler_step(x, e_c, e_u, w, **inputs), ops.sampler_step(x, e, **inputs)
        dx, de_c, de_u = ops.sampler_step_vjp(dy, x, e_c, e_u, w, **inputs)
        dx_alone, de, none = ops.sampler_step_vjp(dy, x, e, **inputs)
        kept, other = (de_c, de_u) if w else (de_u, de_c)
        error = max(error, *(np.max(abs(p - q)) for p, q in zip((*both, dx, kept), (*alone, dx_alone, de))),
                    np.max(abs(other)), float(none is not None))
    return error


@fact("clip", ops.sampler_step, ops.sampler_step_vjp, tolerance=0)
def clipped_estimates_have_no_gradient(d):
    """x0_hat is clipped to [lo, hi]; where it is, its gradient in x and e is exactly 0."""
    x, e = _x(d), _x(d)[:1, :1]
    e, hi = e + 0 * x, d.real(0.1, 1)
    free = ops.sampler_step(x, e, a=1, b=1)[1]
    bounds = {"a": 1, "b": 1, "lo": -0.5, "hi": hi}
    dx, de, _ = ops.sampler_step_vjp((0 * x, 1 + 0 * x), x, e, **bounds)
    outside = (free < -0.5) | (free > hi)
    return max(np.max(abs(ops.sampler_step(x, e, **bounds)[1] - np.clip(free, -0.5, hi))),
               np.max(abs(dx - ~outside)), np.max(abs(de - ~outside)))


@fact("noise", ops.q_sample, ops.sampler_step, ops.normal, tolerance=0)
def noise_by_key(d):
    """z as (key, index, draw) is normal(key, index, draw), formed inside."""
    x0, key, draw = _x(d), d.key(), d.integer(0, 999)
    index = np.array([d.integer(0, 10**6) for _ in range(x0.shape[0])])
    z = ops.normal(key, index, draw, x0.shape[1:], dtype=x0.dtype)
    steps = [ops.sampler_step(x0, x0, a=1, b=0, c_x=1, sigma=0.5, z=noise)[0] for noise in (z, (key, index, draw))]
    return max(np.max(abs(ops.q_sample(x0, 0.6, 0.8, z) - ops.q_sample(x0, 0.6, 0.8, (key, index, draw)))),
               np.max(abs(steps[0] - steps[1])))
