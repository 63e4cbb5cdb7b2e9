"""The contracts of the sampling step and of its gradients."""
import numpy as np

from kernels.cases import counter, nonfinite, values
from kernels.contract import Contract, contract
from kernels.q_sample.contract import LARGE, counter_slips, noise_error, sample, shape_of
from refimpl import ops

FAMILIES = ("normal", "edge", "agreeing", "wide", "spike", "constant", "small")
HOST = ("lo", "hi")


def coefficients(d, family):
    """a, b, c_x, c_0, c_e, sigma: DDIM's and DDPM's between two random levels, Euler's in EDM's scale, or any."""
    if family == "integer":
        return [float(c) for c in d.rng.integers(-3, 4, 6)]
    kind = d.choice(("ddim", "ddpm", "euler", "any"))
    if kind == "any":
        return list(d.rng.normal(size=6))
    s_t, s_s = np.sort(d.rng.uniform(0.02, 0.999, 2))
    n_t, n_s = np.sqrt(1 - s_t**2), np.sqrt(1 - s_s**2)
    if kind == "ddim":
        return [1 / s_t, -n_t / s_t, 0.01 * d.rng.normal(), s_s, n_s, 0.1]
    if kind == "euler":
        high, low = d.real(1.0, 80.0), d.real(0.002, 1.0)
        return [1.0, -high, low / high, 1 - low / high, 0.01 * d.rng.normal(), low]
    alpha = (s_t / s_s) ** 2
    return [1 / s_t, -n_t / s_t, np.sqrt(alpha) * n_s**2 / n_t**2, s_s * (1 - alpha) / n_t**2, 1e-3,
            n_s / n_t * np.sqrt(1 - alpha)]


def limits(d, n, clip, each):
    """lo and hi: none, numbers or one per sample, or one of the two alone."""
    kind = d.choice(("none", "both", "each", "mixed", "low", "high")) if clip is None else "both" if clip else "none"
    if kind in ("each", "mixed") or (clip and each):
        high = np.round(d.rng.uniform(0.5, 3, n), 3)
        return -1.0 if kind == "mixed" else -high, high
    return {"none": (None, None), "both": (-1.0, 1.0), "each": (-1.0, 1.0), "low": (-1.0, None),
            "high": (None, 1.0)}[kind]


def cases(d, family, z=None, guidance=None, clip=None, each=None, history=None, spatial=None,
          large=None):
    """x, e_c, e_u, w, the coefficients, limits, history and noise."""
    shape = shape_of(d, family, spatial, large)
    a, b, c_x, c_0, c_e, sigma = coefficients(d, family)
    x, e_c = values(d, "normal" if family == "edge" else family, *shape), values(d, family, *shape)
    guided = d.choice((False, True)) if guidance is None else guidance
    e_u = values(d, family, *shape) if guided else None
    w = 1.0 if not guided else float(d.integer(0, 4)) if family == "integer" else round(d.real(-1.0, 8.0), 2)
    if guided and family == "agreeing":
        e_u = e_c * (1 + 1e-4 * values(d, "normal", *shape))
    lo, hi = limits(d, shape[0], clip, each)
    if family == "edge" and abs(a) > 1e-2:  # the estimate on the limit, give or take a few roundings
        e = e_c if e_u is None else e_u + w * (e_c - e_u)
        x = (d.rng.choice([-1.0, 1.0], shape) * (1 + 2.0**-22 * values(d, "normal", *shape)) - b * e) / a
    terms = d.choice((0, 0, 1, 2, 3)) if history is None else history
    kind = d.choice(("none", "array", "key")) if z is None else z
    kind = "array" if kind == "key" and family == "integer" else kind
    z = {"none": None, "array": values(d, family, *shape), "key": counter(d, shape[0])}[kind]
    if family == "nonfinite" and e_u is None and d.choice((False, True)):
        e_c = nonfinite(d, e_c)
    elif family == "nonfinite":
        x = nonfinite(d, x)
    if family == "integer" and hi is not None and not np.isscalar(hi):
        lo, hi = np.rint(lo), np.rint(hi)
    options = dict(a=a, b=b, lo=lo, hi=hi, c_x=c_x, c_0=c_0, c_e=c_e,
                   history=tuple(values(d, family, *shape) for _ in range(terms)),
                   c_h=tuple(float(np.rint(3 * c)) if family == "integer" else float(c)
                             for c in d.rng.normal(size=terms)), z=z, sigma=0.0 if z is None else abs(sigma))
    return (x, e_c, e_u, w), {k: float(v) if isinstance(v, np.floating) else v for k, v in options.items()}


def column(value, x, missing):
    value = np.asarray(missing if value is None else value, dtype=np.float64)
    return value.reshape(value.shape + (1,) * (x.ndim - 1)) if value.ndim else value


def estimate(args, o, arithmetic):
    """e, its size and error; the estimate before it is clipped, its error; and where the clip's side is in doubt.

    e = e_u + w (e_c - e_u): a difference, a rounded w, a product, an addition: 4u of its terms. a x + b e: a rounded
    coefficient, a product and an addition, and two more for (x - noise e)/signal: 5u of its terms. A clip to a rounded
    limit is off by u of it, with one to spare.
    """
    x, e_c, e_u, w = args
    u = arithmetic.u
    e = e_c if e_u is None else e_u + w * (e_c - e_u)
    size = np.abs(e) if e_u is None else (1 + abs(w)) * np.abs(e_u) + abs(w) * np.abs(e_c)
    e_error = (0 if e_u is None else 4) * u * size
    raw = o["a"] * x + o["b"] * e
    floor = 8 * arithmetic.tiny * (1 + abs(o["a"]) + abs(o["b"])) * (1 + abs(w))
    error = 5 * u * (np.abs(o["a"] * x) + np.abs(o["b"] * e)) + abs(o["b"]) * e_error + floor
    doubt, limit_error = np.zeros(x.shape, dtype=bool), np.zeros(x.shape)
    outside = np.zeros(x.shape, dtype=bool)
    for limit, sign in ((column(o["lo"], x, -np.inf), -1), (column(o["hi"], x, np.inf), 1)):
        over = sign * (raw - limit)
        rounding = np.where(np.isfinite(limit), 2 * u * np.abs(limit), 0)
        doubt |= np.abs(over) <= error + rounding
        outside |= over > error + rounding
        limit_error = np.maximum(limit_error, np.where(over >= -(error + rounding), rounding, 0))
    return e, e_error, raw, error, doubt, outside, limit_error, floor


def bound(args, options, outputs, arithmetic, proof, chain):
    """x0_hat: its estimate's error where it is not clipped for certain. x_s: one rounding of each coefficient and
    product, one for each addition, two to spare, and the errors of x0_hat, e and z in proportion."""
    o, u, x = options, arithmetic.u, args[0]
    e, e_error, _, error, _, outside, limit_error, floor = estimate(args, o, arithmetic)
    x0_error = np.where(outside, 0, error) + limit_error
    z = o["z"] if o["sigma"] else None
    made = 0 if z is None else ops.normal(*z, x.shape[1:], dtype=np.float64) if isinstance(z, tuple) else z
    terms = [o["c_x"] * x, o["c_0"] * outputs[1], o["c_e"] * e, o["sigma"] * made,
             *(c * h for c, h in zip(o["c_h"], o["history"]))]
    total = sum(np.abs(t) for t in terms)
    noisy = o["sigma"] * noise_error(z, x, arithmetic)
    x_s = (len(terms) + 3) * u * total + abs(o["c_0"]) * x0_error + abs(o["c_e"]) * e_error + noisy
    return 1.001 * x_s + floor * (1 + abs(o["c_0"]) + abs(o["c_e"])) + 8 * arithmetic.tiny, 1.001 * x0_error + floor


def slips(args, options):
    """No clip, guidance the other way round, mistakes in the noise's counter."""
    yield "as if nothing were clipped", args, options | {"lo": None, "hi": None}
    x, e_c, e_u, w = args
    if e_u is not None:
        yield "as if guidance were e_c + w (e_c - e_u)", (x, e_c, e_u, w + 1), options
    for text, z in counter_slips(options["z"]):
        yield text, args, options | {"z": z}


def flops(args, options):
    """Guidance 3, estimate 3, two operations a term; forming noise and clipping are not counted."""
    terms = 3 + len(options.get("history", ())) + (options.get("sigma", 0) != 0)
    return args[0].size * ((0 if args[2] is None else 3) + 3 + 2 * terms - 1)


def moved(args, options):
    """x, e_c, e_u, history and z, where they are arrays, read once; x_s and x0_hat written once."""
    noise = options.get("sigma", 0) != 0 and isinstance(options.get("z"), np.ndarray)
    return args[0].nbytes * (2 + 2 + (args[2] is not None) + len(options.get("history", ())) + noise)


def slices(args, options, budget):
    """One sample at a time."""
    for n in range(args[0].shape[0]):
        yield (tuple(sample(a, n) for a in args), {k: v if k == "c_h" else sample(v, n) for k, v in options.items()},
               (np.s_[n:n + 1],) * 2)


contract(Contract("sampler_step", ops.sampler_step, ("x_s", "x0_hat"), FAMILIES, cases, dict.fromkeys(("direct",
                  "fused"), bound), flops, moved, slices, host=HOST, slips=slips, large=LARGE))


def vjp_cases(d, family, **where):
    """(dx_s, dx0_hat) before the arguments of the step."""
    args, options = cases(d, "normal" if family == "nonfinite" else family, **where)
    inner = "normal" if family in ("edge", "agreeing") else family
    dy = tuple(values(d, inner, *args[0].shape) for _ in range(2))
    return ((nonfinite(d, dy[0]), dy[1]) if family == "nonfinite" else dy, *args), options


def vjp_bound(args, options, outputs, arithmetic, proof, chain):
    """g = dx0 + c_0 dx_s to 3u, in doubt on the clip's edge; dx, de to 4u more, de_c and de_u to 2 and 4."""
    (dx_s, dx0), *rest = args
    o, u, w = options, arithmetic.u, rest[3]
    _, _, _, _, doubt, outside, _, floor = estimate(rest, o, arithmetic)
    size = np.where(outside, 0, np.abs(dx0) + abs(o["c_0"]) * np.abs(dx_s))
    g_error = 3 * u * size + np.where(doubt, 4 * size, 0)
    floor = floor * (1 + abs(o["c_0"]) + abs(o["c_x"]) + abs(o["c_e"]))

    def error(c, k):
        return 4 * u * (abs(c) * np.abs(dx_s) + abs(k) * size) + abs(k) * g_error + floor

    dx, de = error(o["c_x"], o["a"]), error(o["c_e"], o["b"])
    if rest[2] is None:
        return 1.001 * dx, 1.001 * de, None
    reach = abs(o["c_e"]) * np.abs(dx_s) + abs(o["b"]) * size
    return (1.001 * dx, 1.001 * (abs(w) * (de + 2 * u * reach)) + floor,
            1.001 * (abs(1 - w) * de + u * (abs(w) + 3 * abs(1 - w)) * reach) + floor)


def vjp_flops(args, options):
    """Guidance and estimate again, g 2, dx and de 3 each."""
    return args[1].size * (11 if args[3] is None else 16)


def vjp_moved(args, options):
    """Both cotangents, x, e_c and e_u read once; dx, de_c and de_u written once."""
    return args[1].nbytes * (6 if args[3] is None else 8)


def vjp_slices(args, options, budget):
    """One sample at a time."""
    for n in range(args[1].shape[0]):
        part = np.s_[n:n + 1]
        yield (tuple(sample(a, n) for a in args), {k: v if k == "c_h" else sample(v, n) for k, v in options.items()},
               (part, part, None if args[3] is None else part))


contract(Contract("sampler_step_vjp", ops.sampler_step_vjp, ("dx", "de_c", "de_u"), FAMILIES, vjp_cases,
                  dict.fromkeys(("direct", "fused"), vjp_bound), vjp_flops, vjp_moved, vjp_slices, host=HOST,
                  large=LARGE))
