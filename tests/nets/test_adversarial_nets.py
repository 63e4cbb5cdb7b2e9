"""The networks of the adversarial systems: gradients by complex step, second order both ways, dtypes, devices."""
import numpy as np
import pytest
from strict import StrictArray, to_device, to_host

from refimpl import ops
from refimpl.equations.penalty import second_order, second_order_complex
from refimpl.nets import biggan, dcgan, progressive, reparametrise, stylegan, stylegan2, translate
from refimpl.ops import fold

LABELS = np.array([0, 2, 1, 2])
DC = dcgan.DCGANConfig(size=8, base=2, channels=2, latent=5, width=3)
PLAIN = DC._replace(norm=False)
BIG = biggan.BigGANConfig(base=2, widths=(4, 8, 4), channels=2, latent=6, classes=3, embedding=3, attention=4)
SAGAN = BIG._replace(split=False)
PRO = progressive.ProgressiveConfig(base=2, widths=(4, 3), channels=2, latent=5, group=2)
STYLE = stylegan.StyleConfig(base=2, widths=(4, 3), channels=2, latent=5, depth=2)
WIDE = translate.TranslateConfig(inputs=2, outputs=2, width=3, blocks=2, factor=2)


def noise(like, config=STYLE):
    """Fixed noise for each layer, in the dtype and on the device of `like`."""
    rng = np.random.default_rng(3)
    values = [rng.standard_normal((len(like), *s)) for s in stylegan.noise_shapes(config)]
    if isinstance(like, StrictArray):
        return [StrictArray(v) for v in values]
    return [v.astype(like.dtype) for v in values]


def stateful(net, init, config, *extra):
    """A network with state: (params and state), and f(params, state, x, ops) -> y, pullback."""
    return (lambda key: init(key, config, np.float64),
            lambda p, s, x, ops: net(p, s, x, *extra, config=config, ops=ops)[:2])


def plain(net, init, config, *extra, **options):
    return (lambda key: (init(key, config, np.float64), {}),
            lambda p, s, x, ops: net(p, x, *extra, config=config, ops=ops, **options))


def equal(f):
    """On equalised weights, their pullback included."""
    def run(params, state, x, ops):
        scaled, unscale = reparametrise.equalised(params, slow={"mapping.": 0.01})
        y, pullback = f(scaled, state, x, ops)

        def back(dy):
            grads, dx = pullback(dy)
            return unscale({name: grads.get(name, 0 * p) for name, p in params.items()}), dx

        return y, back

    return run


def patch(params, state, x, ops):
    return translate.patch_discriminator(params, x, ops=ops)


IMAGE, LATENT, STYLES = (4, 2, 8, 8), (4, 5), (4, 4, 5)
NETS = {
    "dcgan generator": (*stateful(dcgan.generator, dcgan.generator_init, DC), LATENT),
    "dcgan discriminator": (*stateful(dcgan.discriminator, dcgan.discriminator_init, DC), IMAGE),
    "dcgan critic": (*stateful(dcgan.discriminator, dcgan.discriminator_init, PLAIN), IMAGE),
    "biggan generator": (*stateful(biggan.generator, biggan.generator_init, BIG, LABELS), (4, 6)),
    "sagan generator": (*stateful(biggan.generator, biggan.generator_init, SAGAN, LABELS), (4, 6)),
    "biggan discriminator": (*plain(biggan.discriminator, biggan.discriminator_init, BIG, LABELS), IMAGE),
    "progressive generator": (*plain(progressive.generator, progressive.generator_init, PRO, 1, 0.3), LATENT),
    "progressive discriminator": (
        *plain(progressive.discriminator, progressive.discriminator_init, PRO, 1, 0.3), (4, 2, 4, 4)),
    "grown generator": (*plain(progressive.generator, progressive.generator_init, PRO, 1, 1.0), LATENT),
    "grown discriminator": (
        *plain(progressive.discriminator, progressive.discriminator_init, PRO, 1, 1.0), (4, 2, 4, 4)),
    "stylegan mapping": (*plain(stylegan.mapping, stylegan.mapping_init, STYLE), LATENT),
    "stylegan synthesis": (
        lambda key: (stylegan.generator_init(key, STYLE, np.float64), {}),
        lambda p, s, x, ops: stylegan.synthesis(p, x, noise(x), config=STYLE, ops=ops), STYLES),
    "stylegan2 synthesis": (
        lambda key: (stylegan2.generator_init(key, STYLE, np.float64), {}),
        lambda p, s, x, ops: stylegan2.synthesis(p, x, noise(x), config=STYLE, ops=ops), STYLES),
    "stylegan2 discriminator": (
        *plain(stylegan2.discriminator, stylegan2.discriminator_init, STYLE, group=2), (4, 2, 4, 4)),
    "translator": (lambda key: (translate.translator_init(key, WIDE, np.float64), {}),
                   lambda p, s, x, ops: translate.translator(p, x, ops=ops), IMAGE),
    "srresnet": (lambda key: translate.srresnet_init(key, WIDE, np.float64),
                 lambda p, s, x, ops: translate.srresnet(p, s, x, ops=ops)[:2], (4, 2, 4, 4)),
    "patchgan": (lambda key: (translate.patch_discriminator_init(key, 2, (3, 4), np.float64), {}), patch, IMAGE),
}
for name in ("progressive generator", "progressive discriminator", "grown generator", "grown discriminator",
             "stylegan mapping", "stylegan synthesis", "stylegan2 synthesis", "stylegan2 discriminator"):
    init, f, shape = NETS[name]
    NETS[name] = init, equal(f), shape


def case(name, seed=0):
    """Parameters moved off their special values (zero gains and biases), state, the network and an input."""
    init, f, shape = NETS[name]
    rng = np.random.default_rng(seed)
    params, state = init(fold(7, seed))
    params = {n: p + 0.3 * rng.standard_normal(p.shape) for n, p in params.items()}
    return params, state, f, rng.standard_normal(shape), rng


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", NETS)
def test_gradient_of_every_parameter(name, seed):
    """<u, J v> along each parameter by itself: an error in one entry of the pullback names it."""
    params, state, f, x, rng = case(name, seed)
    y, pullback = f(params, state, x, ops)
    u = rng.standard_normal(y.shape)
    grads, dx = pullback(u)
    used = set(grads)
    assert dx.shape == x.shape and used == set(params)
    lifted = {n: p.astype(complex) for n, p in params.items()}

    def step(moved_params, moved_x):
        return np.sum(u * f(moved_params, state, moved_x, ops)[0].imag) / 1e-30

    w = rng.standard_normal(x.shape)
    found, expected = [np.sum(dx * w)], [step(lifted, x + 1e-30j * w)]
    for n in params:
        v = rng.standard_normal(params[n].shape)
        found.append(np.sum(grads[n] * v) if n in used else 0.0)
        expected.append(step(lifted | {n: params[n] + 1e-30j * v}, x.astype(complex)))
        assert n not in used or grads[n].shape == params[n].shape
    scale = np.max(np.abs(expected))
    assert scale > 0
    bad = [n for n, a, b in zip(["x", *params], found, expected) if abs(a - b) > 1e-10 * scale]
    assert not bad


PENALISED = ["dcgan critic", "biggan discriminator", "progressive discriminator", "stylegan2 discriminator", "patchgan",
             "stylegan synthesis", "stylegan2 synthesis"]


@pytest.mark.parametrize("name", PENALISED)
def test_second_order_through_every_network_that_a_penalty_is_used_with(name):
    params, state, f, x, rng = case(name)
    critic = lambda p, x, ops: f(p, state, x, ops)
    y, _ = critic(params, x, ops)
    dy, u = rng.standard_normal(y.shape), rng.standard_normal(x.shape)
    one, one_x = second_order(critic, params, x, dy, u, ops)
    two, two_x = second_order_complex(critic, params, x, dy, u)
    scale = max(np.max(abs(d)) for d in two.values())
    assert scale > 0
    assert max(np.max(abs(one[n] - two[n])) for n in two) <= 1e-12 * scale
    assert np.max(abs(one_x - two_x)) <= 1e-12 * (1 + np.max(abs(two_x)))


@pytest.mark.parametrize("name", NETS)
def test_float32_stays_float32(name):
    params, state, f, x, _ = case(name)
    single = lambda d: {n: a.astype(np.float32) for n, a in d.items()}
    y, pullback = f(single(params), single(state), x.astype(np.float32), ops)
    grads, dx = pullback(np.ones_like(y))
    assert {y.dtype, dx.dtype} | {g.dtype for g in grads.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("name", NETS)
def test_networks_stay_on_the_device(name):
    params, state, f, x, rng = case(name)
    y, pullback = f(params, state, x, ops)
    dy = rng.standard_normal(y.shape)
    on_device, device_pullback = f(to_device(params), to_device(state), to_device(x), ops)
    np.testing.assert_allclose(to_host(on_device), y, rtol=1e-10, atol=1e-10)
    (grads, dx), (device_grads, device_dx) = pullback(dy), device_pullback(to_device(dy))
    np.testing.assert_allclose(to_host(device_dx), dx, rtol=1e-9, atol=1e-9)
    for n, g in grads.items():
        assert isinstance(device_grads[n], StrictArray)
        np.testing.assert_allclose(to_host(device_grads[n]), g, rtol=1e-9, atol=1e-9)
