"""Acceptance of the adversarial families: each function trains, measures, and returns figures and requirements.

Results as in quality_latent: a dict of figures and `passed`. `steps` shortens the training for a smoke test, whose
figures mean nothing but must be finite.
"""
from functools import partial
from itertools import pairwise

import numpy as np

from refimpl import ops, score, train
from refimpl.charts_adversarial import great_circle
from refimpl.equations import images, metrics
from refimpl.nets import dcgan as dcgan_nets
from refimpl.ops.random import fold

from . import quality_latent
from .quality_latent import accepted, judge, result, samples_score

SEEDS = 3  # of sampling: the protocol's
trained = partial(quality_latent.trained, backend="cpu")  # twice as fast on convolutions


def mean_score(d, system, run):
    """The protocol's figures, mean over its sampling seeds."""
    return score.mean([samples_score(d, system, run, seed) for seed in range(SEEDS)])


def on_digits(name, fd, recall=0.6, agreement=None, **changes):
    """Train on digits: FDfeat, recall, distance to the training set, and label agreement as required."""
    d, system, run = trained(name, **changes)
    figures = mean_score(d, system, run)
    passed = accepted(figures, fd, recall)
    if agreement:
        passed[f"agreement_at_least_{agreement}"] = figures["agreement"] >= agreement
    return (d, system, run), result(figures, **passed)


def digits(name, fd, **requirements):
    """An acceptance function for a system that is judged by its samples alone."""
    def run(steps=None):
        return on_digits(name, fd, **requirements, **({} if steps is None else {"steps": steps}))[1]

    run.__doc__ = f"{name} on digits: FDfeat <= {fd}, recall, distance to the training set."
    return run


def modes(spec, needed, steps=None):
    """WGAN-GP on a mixture in the plane: how many modes it reaches, within three of their standard deviations."""
    d, system, run = trained("wgan-gp", spec, **({} if steps is None else {"steps": steps}))
    x = system.sample(train.averaged(run), run.state, 2500, fold(0, train.SAMPLE), ops)
    found, share = score.modes(x, d).values()
    return {f"{spec} modes": float(found), f"{spec} share at a mode": share}, {
        f"{needed} of {d.classes} modes": found >= needed}


def wgan_gp(steps=None):
    """A7: 8 of 8 modes on a circle, at least 24 of 25 on a grid."""
    one, two = modes("gaussians8", 8, steps), modes("gaussians25", 24, steps)
    return one[0] | two[0] | {"passed": one[1] | two[1]}


def dcgan(steps=None):
    """C1: FDfeat <= 4; a walk through z without jumps; arithmetic on z above 3 times chance; the discriminator's
    features with a linear SVM."""
    from sklearn.svm import LinearSVC

    (d, system, run), out = on_digits("dcgan", 4.0, **({} if steps is None else {"steps": steps}))
    params, state = train.averaged(run), run.state
    z, x = latents(system, params, state, 3000)
    labels = judge(d.spec).predict(x)
    out["arithmetic, share"] = arithmetic(system, params, state, judge(d.spec), z, labels)
    ends = z[:40], z[40:80]
    walk = [generate(system, params, state, great_circle(*ends, t)) for t in np.linspace(0, 1, 21)]
    lengths = np.array([np.linalg.norm((b - a).reshape(40, -1), axis=1) for a, b in pairwise(walk)])
    out["walk, largest step over its mean"] = float(np.mean(lengths.max(axis=0) / lengths.mean(axis=0)))
    features = lambda x: dcgan_nets.features(
        params["discriminator"], state["discriminator"], x, config=dcgan_nets.DCGANConfig(
            size=8, base=2, channels=1, width=params["discriminator"]["convs.0.weight"].shape[0]), ops=ops,
        train=False)[0].reshape(len(x), -1)
    svm = LinearSVC(C=0.1, dual=False).fit(features(d.train), d.train_labels)
    out["svm accuracy"] = float(svm.score(features(d.test), d.test_labels))
    out["passed"] |= {"arithmetic above 3 times chance": out["arithmetic, share"] > 0.3,
                      "no jump on a walk": out["walk, largest step over its mean"] < 4,
                      "svm above .9": out["svm accuracy"] > 0.9}
    return out


def latents(system, params, state, n):
    """n latent vectors and their images."""
    z = ops.normal(fold(1, 0), np.arange(n), 0, (params["generator"]["input.weight"].shape[0],))
    return z, generate(system, params, state, z)


def generate(system, params, state, z):
    """DCGAN's images of given z."""
    c = dcgan_nets.DCGANConfig(size=8, base=2, channels=1, latent=z.shape[1],
                               width=params["generator"]["norms.1.weight"].shape[0])
    return dcgan_nets.generator(params["generator"], state["generator"], z, config=c, ops=ops, train=False)[0]


def arithmetic(system, params, state, judge, z, labels):
    """How often z(j) - mean z(j) + mean z(i) shows digit i: samples of one digit moved to another by subtraction."""
    means = np.stack([z[labels == k].mean(axis=0) if np.any(labels == k) else 0 * z[0] for k in range(10)])
    hits = []
    for j in range(10):
        own = z[labels == j][:30]
        if len(own):
            for i in set(range(10)) - {j}:
                hits.append(np.mean(judge.predict(generate(system, params, state, own - means[j] + means[i])) == i))
    return float(np.mean(hits))


def biggan(steps=None):
    """C4: truncating z raises precision and lowers recall, monotonically."""
    d, system, run = trained("biggan", **({} if steps is None else {"steps": steps}))
    n, thresholds, params = score.count(d), (2.0, 1.0, 0.5, 0.25), train.averaged(run)
    labels, sweep = np.arange(n) % 10, []
    for t in thresholds:
        pairs = [metrics.precision_recall(d.test, system.sample(params, run.state, n, fold(seed, train.SAMPLE), ops,
                                                                labels, truncation=t)) for seed in range(SEEDS)]
        sweep.append(np.mean(pairs, axis=0))
    precision, recall = np.transpose(sweep)
    figures = mean_score(d, system, run)
    for t, p, r in zip(thresholds, precision, recall):
        figures |= {f"precision at {t}": float(p), f"recall at {t}": float(r)}
    return result(figures, precision_rises=np.all(np.diff(precision) >= 0), recall_falls=np.all(np.diff(recall) <= 0),
                  agreement_at_least_dot9=figures["agreement"] >= 0.9)


def text_to_image(steps=None):
    """B2: wrong captions score below right ones on test images; thick is thicker than thin; digits as asked."""
    from refimpl.systems import text_to_image as system_module

    d, system, run = trained("text-to-image", **({} if steps is None else {"steps": steps}))
    params, n = train.averaged(run), score.count(d)
    figures, medians = mean_score(d, system, run), system_module.ink_medians(d)
    text = system_module.embed(d.test_labels, system_module.is_thick(d.test, d.test_labels, medians), 10, np.float32)
    wrong = np.roll(text, 1, axis=0)
    differs = np.any(wrong != text, axis=1)
    nets = system_module.gan.perceptrons(system_module.DEFAULTS, d, 12)
    logits = [nets.discriminator(run.params["discriminator"], {}, d.test[differs], t[differs], ops, False)[0]
              for t in (text, wrong)]
    labels = np.arange(n) % 10
    ink = [float(np.mean(system_module.is_thick(system.sample(params, run.state, n, 1, ops, labels, thickness=kind),
                                                labels, medians))) for kind in system_module.STROKES]
    figures |= {"right above wrong": float(np.mean(logits[0] > logits[1])), "thin judged thick": ink[0],
                "thick judged thick": ink[1]}
    return result(figures, wrong_pairs_below_right_pairs=np.mean(logits[0]) > np.mean(logits[1]),
                  mostly_in_each_pair=figures["right above wrong"] > 0.9, thick_is_thicker=ink[1] > ink[0] + 0.5,
                  agreement_at_least_dot9=figures["agreement"] >= 0.9)


def linear_psnr(source, d):
    """PSNR of linear least squares from source(x) to x, fitted on the training images, on the test images."""
    rows = lambda x: np.concatenate([x.reshape(len(x), -1), np.ones((len(x), 1))], axis=1)
    flat = lambda x: x.reshape(len(x), -1)
    w, *_ = np.linalg.lstsq(rows(source(d.train)), flat(d.train), rcond=None)
    return images.psnr(np.clip(rows(source(d.test)) @ w, -1, 1), flat(d.test), 2)


def translated(name, **changes):
    """Data, and the test images as the trained system translates them."""
    d, system, run = trained(name, **{k: v for k, v in changes.items() if v is not None})
    y = system.sample(train.averaged(run), run.state, len(d.test), 1, ops)
    return d, system, run, np.clip(y, -1, 1)


def pix2pix(steps=None):
    """B3: edges to digits, PSNR above linear least squares."""
    from refimpl.systems.pix2pix import edges

    d, _, _, y = translated("pix2pix", steps=steps)
    psnr, linear = images.psnr(y, d.test, 2), linear_psnr(edges, d)
    return result({"psnr, dB": psnr, "linear, dB": linear, "fd": fd(d, y)}, above_linear_least_squares=psnr > linear)


def fd(d, y):
    """FDfeat of images beside the test images."""
    return metrics.frechet_distance(judge(d.spec).features(y), judge(d.spec).features(d.test))


def cyclegan(steps=None):
    """B4: digits to inverted digits and back, without pairs: cycle L1 < .1, recovered map PSNR > 15 dB."""
    d, system, run, y = translated("cyclegan", steps=steps)
    back = system.sample(train.averaged(run), run.state, len(d.test), 1, ops, back=True)
    cycle, psnr = float(np.mean(np.abs(back - d.test))), images.psnr(y, -d.test, 2)
    return result({"cycle L1": cycle, "recovered map, dB": psnr}, cycle_below_dot1=cycle < 0.1,
                  recovered_map_above_15_dB=psnr > 15)


def srgan(steps=None):
    """B5: 4x4 to 8x8: SRResNet above 18.5 dB; SRGAN lower in PSNR, better in FD."""
    d, _, _, y = translated("srgan", weight=0.0, steps=steps)
    _, _, _, sharp = translated("srgan", steps=steps)
    one, two = images.psnr(y, d.test, 2), images.psnr(sharp, d.test, 2)
    fds = fd(d, y), fd(d, sharp)
    linear = linear_psnr(lambda x: ops.average_pool(x, 2), d)
    return result({"SRResNet, dB": one, "SRGAN, dB": two, "linear, dB": linear, "SRResNet fd": fds[0],
                   "SRGAN fd": fds[1]}, srresnet_above_18_5_dB=one > 18.5, srgan_lower_in_psnr=two < one,
                  srgan_better_in_fd=fds[1] < fds[0])


ACCEPTANCE = {
    "gan": digits("gan", 2.5, recall=0.75), "lsgan": digits("lsgan", 4.0), "wgan": digits("wgan", 10.0),
    "wgan-gp": wgan_gp, "cgan": digits("cgan", 2.5, agreement=0.9), "dcgan": dcgan, "sngan": digits("sngan", 6.0),
    "sagan": digits("sagan", 6.0, agreement=0.9), "biggan": biggan, "progressive": digits("progressive", 6.0),
    "stylegan": digits("stylegan", 6.0), "stylegan2": digits("stylegan2", 6.0), "text-to-image": text_to_image,
    "pix2pix": pix2pix, "cyclegan": cyclegan, "srgan": srgan}
