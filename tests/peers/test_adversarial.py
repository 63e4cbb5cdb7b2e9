"""Adversarial losses, penalties and networks beside PyTorch in float64: values and the gradients of everything."""
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: E402
from torch_networks import (  # noqa: E402
    LABELS,
    NOISES,
    STYLE,
    biggan_discriminator,
    biggan_generator,
    dcgan_discriminator,
    dcgan_generator,
    mapping,
    patchgan,
    progressive_discriminator,
    progressive_generator,
    srresnet,
    stddev,
    stylegan2_discriminator,
    stylegan2_synthesis,
    stylegan_synthesis,
    translator,
)

from refimpl import ops  # noqa: E402
from refimpl.equations import adversarial, batchwise, penalty, weights  # noqa: E402
from refimpl.nets import biggan, dcgan, progressive, stylegan, stylegan2, translate  # noqa: E402
from refimpl.nets.reparametrise import equalised, spectral, spectral_init  # noqa: E402

SEEDS = range(3)


def tensor(a, grad=True):
    return torch.tensor(np.ascontiguousarray(a), requires_grad=grad)


def close(ours, theirs, tolerance=1e-12):
    theirs = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else theirs
    assert np.max(abs(ours - theirs), initial=0) <= tolerance * (1 + np.max(abs(theirs), initial=0))


def all_close(ours, theirs):
    """Second-order gradients, to 1e-12 of the largest: many are small differences of large terms."""
    theirs = [np.zeros(1) if t is None else t.numpy() for t in theirs]
    scale = max(np.max(abs(t)) for t in theirs)
    for name, t in zip(ours, theirs, strict=True):
        assert np.max(abs(ours[name] - t)) <= 1e-12 * scale, name


# --- losses -----------------------------------------------------------------------------------------------------------

bce = F.binary_cross_entropy_with_logits


def to(value):
    """Cross-entropy with every target the same."""
    return lambda l: bce(l, torch.full_like(l, value))


def cosines(s):
    unit = F.normalize(s, dim=1)
    c = unit @ unit.T
    return (c**2).sum() - (torch.diagonal(c) ** 2).sum()


def discrimination(x, t):
    m = torch.tensordot(x, t, 1)
    return torch.cat([x, torch.exp(-(m[:, None] - m[None]).abs().sum(3)).sum(1)], 1)


TWO = [(5, 2), (3, 2)]
LOSSES = {
    "minimax_d": (adversarial, {}, TWO, lambda r, f: to(1.0)(r) + to(0.0)(f)),
    "value_function": (adversarial, {}, TWO, lambda r, f: -to(1.0)(r) - to(0.0)(f)),
    "minimax_g": (adversarial, {}, TWO[:1], lambda f: -to(0.0)(f)),
    "non_saturating_g": (adversarial, {}, TWO[:1], to(1.0)),
    "smoothed_d": (adversarial, {"real": 0.9, "fake": 0.1}, TWO, lambda r, f: to(0.9)(r) + to(0.1)(f)),
    "lsgan_d": (adversarial, {"a": -1.0, "b": 1.0}, TWO,
                lambda r, f: (F.mse_loss(r, torch.ones_like(r)) + F.mse_loss(f, -torch.ones_like(f))) / 2),
    "lsgan_g": (adversarial, {"c": 0.5}, TWO[:1], lambda f: F.mse_loss(f, torch.full_like(f, 0.5)) / 2),
    "hinge_d": (adversarial, {}, TWO, lambda r, f: F.relu(1 - r).mean() + F.relu(1 + f).mean()),
    "wasserstein_d": (adversarial, {}, TWO, lambda r, f: f.mean() - r.mean()),
    "wasserstein_g": (adversarial, {}, TWO[:1], lambda f: -f.mean()),
    "energy_d": (adversarial, {"margin": 0.5}, TWO, lambda r, f: r.mean() + F.relu(0.5 - f).mean()),
    "energy_g": (adversarial, {}, TWO[:1], lambda f: f.mean()),
    "relativistic_d": (batchwise, {}, TWO, lambda r, f: to(1.0)(r - f.mean()) + to(0.0)(f - r.mean())),
    "feature_matching": (batchwise, {}, [(5, 3), (4, 3)], lambda r, f: ((r.mean(0) - f.mean(0)) ** 2).sum()),
    "pulling_away": (batchwise, {}, [(5, 3)], lambda s: cosines(s) / 20),
    "minibatch_stddev": (batchwise, {"group": 2}, [(6, 2, 3, 3)], lambda x: stddev(x, 2)),
    "minibatch_discrimination": (batchwise, {}, [(4, 3), (3, 2, 2)], discrimination),
    "orthogonal_regularisation": (weights, {"weight": 0.3}, [(4, 3, 2, 2)], lambda w: 0.3 * (
        (w.flatten(1) @ w.flatten(1).T * (1 - torch.eye(4, dtype=w.dtype))) ** 2).sum()),
    "historical_averaging": (weights, {}, [(4,), (4,)], lambda a, b: ((a - b) ** 2).sum()),
    "norm_penalty": (penalty, {"weight": 10.0}, [(4, 3, 2)],
                     lambda g: 10 * ((g.flatten(1).norm(dim=1) - 1) ** 2).mean()),
    "zero_centred_penalty": (penalty, {"gamma": 3.0}, [(4, 3, 2)], lambda g: 1.5 * (g.flatten(1) ** 2).sum(1).mean()),
    "max_penalty": (penalty, {"weight": 2.0}, [(4, 3, 2)], lambda g: 2 * (g.flatten(1) ** 2).sum(1).max()),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", LOSSES)
def test_loss(name, seed):
    module, options, shapes, theirs = LOSSES[name]
    rng = np.random.default_rng(seed)
    inputs = [2 * rng.standard_normal(s) for s in shapes]
    tensors = [tensor(a) for a in inputs]
    y = getattr(module, name)(*inputs, **options)
    expected = theirs(*tensors)
    close(y, expected)
    dy = rng.standard_normal(np.shape(y))
    back = getattr(module, f"{name}_vjp")(dy, *inputs, **options)
    for ours, other in zip(back if isinstance(back, tuple) else (back,),
                           torch.autograd.grad(expected, tensors, torch.tensor(dy))):
        close(ours, other)


# --- networks ---------------------------------------------------------------------------------------------------------

DC = dcgan.DCGANConfig(size=8, base=2, channels=2, latent=5, width=3)
BIG = biggan.BigGANConfig(base=2, widths=(4, 8, 4), channels=2, latent=6, classes=3, embedding=3, attention=4)
PRO = progressive.ProgressiveConfig(base=2, widths=(4, 3), channels=2, latent=5, group=2)
WIDE = translate.TranslateConfig(inputs=2, outputs=2, width=3, blocks=2, factor=2)
IMAGE, SMALL, LATENT, STYLES = (4, 2, 8, 8), (4, 2, 4, 4), (4, 5), (4, 4, 5)


def stateless(params):
    return params, {}


D = np.float64
NETS = {
    "dcgan generator": (dcgan.generator_init(1, DC, D), LATENT, dcgan_generator,
                        lambda p, s, x: dcgan.generator(p, s, x, config=DC, ops=ops)[:2]),
    "dcgan discriminator": (dcgan.discriminator_init(1, DC, D), IMAGE, dcgan_discriminator,
                            lambda p, s, x: dcgan.discriminator(p, s, x, config=DC, ops=ops)[:2]),
    "biggan generator": (biggan.generator_init(1, BIG, D), (4, 6), biggan_generator(True),
                         lambda p, s, x: biggan.generator(p, s, x, LABELS, config=BIG, ops=ops)[:2]),
    "sagan generator": (biggan.generator_init(1, BIG._replace(split=False), D), (4, 6), biggan_generator(False),
                        lambda p, s, x: biggan.generator(p, s, x, LABELS, config=BIG._replace(split=False),
                                                         ops=ops)[:2]),
    "biggan discriminator": (stateless(biggan.discriminator_init(1, BIG, D)), IMAGE, biggan_discriminator,
                             lambda p, s, x: biggan.discriminator(p, x, LABELS, config=BIG, ops=ops)),
    "progressive generator": (stateless(progressive.generator_init(1, PRO, D)), LATENT, progressive_generator,
                              lambda p, s, x: progressive.generator(p, x, 1, 0.3, config=PRO, ops=ops)),
    "progressive discriminator": (stateless(progressive.discriminator_init(1, PRO, D)), SMALL,
                                  progressive_discriminator,
                                  lambda p, s, x: progressive.discriminator(p, x, 1, 0.3, config=PRO, ops=ops)),
    "stylegan mapping": (stateless(stylegan.mapping_init(1, STYLE, D)), LATENT, mapping,
                         lambda p, s, x: stylegan.mapping(p, x, config=STYLE, ops=ops)),
    "stylegan synthesis": (stateless(stylegan.generator_init(1, STYLE, D)), STYLES, stylegan_synthesis,
                           lambda p, s, x: stylegan.synthesis(p, x, NOISES, config=STYLE, ops=ops)),
    "stylegan2 synthesis": (stateless(stylegan2.generator_init(1, STYLE, D)), STYLES, stylegan2_synthesis,
                            lambda p, s, x: stylegan2.synthesis(p, x, NOISES, config=STYLE, ops=ops)),
    "stylegan2 discriminator": (stateless(stylegan2.discriminator_init(1, STYLE, D)), SMALL, stylegan2_discriminator,
                                lambda p, s, x: stylegan2.discriminator(p, x, config=STYLE, group=2, ops=ops)),
    "translator": (stateless(translate.translator_init(1, WIDE, D)), IMAGE, translator,
                   lambda p, s, x: translate.translator(p, x, ops=ops)),
    "srresnet": (translate.srresnet_init(1, WIDE, D), SMALL, srresnet,
                 lambda p, s, x: translate.srresnet(p, s, x, ops=ops)[:2]),
    "patchgan": (stateless(translate.patch_discriminator_init(1, 2, (3, 4), D)), IMAGE, patchgan,
                 lambda p, s, x: translate.patch_discriminator(p, x, ops=ops)),
}


def case(name, seed):
    (params, state), shape, theirs, ours = NETS[name]
    rng = np.random.default_rng(seed)
    params = {n: p + 0.3 * rng.standard_normal(p.shape) for n, p in params.items() if "mapping" not in n or
              name == "stylegan mapping"}
    return params, state, rng.standard_normal(shape), theirs, ours, rng


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", NETS)
def test_network(name, seed):
    """The output and the gradients of all parameters and of the input."""
    params, state, x, theirs, ours, rng = case(name, seed)
    p, tx = {n: tensor(a) for n, a in params.items()}, tensor(x)
    y, pullback = ours(params, state, x)
    expected = theirs(p, state, tx)
    close(y, expected)
    dy = rng.standard_normal(y.shape)
    grads, dx = pullback(dy)
    other = torch.autograd.grad(expected, [tx, *p.values()], torch.tensor(dy))
    close(dx, other[0], 1e-10)
    for n, g in zip(p, other[1:]):
        close(grads[n], g, 1e-10)


PENALTIES = {
    "WGAN-GP": (penalty.norm_penalty, penalty.norm_penalty_vjp, {"weight": 10.0}),
    "R1": (penalty.zero_centred_penalty, penalty.zero_centred_penalty_vjp, {"gamma": 3.0}),
    "max": (penalty.max_penalty, penalty.max_penalty_vjp, {"weight": 2.0}),
}


@pytest.mark.parametrize("name", ["dcgan discriminator", "biggan discriminator", "progressive discriminator",
                                  "stylegan2 discriminator", "patchgan"])
@pytest.mark.parametrize("kind", PENALTIES)
def test_penalty_by_double_backward(kind, name):
    params, state, x, theirs, _, _ = case(name, 0)
    if name == "dcgan discriminator":
        params = {n: p for n, p in params.items() if "norms" not in n} | {"convs.1.bias": np.ones(6)}
        runs = lambda p, x, ops: dcgan.discriminator(p, {}, x, config=DC, ops=ops)[:2]
    elif name == "biggan discriminator":
        runs = lambda p, x, ops: biggan.discriminator(p, x, LABELS, config=BIG, ops=ops)
    elif name == "progressive discriminator":
        runs = lambda p, x, ops: progressive.discriminator(p, x, 1, 0.3, config=PRO, ops=ops)
    elif name == "stylegan2 discriminator":
        runs = lambda p, x, ops: stylegan2.discriminator(p, x, config=STYLE, group=2, ops=ops)
    else:
        runs = lambda p, x, ops: translate.patch_discriminator(p, x, ops=ops)
    f, f_vjp, options = PENALTIES[kind]
    value, dparams, dx, g = penalty.penalise(f, f_vjp, runs, params, x, ops, **options)
    p, tx = {n: tensor(a) for n, a in params.items()}, tensor(x)
    (tg,) = torch.autograd.grad(theirs(p, state, tx).sum(), tx, create_graph=True)
    expected = LOSSES[f.__name__][3](tg)
    close(g, tg)
    close(value, expected)
    other = torch.autograd.grad(expected, [tx, *p.values()], allow_unused=True)
    all_close({"x": dx} | {n: dparams[n] for n in p}, other)


@pytest.mark.parametrize("name", ["stylegan synthesis", "stylegan2 synthesis"])
def test_path_length_by_double_backward(name):
    params, state, ws, theirs, _, rng = case(name, 0)
    net = (stylegan if name == "stylegan synthesis" else stylegan2).synthesis
    dy = rng.standard_normal((4, 2, 4, 4))
    value, dparams, dws, _ = penalty.penalise(
        penalty.norm_penalty, penalty.norm_penalty_vjp, lambda p, x, ops: net(p, x, NOISES, config=STYLE, ops=ops),
        params, ws, ops, dy=dy, weight=2.0, target=0.7)
    p, tw = {n: tensor(a) for n, a in params.items()}, tensor(ws)
    (g,) = torch.autograd.grad((theirs(p, state, tw) * torch.tensor(dy)).sum(), tw, create_graph=True)
    expected = 2 * ((g.flatten(1).norm(dim=1) - 0.7) ** 2).mean()
    close(value, expected)
    other = torch.autograd.grad(expected, [tw, *p.values()], allow_unused=True)
    all_close({"w": dws} | {n: dparams[n] for n in p}, other)


def test_spectral_normalisation_is_pytorchs():
    """torch.nn.utils.spectral_norm from the same u and v: weights and their gradients, over three training steps."""
    rng = np.random.default_rng(0)
    w, x = rng.standard_normal((4, 3)), rng.standard_normal((5, 3))
    params = {"w": w}
    state = spectral_init(1, params, ["w"])
    module = torch.nn.Linear(3, 4, bias=False, dtype=torch.float64)
    module.weight.data = torch.tensor(w)
    module = torch.nn.utils.spectral_norm(module)
    module.weight_u = torch.tensor(state["w.u"])
    for _ in range(3):
        bar, pullback, state = spectral(params, state, train=True)
        y = module(torch.tensor(x))
        close(x @ bar["w"].T, y)
        close(state["w.u"], module.weight_u)
        dy = rng.standard_normal((5, 4))
        (g,) = torch.autograd.grad(y, module.weight_orig, torch.tensor(dy))
        close(pullback({"w": dy.T @ x})["w"], g)


def test_equalised_rate_in_pytorch():
    rng = np.random.default_rng(0)
    params = {"a.weight": rng.standard_normal((4, 3, 2, 2)), "a.bias": rng.standard_normal(4),
              "mapping.weight": rng.standard_normal((4, 3)), "mapping.bias": rng.standard_normal(4)}
    scaled, pullback = equalised(params, slow={"mapping.": 0.01})
    close(scaled["a.weight"], params["a.weight"] * (2 / 12) ** 0.5)
    close(scaled["mapping.weight"], params["mapping.weight"] * 0.01 * (2 / 3) ** 0.5)
    close(scaled["mapping.bias"], params["mapping.bias"] * 0.01)
    close(scaled["a.bias"], params["a.bias"])
    grads = {n: rng.standard_normal(p.shape) for n, p in params.items()}
    for n, g in pullback(grads).items():
        close(g * params[n], grads[n] * scaled[n])
