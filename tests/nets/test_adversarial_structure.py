"""What the adversarial networks are besides differentiable: where norms stand, initial values, what is refused."""
import numpy as np
import pytest
from conftest import refuses

from refimpl import ops
from refimpl.equations.weights import power_iteration
from refimpl.nets import biggan, dcgan, layers, progressive, reparametrise, stylegan, stylegan2, translate

DC = dcgan.DCGANConfig(size=16, base=4, channels=1, latent=5, width=3)
BIG = biggan.BigGANConfig(base=2, widths=(4, 8, 4), channels=2, latent=6, classes=3, embedding=3, attention=4)
PRO = progressive.ProgressiveConfig(base=2, widths=(6, 5, 4), channels=2, latent=5, group=2)
STYLE = stylegan.StyleConfig(base=2, widths=(4, 3), channels=2, latent=5, depth=2)


def norms(params):
    return sorted(n for n in params if "norm" in n and n.endswith(".weight"))


def test_batch_norm_stands_neither_on_the_output_nor_on_the_input():
    """Error 14 of the lectures: in both networks, but not on G's output nor on D's input."""
    g, _ = dcgan.generator_init(1, DC)
    d, _ = dcgan.discriminator_init(1, DC)
    assert norms(g) == ["norms.0.weight", "norms.1.weight"] and g["norms.1.weight"].shape == (3,)
    assert norms(d) == ["norms.1.weight"] and "convs.0.bias" in d and "convs.1.bias" not in d
    assert g["convs.1.weight"].shape == (3, 1, 4, 4) and g["convs.1.bias"].shape == (1,)


def test_batch_norm_on_the_output_would_fix_the_mean_of_every_batch(rng):
    """The printed form: two batches of different brightness come out the same; the correct network tells them apart."""
    g, state = dcgan.generator_init(1, DC, np.float64)
    bright = g | {"convs.1.bias": g["convs.1.bias"] + 1}
    z = rng.standard_normal((6, 5))
    mean = lambda params, normed: (lambda x: np.mean(
        ops.batch_norm(x, None, None, np.zeros(1), np.ones(1), True)[0] if normed else x))(
            dcgan.generator(params, state, z, config=DC, ops=ops)[0])
    assert abs(mean(g, True) - mean(bright, True)) < 1e-9
    assert abs(mean(g, False) - mean(bright, False)) > 0.5


def test_batch_norm_on_the_input_would_hide_brightness_from_the_discriminator(rng):
    d, state = dcgan.discriminator_init(1, DC, np.float64)
    x = rng.standard_normal((6, 1, 16, 16))
    logit = lambda x: dcgan.discriminator(d, state, x, config=DC, ops=ops)[0]
    normed = lambda x: ops.batch_norm(x, None, None, np.zeros(1), np.ones(1), True)[0]
    assert np.allclose(logit(normed(x)), logit(normed(2 * x + 3)), atol=1e-4)
    assert np.max(abs(logit(x) - logit(2 * x + 3))) > 1e-3


def test_running_statistics_go_in_and_out(rng):
    d, state = dcgan.discriminator_init(1, DC, np.float64)
    x = 3 + rng.standard_normal((6, 1, 16, 16))
    before = {n: a.copy() for n, a in state.items()}
    _, _, after = dcgan.discriminator(d, state, x, config=DC, ops=ops)
    assert all(np.array_equal(state[n], before[n]) for n in state) and set(after) == set(state)
    assert all(np.any(after[n] != state[n]) for n in state)
    one, _, same = dcgan.discriminator(d, after, x, config=DC, ops=ops, train=False)
    assert all(np.array_equal(same[n], after[n]) for n in after)
    assert np.allclose(one[:2], dcgan.discriminator(d, after, x[:2], config=DC, ops=ops, train=False)[0])


@pytest.mark.parametrize("deviation", [None, 0.02])
def test_initial_values(deviation):
    shapes = {"a.weight": (40, 30, 3, 3), "a.bias": (40,), "n.weight": (7,), "n.bias": (7,), "gamma": (1,),
              "b.weight": (40, 30, 3, 3)}
    p = layers.gaussian(5, shapes, deviation)
    assert abs(p["a.weight"].std() / (deviation or (2 / 270) ** 0.5) - 1) < 0.02 and abs(p["a.weight"].mean()) < 1e-2
    assert (p["n.weight"] == 1).all() and not any(p[n].any() for n in ("a.bias", "n.bias", "gamma"))
    assert np.any(p["a.weight"] != p["b.weight"]) and p["a.weight"].dtype == np.float32
    alone = layers.gaussian(5, {"b.weight": shapes["b.weight"]}, deviation)
    assert np.array_equal(alone["b.weight"], p["b.weight"])


def test_dcgan_starts_with_the_papers_deviation():
    g, _ = dcgan.generator_init(1, DC._replace(width=64, latent=50))
    d, _ = dcgan.discriminator_init(1, DC._replace(width=64))
    for params in (g, d):
        weights = [p for p in params.values() if p.ndim == 4]
        assert all(abs(w.std() / 0.02 - 1) < 0.1 for w in weights if w.size > 1000) and len(weights) == 3
    assert [p.shape for n, p in g.items() if p.ndim == 4] == [(50, 128, 4, 4), (128, 64, 4, 4), (64, 1, 4, 4)]


def test_attention_is_the_identity_at_the_start(rng):
    shapes = biggan._attention_shapes("a", 16)
    params = layers.gaussian(1, shapes, dtype=np.float64)
    x = rng.standard_normal((2, 16, 3, 3))
    y, pullback = biggan.self_attention(params, "a", x, ops)
    assert np.array_equal(y, x)
    grads, dx = pullback(np.ones_like(x))
    assert np.array_equal(dx, np.ones_like(x)) and grads["a.gamma"] != 0 and not grads["a.query.weight"].any()
    assert params["a.query.weight"].shape == (2, 16, 1, 1) and params["a.value.weight"].shape == (8, 16, 1, 1)


def test_attention_stands_at_its_size():
    g, _ = biggan.generator_init(1, BIG)
    d = biggan.discriminator_init(1, BIG)
    assert [n for n in g if n.endswith("gamma")] == ["attentions.0.gamma"]  # behind the block that makes 4x4
    assert [n for n in d if n.endswith("gamma")] == ["attentions.0.gamma"]  # behind the block that pools 8x8 to 4x4
    assert not any(n.endswith("gamma") for n in biggan.discriminator_init(1, BIG._replace(attention=1)))


def test_each_block_sees_its_part_of_z(rng):
    """With h frozen by a zero first map, z still reaches the image through the blocks' conditions, class and all."""
    params, state = biggan.generator_init(1, BIG, np.float64)
    params["input.weight"] = 0 * params["input.weight"]
    params["input.bias"] = rng.standard_normal(params["input.bias"].shape)
    labels = np.array([0, 1])
    run = lambda z, labels: biggan.generator(params, state, z, labels, config=BIG, ops=ops, train=False)[0]
    z = rng.standard_normal((2, 6))
    for entries, sees in ((slice(0, 2), False), (slice(2, 4), True), (slice(4, 6), True)):
        moved = z.copy()
        moved[:, entries] += 1
        assert np.any(run(moved, labels) != run(z, labels)) == sees
    assert np.any(run(z, labels) != run(z, 1 + labels))


def test_projection_prefers_the_class_whose_embedding_points_to_the_image(rng):
    params = biggan.discriminator_init(1, BIG, np.float64)
    x = rng.standard_normal((3, 2, 8, 8))
    run = lambda p, labels: biggan.discriminator(p, x, labels, config=BIG, ops=ops)[0]
    labels = np.array([0, 1, 2])
    without = params | {"embedding.weight": 0 * params["embedding.weight"]}
    assert np.array_equal(run(without, labels), run(without, labels[::-1]))
    h = np.linalg.lstsq(params["embedding.weight"], np.eye(3), rcond=None)[0]
    assert np.all(np.isfinite(h)) and np.any(run(params, labels) != run(params, labels[::-1]))


def test_spectral_weights_have_norm_one_in_the_end(rng):
    params = {"a.weight": rng.standard_normal((4, 3, 2, 2)), "b.weight": rng.standard_normal((2, 5)),
              "b.bias": np.ones(2)}
    names = reparametrise.matrices(params)
    assert names == ["a.weight", "b.weight"]
    state = reparametrise.spectral_init(3, params, names)
    assert all(abs(np.linalg.norm(u) - 1) < 1e-12 for u in state.values())
    for _ in range(300):
        bar, _, state = reparametrise.spectral(params, state, train=True)
    assert all(abs(np.linalg.norm(bar[n].reshape(len(bar[n]), -1), 2) - 1) < 1e-9 for n in names)
    assert bar["b.bias"] is params["b.bias"]
    _, _, frozen = reparametrise.spectral(params, state, train=False)
    assert all(np.array_equal(frozen[n], state[n]) for n in state)
    fresh = reparametrise.spectral_init(3, params, names)
    one, _, moved = reparametrise.spectral(params, fresh, train=True)
    u, v = power_iteration(params["b.weight"], fresh["b.weight.u"], 1)
    assert np.allclose(one["b.weight"], params["b.weight"] / (u @ params["b.weight"] @ v))
    assert np.array_equal(moved["b.weight.u"], u)


@pytest.mark.parametrize("net", ["generator", "discriminator"])
def test_fading_has_exact_end_points(net, rng):
    """alpha = 0 is the smaller network with its image doubled (or halved); alpha = 1 does without the old path."""
    params = getattr(progressive, f"{net}_init")(1, PRO, np.float64)
    run = lambda x, level, alpha: getattr(progressive, net)(params, x, level, alpha, config=PRO, ops=ops)[0]
    if net == "generator":
        z = rng.standard_normal((4, 5))
        assert np.array_equal(run(z, 2, 0.0), ops.upsample_nearest(run(z, 1, 1.0), 2))
        ends = run(z, 2, 0.0), run(z, 2, 1.0)
        assert np.allclose(run(z, 2, 0.25), 0.75 * ends[0] + 0.25 * ends[1], atol=1e-12)
        assert run(z, 0, 1.0).shape == (4, 2, 2, 2)
    else:
        x = rng.standard_normal((4, 2, 8, 8))
        assert np.allclose(run(x, 2, 0.0), run(ops.average_pool(x, 2), 1, 1.0), atol=1e-12)
        assert np.any(run(x, 2, 0.5) != run(x, 2, 1.0))
    a = rng.standard_normal((2, 3))
    assert np.array_equal(progressive.fade(a, 2 * a, 0.0), a) and np.array_equal(progressive.fade(a, 2 * a, 1.0), 2 * a)


def test_unit_variance_as_stored():
    wide = PRO._replace(widths=(64, 64, 64), latent=64)
    for params in (progressive.generator_init(1, wide), progressive.discriminator_init(1, wide),
                   stylegan2.generator_init(1, STYLE._replace(widths=(64, 64), latent=64))):
        big = {n: p for n, p in params.items() if p.size > 4000}
        assert all(abs(p.std() / (100 if n.startswith("mapping") else 1) - 1) < 0.05 for n, p in big.items()) and big


def test_styles_enter_where_they_should(rng):
    """The style and the noise of every layer reach the image, and the same ones give the same image."""
    for net in (stylegan, stylegan2):
        params = net.generator_init(1, STYLE, np.float64)
        params = {n: p + 0.1 * rng.standard_normal(p.shape) for n, p in params.items()}
        ws = rng.standard_normal((2, 4, 5))
        noise = [rng.standard_normal((2, *s)) for s in stylegan.noise_shapes(STYLE)]
        run = lambda ws, noise: net.synthesis(params, ws, noise, config=STYLE, ops=ops)[0]  # noqa: B023
        x = run(ws, noise)
        assert x.shape == (2, 2, 4, 4) and np.array_equal(run(ws, noise), x)
        for k in range(4):
            other_w, other_n = ws.copy(), [n.copy() for n in noise]
            other_w[:, k] += 1
            other_n[k] = other_n[k] + 1 + rng.standard_normal(other_n[k].shape)
            assert np.any(run(other_w, noise) != x) and np.any(run(ws, other_n) != x)


def test_patches_are_judged_by_themselves(rng):
    """Without norms a logit sees its receptive field only; the map has one logit per patch."""
    params = {n: p for n, p in translate.patch_discriminator_init(1, 1, (3, 4), np.float64).items() if "norm" not in n}
    x = rng.standard_normal((1, 1, 32, 32))
    y = translate.patch_discriminator(params, x, ops=ops)[0]
    assert y.shape == (1, 1, 8, 8)
    moved = x.copy()
    moved[..., 0, 0] += 1
    changed = np.argwhere(translate.patch_discriminator(params, moved, ops=ops)[0] != y)
    assert len(changed) and changed.max() <= 2
    normed = norms(translate.patch_discriminator_init(1, 1, (3, 4)))
    assert normed == ["norms.1.weight"]


def test_super_resolution_sizes(rng):
    for factor in (2, 4):
        c = translate.TranslateConfig(width=4, blocks=1, factor=factor)
        params, state = translate.srresnet_init(1, c, np.float64)
        y, _, _ = translate.srresnet(params, state, rng.standard_normal((2, 1, 4, 4)), ops=ops)
        assert y.shape == (2, 1, 4 * factor, 4 * factor)
    assert (params["input.slope"] == 0.25).all()


@pytest.mark.parametrize("message, call", [
    ("latent size, got", lambda: dcgan.generator(*dcgan.generator_init(1, DC), np.zeros((2, 4), np.float32), config=DC,
                                                 ops=ops)),
    (r"x must be \(N, 1, 16, 16\)", lambda: dcgan.discriminator(*dcgan.discriminator_init(1, DC),
                                                                np.zeros((2, 1, 8, 8)), config=DC, ops=ops)),
    ("base 4 times 2, 4", lambda: dcgan.generator_init(1, DC._replace(size=24))),
    ("sizes must be at least 1", lambda: dcgan.generator_init(1, DC._replace(width=0))),
    ("one label per sample", lambda: biggan.discriminator(biggan.discriminator_init(1, BIG), np.zeros((2, 2, 8, 8)),
                                                          np.zeros(3, int), config=BIG, ops=ops)),
    (r"z must be \(N, 6\)", lambda: biggan.generator(*biggan.generator_init(1, BIG), np.zeros((2, 7), np.float32),
                                                     np.zeros(2, int), config=BIG, ops=ops)),
    ("latent a multiple of 3, got 7", lambda: biggan.generator_init(1, BIG._replace(latent=7))),
    ("at least two sizes", lambda: biggan.generator_init(1, BIG._replace(widths=(4,)))),
    ("multiple of the group of 2, got 3", lambda: progressive.discriminator(
        progressive.discriminator_init(1, PRO), np.zeros((3, 2, 2, 2), np.float32), 0, 1.0, config=PRO, ops=ops)),
    ("alpha must be in", lambda: progressive.generator({}, np.zeros((3, 5)), 0, 1.5, config=PRO, ops=ops)),
    ("level must be in 0..2", lambda: progressive.generator({}, np.zeros((3, 5)), 3, 1.0, config=PRO, ops=ops)),
    ("alpha must be in", lambda: progressive.fade(np.zeros(1), np.zeros(1), -0.1)),
    (r"styles must be \(N, 4, 5\)", lambda: stylegan.synthesis({}, np.zeros((2, 3, 5)), [], config=STYLE, ops=ops)),
    ("noise of shapes", lambda: stylegan2.synthesis({}, np.zeros((2, 4, 5)), [], config=STYLE, ops=ops)),
    (r"z must be \(N, 5\)", lambda: stylegan.mapping({}, np.zeros((2, 4)), config=STYLE, ops=ops)),
    ("factor must be 2, 4", lambda: translate.srresnet_init(1, translate.TranslateConfig(factor=3))),
    ("more than one value per channel", lambda: layers.batch_norm(
        {}, layers.statistics({"n": 2}), "n", np.zeros((1, 2), np.float32), ops, True)),
])
def test_bad_input_is_one_sentence(message, call):
    refuses(call, message)
