"""Acceptance of the likelihood families: each function trains, measures, and returns figures and requirements.

A result is a dict of figures and `passed`, a dict from a requirement in words to whether it holds. `steps` shortens the
training for a smoke test, whose figures mean nothing but must be finite.
"""
import functools
import math

import numpy as np

from refimpl import data, ops, score, systems, train
from refimpl.commands import in_turn
from refimpl.equations import elbo, metrics, quantise
from refimpl.facts.flows import jacobian_log_det
from refimpl.nets import flow as nets
from refimpl.ops.random import fold

HELD_OUT = 200  # training samples set aside for early stopping


def trained(name, spec="digits", seed=0, every=0, backend="reference", **changes):
    """Data, System and Run after training; with `every`, the run with the best held-out nll instead (early stopping).

    The held-out samples are the last HELD_OUT of the training set; the test set has no part in it.
    """
    d = data.load(spec)
    if every:
        held, labels = d.train[-HELD_OUT:], None if d.train_labels is None else d.train_labels[:-HELD_OUT]
        d = d._replace(train=d.train[:-HELD_OUT], train_labels=labels)
    config = systems.configure(name, d, changes)
    system = systems.build(name, config, d)
    run, best, by = train.begin(system, seed), (math.inf, None), train.backend(backend)
    for step in range(config["steps"]):
        run, _ = train.advance(system, run, train.batch_at(d, seed, step, config["batch"]), seed, by)
        if every and (step + 1) % every == 0:
            cost = float(np.mean(system.nll(train.averaged(run), run.state, held, 1, ops)))
            best = min(best, (cost, run), key=lambda pair: pair[0])
    return d, system, best[1] or run


def test_nll(d, system, run, **options):
    """nll of the test set, with its interval."""
    return score.mean_and_interval(system.nll(train.averaged(run), run.state, d.test, 2, ops, **options))


@functools.cache
def judge(spec):
    """The judge of a data set, fitted once."""
    return score.judge(data.load(spec))


def samples_score(d, system, run, seed=0, scored=True):
    """The protocol's figures of one set of samples."""
    if not scored:
        return {}
    n = score.count(d)
    labels = in_turn(system, n)
    x = system.sample(train.averaged(run), run.state, n, fold(seed, train.SAMPLE), ops, labels)
    return score.score(x, labels, d, judge(d.spec))


def accepted(f, fd, recall=0.6):
    """Requirements by FDfeat, which always come with recall and the distance to the training set."""
    return {f"FDfeat at most {fd}": f["fd"] <= fd, f"recall at least {recall}": f["recall"] >= recall,
            "no nearer to training images than .8 of test images": f["distance"] >= 0.8 * score.REAL_DISTANCE}


def result(figures, **passed):
    """A result: requirements in words, underscores for blanks."""
    return figures | {"passed": {k.replace("_", " "): bool(v) for k, v in passed.items()}}


def autoencoder(steps=2000):
    """D1: a linear autoencoder of digits spans their first principal components (largest angle < 1e-3)."""
    from scipy.linalg import subspace_angles

    k, whole = 4, len(data.load("digits").train)  # whole batches: noise in the gradient would keep it from settling
    d, _, run = trained("autoencoder", depth=0, latent=k, rate=0.1, batch=whole, steps=steps)
    x = d.train.reshape(whole, -1).astype(np.float64)
    _, _, components = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    decoder = train.averaged(run)["autoencoder"]["decoder.layers.0.weight"]
    angle = float(np.max(subspace_angles(decoder.astype(np.float64), components[:k].T)))
    return result({"angle": angle}, **{"angle below 1e-3": angle < 1e-3})


def vae(steps=3000, scored=True):
    """D2: the bound below exact PCA's NLL on test digits, with as many latents; Var z = exp(logvar)."""
    d, system, run = trained("vae", every=max(1, steps // 15), steps=steps)
    flat = lambda x: x.reshape(len(x), -1).astype(np.float64)
    pca = -elbo.linear_gaussian_evidence(flat(d.test), *elbo.probabilistic_pca(flat(data.load("digits").train), 8))
    bound, interval = test_nll(d, system, run, importance=1, discrete=False)
    tight, _ = test_nll(d, system, run, importance=64, discrete=False)
    bits, bits_interval = test_nll(d, system, run)
    return result({"negative elbo, nats": bound, "interval": interval, "iwae-64, nats": tight,
                   "pca nll, nats": float(np.mean(pca)), "bits/dim": bits, "bits interval": bits_interval}
                  | samples_score(d, system, run, scored=scored), negative_elbo_below_pca=bound < np.mean(pca))


def vqvae(steps=2000, scored=True):
    """D3: perplexity above K/4 on test digits."""
    d, system, run = trained("vqvae", steps=steps)
    used = perplexity(d, system, run, 64)
    return result({"perplexity": used, "K": 64, "error": reconstruction_error(d, system, run)}
                  | samples_score(d, system, run, scored=scored), perplexity_above_a_quarter=used > 16)


def perplexity(d, system, run, K):
    """Perplexity of the codes of test images."""
    params, kept = train.averaged(run)["autoencoder"], run.state["autoencoder"]
    z = system.encode({"autoencoder": params}, {"autoencoder": kept}, d.test, ops)
    return quantise.perplexity(quantise.nearest_code(z, kept["codebook"]), K)


def reconstruction_error(d, system, run):
    """Squared error per test image of decode(encode(x))."""
    params = train.averaged(run)
    x = system.decode(params, run.state, system.encode(params, run.state, d.test, ops), ops)
    return float(np.mean(np.sum((x - d.test) ** 2, axis=(1, 2, 3))))


def vqvae2(steps=2000):
    """D4: two levels reconstruct test digits better than one level with as many bits."""
    errors = {name: reconstruction_error(*trained(name, steps=steps)) for name in ("vqvae", "vqvae2")}
    return result({"one level": errors["vqvae"], "two levels": errors["vqvae2"], "bits per image": 8 * 6},
                  two_levels_better=errors["vqvae2"] < errors["vqvae"])


def vqgan(steps=2000, scored=True):
    """D5: FDfeat of samples below VQ-VAE's with the same codes, coder, prior and steps, for each of 3 training seeds."""
    pairs = []
    for seed in range(3 if scored else 1):
        pairs.append({})
        for name in ("vqvae", "vqgan"):
            d, system, run = trained(name, seed=seed, steps=steps, positions=2)
            sets = [samples_score(d, system, run, draw) for draw in range(3 if scored else 0)]
            figures = (score.mean(sets) if scored else {}) | {"error": reconstruction_error(d, system, run)}
            pairs[-1] |= {f"{name} {k}": v for k, v in figures.items()}
    figures = score.mean(pairs)
    if not scored:
        return result(figures)
    each = {f"{name} fd, seed {k}": pair[f"{name} fd"] for k, pair in enumerate(pairs) for name in ("vqvae", "vqgan")}
    return result(figures | each, fd_below_vqvae_for_each_seed=all(p["vqgan fd"] < p["vqvae fd"] for p in pairs))


def dvae(steps=2000, scored=True):
    """D6: the prior's nats per code given the caption below the unigram's, on test digits; tau to 0 gives one-hot."""
    d, system, run = trained("dvae", steps=steps)
    params = train.averaged(run)
    z = system.encode(params, run.state, d.test, ops)
    codes, train_codes = (np.argmax(a, axis=-1) for a in (z, system.encode(params, run.state, d.train, ops)))
    batch = train.Batch(d.test, d.test_labels)
    nats = float(system.players["prior"].loss_and_grads(params, run.state, batch, 0, ops)[0])
    p = (np.bincount(train_codes.reshape(-1), minlength=64) + 1) / (train_codes.size + 64)
    unigram = float(-np.mean(np.log(p[codes])))
    bits, interval = test_nll(d, system, run)
    return result({"bits/dim": bits, "interval": interval, "prior, nats per code": nats, "unigram, nats per code": unigram,
                   "perplexity": quantise.perplexity(codes, 64), "error": reconstruction_error(d, system, run)}
                  | samples_score(d, system, run, scored=scored), prior_below_unigram=nats < unigram)


def flow_exactness(kind):
    """Errors of the inverse and of the log-determinant, against a complex-step Jacobian, in float64."""
    shape = (1, 4, 4)
    config, rng = nets.FlowConfig(shape, kind, 2, 2 if kind != "nice" else 1, width=8), np.random.default_rng(0)
    x = rng.standard_normal((40, *shape))
    params, state = nets.flow_init(0, config, x, ops)
    params = {k: p + (0.02 if k.endswith(("lower", "upper")) else 0.2) * rng.standard_normal(p.shape)
              for k, p in params.items()}
    z, log_det, _ = nets.forward(params, state, x[:1], config=config, ops=ops)
    cast = lambda d, dtype: {k: v.astype(dtype) for k, v in d.items()}
    exact = jacobian_log_det(lambda v: nets.forward(cast(params, v.dtype), cast(state, v.dtype), v, config=config,
                                                    ops=ops)[0], x[:1])
    back = nets.inverse(params, state, z, config=config, ops=ops)
    return {"inverse": float(np.max(abs(back - x[:1]))), "log-determinant": float(abs(log_det[0] - exact))}


def digits_flow(name, steps, scored, limit=None):
    """Bits per dimension of test digits with early stopping, and exactness."""
    d, system, run = trained(name, every=max(1, steps // 12), steps=steps)
    bits, interval = test_nll(d, system, run)
    figures = {"bits/dim": bits, "interval": interval} | samples_score(d, system, run, scored=scored)
    exact = flow_exactness(name)
    passed = {"inverse to 1e-12": exact["inverse"] < 1e-12, "determinant to 1e-10": exact["log-determinant"] < 1e-10}
    if limit:
        passed[f"bits/dim below {limit}"] = bits < limit
    return result(figures | exact, **passed)


def nice(steps=600, scored=True):
    """E1: inverse to 1e-12, log-determinant against the complex-step Jacobian; bits/dim as a figure."""
    return digits_flow("nice", steps, scored)


def realnvp(steps=400, points=2000, scored=True):
    """E2: digits below 2.73 bits/dim, and lower still with learnt noise; moons below a 4-component mixture."""
    from sklearn.mixture import GaussianMixture

    out = digits_flow("realnvp", steps, scored, 2.73)
    learnt = trained("realnvp", every=max(1, steps // 12), steps=steps, dequantise="variational")
    out["variational bits/dim"], out["variational interval"] = test_nll(*learnt)
    out["passed"]["variational dequantisation costs less"] = out["variational bits/dim"] < out["bits/dim"]
    d, system, run = trained("realnvp", "moons", steps=points)
    nats, interval = test_nll(d, system, run)
    mixture = -GaussianMixture(4, random_state=0, n_init=3).fit(d.train).score(d.test)
    out["passed"]["moons below 4 components"] = bool(nats < mixture)
    return out | {"moons, nats": nats, "moons interval": interval, "mixture, nats": float(mixture)}


def glow(steps=400, scored=True):
    """E3: as RealNVP on digits."""
    return digits_flow("glow", steps, scored, 2.73)


def ebm(steps=2000, scored=True):
    """E4: Z by a grid in the plane makes the density integrate to 1, and the model beats one Gaussian on moons."""
    d, system, run = trained("ebm", "moons", steps=steps)
    nats, interval = test_nll(d, system, run)
    g = np.linspace(-12, 12, 201)
    grid = np.stack(np.meshgrid(g, g), axis=-1).reshape(-1, 2).astype(np.float32)
    mass = float(np.sum(np.exp(-system.nll(train.averaged(run), run.state, grid, 0, ops)))) * (g[1] - g[0]) ** 2
    cov, gap = np.cov(d.train.T), d.test - d.train.mean(axis=0)
    gaussian = float(np.mean(np.sum(gap @ np.linalg.inv(cov) * gap, axis=1)) / 2
                     + np.linalg.slogdet(2 * math.pi * cov)[1] / 2)
    x = system.sample(train.averaged(run), run.state, 1000, 3, ops, steps=500 if scored else 2)
    w1 = float(np.mean([metrics.wasserstein_1d(x[:, i], d.test[:1000, i]) for i in range(2)]))
    return result({"nats": nats, "interval": interval, "one Gaussian, nats": gaussian, "mass": mass,
                   "marginal Wasserstein": w1},
                  integrates_to_1=abs(mass - 1) < 1e-4, below_one_gaussian=nats < gaussian)


ACCEPTANCE = {f.__name__: f for f in (autoencoder, vae, vqvae, vqvae2, vqgan, dvae, nice, realnvp, glow, ebm)}
