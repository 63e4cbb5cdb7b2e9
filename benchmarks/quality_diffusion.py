"""Acceptance of the diffusion systems: each function trains, measures, and returns figures and requirements.

Results as in quality_latent: a dict of figures and `passed`. `steps` shortens the training for a smoke test, whose
figures mean nothing but must be finite; `most` is how many samples are compared, all that the protocol asks for if None.
"""
import math
import time

import numpy as np

from refimpl import data, ops, score, systems, train
from refimpl.commands import computer, in_turn
from refimpl.equations import mixture
from refimpl.ops.random import fold, normal, uniform
from refimpl.systems import ddpm, drawing, ncsn, prior

from .quality_latent import accepted, judge, result

MEANS, VARIANCE = np.array([[-1.0, -0.5], [1.0, -0.6], [0.0, 1.0]]), 0.09
WEIGHTS = np.array([0.3, 0.3, 0.4])
MLP = {"net": "mlp", "steps": 4000}


def points(n=8192):
    """Data of a Gaussian mixture in the plane, whose density and scores are known, and the mixture."""
    m = mixture.mixture(WEIGHTS, MEANS, VARIANCE)
    draw = lambda key, n: mixture.sample_mixture(m, uniform(key, np.arange(n), 0, (), np.float64),
                                                 normal(key, np.arange(n), 0, (2,), np.float64))
    train_set, test = draw(1, n).astype(np.float32), draw(2, 2048).astype(np.float32)
    return data.Data("mixture", train_set, None, test, None, 0, None), m


def trained(name, d, backend=None, **changes):
    """System and Run after training by a backend; None: the fastest that works here."""
    config = systems.configure(name, d, changes)
    system, run, fast = systems.build(name, config, d), None, ops if config["net"] == "mlp" else computer(backend)[1]
    run = train.begin(system, 0)
    for step in range(config["steps"]):
        run, _ = train.advance(system, run, train.batch_at(d, 0, step, config["batch"]), 0, fast)
    return system, run, fast


def figures(d, system, run, by, seeds=3, most=None, **options):
    """The protocol's figures, mean over sampling seeds, classes in turn."""
    n = most or score.count(d)
    labels, sets = in_turn(system, n), []
    few = d if most is None else d._replace(test=d.test[:n], test_labels=d.test_labels[:n])
    for seed in range(seeds):
        x = system.sample(train.averaged(run), run.state, n, fold(seed, train.SAMPLE), by, labels, **options)
        sets.append(score.score(x, labels, few, judge(d.spec)))
    return score.mean(sets)


def on_digits(name, fd, **changes):
    """An acceptance function: a perceptron of this system on digits, judged by its samples."""
    def run(steps=None, most=None):
        d = data.load("digits")
        system, state, by = trained(name, d, **MLP | changes | ({} if steps is None else {"steps": steps}))
        f = figures(d, system, state, by, most=most)
        return result(f, **accepted(f, fd))

    run.__doc__ = f"{name}, a perceptron on digits: FDfeat <= {fd}, recall, distance to the training set."
    return run


def ncsn_scores(steps=None):
    """F1: the score of a known mixture, off by less than 5 % in root mean square over the rungs; Langevin samples."""
    d, m = points()
    system, run, by = trained("ncsn", d, **{"batch": 512, "steps": 4000} if steps is None else {"steps": steps})
    params, config = train.averaged(run)["model"], systems.configure("ncsn", d, {})
    model = ncsn.model(config, d)
    rungs = model.levels(config["scales"])[:-1:2, 1]
    _, net = prior.network(config, d)
    wrong = right = 0.0
    for k, sigma in enumerate(rungs):
        x = (d.test + sigma * normal(3, np.arange(len(d.test)), k, (2,), np.float64)).astype(np.float32)
        told = np.full(len(x), model.told(1.0, sigma))
        e, _ = net(params, x * np.float32(model.scale(1.0, sigma)), told, None, by)
        truth = mixture.mixture_score(x.astype(np.float64), m, 1.0, float(sigma))
        wrong += sigma**2 * np.mean((-e / sigma - truth) ** 2)
        right += sigma**2 * np.mean(truth**2)
    error = math.sqrt(wrong / right)
    x = system.sample({"model": params}, run.state, 2000, 5, by)
    near = np.argmin(np.sum((x[:, None] - MEANS) ** 2, axis=2), axis=1)
    share = float(np.max(abs(np.bincount(near, minlength=3) / len(x) - WEIGHTS)))
    return result({"score error": error, "modes' shares off by": share},
                  **{"score error below 5 %": error < 0.05, "modes' shares within .05": share < 0.05})


def improved_ddpm(steps=None, terms=300, most=597):
    """F3: the bound on test digits, in bits/dim, is below that of a network trained alike with either fixed variance."""
    d, found = data.load("digits"), {}
    for name in ("ddpm", "improved-ddpm"):
        system, run, by = trained(name, d, **MLP | ({} if steps is None else {"steps": steps}))
        for variance in ("learned",) if name == "improved-ddpm" else ("small", "large"):
            found[variance] = np.asarray(system.nll(train.averaged(run), run.state, d.test[:most], 2, by,
                                                    variance=variance, terms=terms))
    f = figures(d, system, run, by, most=None if most == 597 else most)
    best = min(("small", "large"), key=lambda v: found[v].mean())
    gain, interval = score.mean_and_interval(found[best] - found["learned"])
    bits = {f"bits/dim, {k} variance": float(v.mean()) for k, v in found.items()}
    return result(bits | {"gain": gain, "interval": interval} | f,
                  **{"learned variance below both fixed ones": gain > 0, "by more than its interval": gain > interval})


def score_sde(steps=None, most=2048):
    """F4: trained on a known mixture, each SDE's likelihood along its ODE is within .05 nats of the entropy."""
    d, m = points()
    d = d._replace(test=d.test[:most])
    truth, _ = score.mean_and_interval(-mixture.mixture_log_density(d.test.astype(np.float64), m, 1.0, 0.0))
    f = {"entropy, nats": truth}
    for sde in ("vp", "ve", "subvp"):
        system, run, by = trained("score-sde", d, sde=sde, last=1e-2, sigma_min=0.03,
                                  **{"width": 128, "steps": 4000} if steps is None else {"steps": steps})
        f[f"{sde}, nats"] = float(np.mean(system.nll(train.averaged(run), run.state, d.test, 3, by)))
    return result(f, **{f"{sde} within .05 nats": abs(f[f"{sde}, nats"] - truth) < 0.05 for sde in ("vp", "ve", "subvp")})


def ddpm_samplers(steps=None, most=None, ancestral=1000):
    """F5, F7, G2 on one U-Net: DDIM-20 beside ancestral sampling, DPM-Solver++ at 10 beside DDIM at 50, guidance, and the
    share of DDIM's time at T = 1000 that is not the network's."""
    d = data.load("digits")
    system, run, by = trained("ddpm", d, **({} if steps is None else {"steps": steps}))
    draw = lambda seeds=3, **options: figures(d, system, run, by, seeds, most, **options)
    found = {"ddim 50": draw(), "ddim 20": draw(steps=20), "dpm++ 10": draw(steps=10, sampler="dpm++-2m"),
             "w = .5": draw(1, guidance=0.5), "ancestral": draw(1, steps=ancestral, sampler="ddpm")}
    share = outside(d, run, by, ancestral)
    fd = {k: v["fd"] for k, v in found.items()}
    plain, guided = found["ddim 50"], found["w = .5"]
    return result({f"FDfeat, {k}": v for k, v in fd.items()} | {
        "agreement": plain["agreement"], "agreement, w = .5": guided["agreement"], "recall": plain["recall"],
        "recall, w = .5": guided["recall"], "share outside the network": share}, **{
        "DDIM-20 within 1.5 of ancestral": fd["ddim 20"] <= 1.5 * fd["ancestral"],
        "DPM-Solver++ at 10 within 1.2 of DDIM at 50": fd["dpm++ 10"] <= 1.2 * fd["ddim 50"],
        "guidance raises agreement": guided["agreement"] > plain["agreement"],
        "guidance lowers recall": guided["recall"] < plain["recall"], "under 10 % outside the network": share < 0.1})


def outside(d, run, by, steps, n=64):
    """The share of DDIM's time, n samples and `steps` steps, that passes outside the network."""
    config = systems.configure("ddpm", d, {})
    spent, (_, net) = [], prior.network(config, d)

    def watched(*args):
        start = time.perf_counter()
        y = net(*args)
        spent.append(time.perf_counter() - start)
        return y

    sample, _ = drawing.sampling("ddpm", ddpm.model(config, d), watched, d, (-1, 1))
    start = time.perf_counter()
    sample(train.averaged(run), run.state, n, 0, by, np.arange(n) % 10, steps=steps)
    return 1 - sum(spent) / (time.perf_counter() - start)


def cold(steps=None, most=None):
    """F8: new digits from blurs, restored by algorithm 2; better than by algorithm 1, whose steps add up their errors."""
    d = data.load("digits")
    system, run, by = trained("cold", d, **({} if steps is None else {"steps": steps}))
    f, direct = (figures(d, system, run, by, most=most, improved=improved) for improved in (True, False))
    return result(f | {"FDfeat, algorithm 1": direct["fd"]}, **accepted(f, 5.5) | {
        "algorithm 2 better than 1": f["fd"] < direct["fd"]})


ACCEPTANCE = {"ddpm": ddpm_samplers, "ddpm-mlp": on_digits("ddpm", 5.5), "improved-ddpm": improved_ddpm, "ncsn": ncsn_scores,
              "score-sde": score_sde, "edm": on_digits("edm", 5.5), "flow-matching": on_digits("flow-matching", 5.5),
              "cold": cold}
