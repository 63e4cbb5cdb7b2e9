"""Small autoencoders, models of codes, flows and energies, built in float64."""
import functools

import numpy as np

from refimpl import data, systems

IMAGES = data.Data("made up", np.round(8 * np.sin(np.arange(6 * 16)).reshape(6, 1, 4, 4)) / 8, np.arange(6) % 3,
                   np.round(8 * np.cos(np.arange(2 * 16)).reshape(2, 1, 4, 4)) / 8, np.zeros(2, int), 3, 17)
POINTS = IMAGES._replace(train=np.sin(np.arange(16.0)).reshape(8, 2), test=np.cos(np.arange(4.0)).reshape(2, 2),
                         train_labels=None, test_labels=None, classes=0, levels=None)
SMALL = {"width": 8, "depth": 1, "steps": 4, "warmup": 1}
CODES = SMALL | {"codes": 5, "latent": 3, "positions": 2, "prior_width": 8, "prior_depth": 1}
JUDGED = {"start": 0, "judge_width": 4, "feature_widths": [3, 4]}
CASES = {  # system, data, settings
    "autoencoder": ("autoencoder", IMAGES, SMALL | {"latent": 3, "noise": 0.3}),
    "vae-gaussian": ("vae", IMAGES, SMALL | {"latent": 3, "beta": 0.7}),
    "vae-bernoulli": ("vae", IMAGES, SMALL | {"latent": 3, "likelihood": "bernoulli"}),
    "vae-logistic": ("vae", IMAGES, SMALL | {"latent": 3, "likelihood": "logistic"}),
    "vae-free": ("vae", IMAGES, SMALL | {"latent": 3, "free_bits": 0.01}),
    "vae-conv": ("vae", IMAGES, SMALL | {"latent": 2, "net": "conv", "channels": 8}),
    "vae-points": ("vae", POINTS, SMALL | {"latent": 1}),
    "dvae": ("dvae", IMAGES, CODES),
    "nice": ("nice", IMAGES, SMALL | {"couplings": 2}),
    "realnvp": ("realnvp", IMAGES, SMALL | {"couplings": 2, "levels": 2}),
    "realnvp-variational": ("realnvp", IMAGES, SMALL | {"couplings": 2, "dequantise": "variational"}),
    "glow-variational": ("glow", IMAGES, SMALL | {"couplings": 1, "dequantise": "variational", "logit": 0.0}),
    "glow": ("glow", IMAGES, SMALL | {"couplings": 2, "levels": 2, "net": "conv"}),
    "glow-points": ("glow", POINTS, SMALL | {"couplings": 2}),
}
QUANTISED = {"vqvae": CODES | {"codebook": "gradient"}, "vqvae-ema": CODES, "vqvae2": CODES | {"top": 1},
             "vqgan": CODES | JUDGED | {"perceptual": 0.0, "adversarial": 0.8},
             "vqgan-features": CODES | JUDGED | {"adversarial": 0.0}}
ALL = CASES | {name: (name.split("-")[0], IMAGES, settings) for name, settings in QUANTISED.items()} | {
    "ebm": ("ebm", POINTS, SMALL | {"chains": 16, "langevin": 2})}


def wide(d):
    return {k: v.astype(np.float64) if np.issubdtype(v.dtype, np.floating) else v for k, v in d.items()}


@functools.cache
def built(name):
    """System, parameters and state in float64, the zeros that couplings start with moved."""
    system_name, d, changes = ALL[name]
    system = systems.build(system_name, systems.configure(system_name, d, changes), d)
    start, rng = {p: player.init(k) for k, (p, player) in enumerate(system.players.items())}, np.random.default_rng(0)
    moved = lambda d: {k: v + 0.02 * rng.standard_normal(v.shape) for k, v in wide(d).items()}
    return d, system, {p: moved(s[0]) for p, s in start.items()}, {p: wide(s[1]) for p, s in start.items()}
