"""Every adversarial system: a few steps through the common trainer, exact gradients, options, bad settings."""
import importlib

import numpy as np
import pytest
from conftest import refuses

from refimpl import data, ops, train
from refimpl.equations.weights import power_iteration
from refimpl.ops import fold
from refimpl.systems import SYSTEMS, two_player

SMALL = {
    "gan": {"width": 16}, "lsgan": {"width": 16}, "wgan": {"width": 16, "critic_steps": 2},
    "wgan_gp": {"width": 16, "critic_steps": 2}, "cgan": {"width": 16}, "dcgan": {"width": 4}, "sngan": {"width": 4},
    "sagan": {"width": 8}, "biggan": {"width": 8, "latent": 6}, "progressive": {"width": 4, "latent": 6},
    "stylegan": {"width": 4, "latent": 6, "depth": 2},
    "stylegan2": {"width": 4, "latent": 6, "depth": 2, "path_every": 2},
    "text_to_image": {"width": 16}, "pix2pix": {"width": 4, "blocks": 1, "patch_widths": [4, 4]},
    "cyclegan": {"width": 4, "blocks": 1, "patch_widths": [4, 4]}, "srgan": {"width": 4, "blocks": 1, "judge_width": 4},
}
CONDITIONAL = {"cgan", "sagan", "biggan", "text_to_image"}


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def built(name, digits, **changes):
    module = importlib.import_module(f"refimpl.systems.{name}")
    config = module.DEFAULTS | {"steps": 6, "batch": 8} | SMALL[name] | changes
    return module.build(config, digits), config


def steps(system, config, digits, n, run=None, key=5):
    run = run or train.begin(system, key)
    for _ in range(n):
        run, _ = train.advance(system, run, train.batch_at(digits, key, run.step, config["batch"]), key, ops)
    return run


def same(one, other):
    return all(np.array_equal(one[player][n], other[player][n]) for player in one for n in one[player])


@pytest.mark.parametrize("name", SMALL)
def test_a_few_steps(name, digits):
    """Parameters move, stay finite and float32; samples depend on key and number only, not on the batch."""
    system, config = built(name, digits)
    before = train.begin(system, 5)
    run = steps(system, config, digits, 3)
    for player, params in run.params.items():
        assert all(np.isfinite(p).all() and p.dtype == np.float32 for p in params.values())
        assert any(np.any(p != before.params[player][n]) for n, p in params.items()), player
        assert set(params) == set(before.params[player])
        assert set(run.state[player]) == set(before.state[player])
    assert (system.classes > 0) == (name in CONDITIONAL)
    averaged = train.averaged(run)
    labels = np.arange(6) if system.classes else None
    x = system.sample(averaged, run.state, 6, 3, ops, labels)
    assert x.shape == (6, 1, 8, 8) and np.isfinite(x).all() and np.max(abs(x)) <= 1 and x.dtype == np.float32
    tail = system.sample(averaged, run.state, 2, 3, ops, None if labels is None else labels[4:], first=4)
    np.testing.assert_allclose(tail, x[4:], atol=1e-5)
    assert system.sample(averaged, run.state, 0, 3, ops).shape[0] == 0


@pytest.mark.parametrize("name", ["gan", "dcgan", "biggan", "progressive", "stylegan2", "cyclegan"])
def test_the_same_key_gives_the_same_bits(name, digits):
    system, config = built(name, digits)
    one, other = steps(system, config, digits, 3), steps(system, config, digits, 3)
    assert same(one.params, other.params) and same(one.state, other.state)
    third = steps(system, config, digits, 1, steps(system, config, digits, 2))
    assert same(one.params, third.params)
    assert not same(one.params, steps(system, config, digits, 3, key=6).params)


@pytest.mark.parametrize("name", SMALL)
def test_gradients_are_those_of_the_loss(name, digits):
    """In float64: <grads, v> is the central difference of the loss along v, for every player, penalties included."""
    system, config = built(name, digits)
    run = steps(system, config, digits, 2)
    wide = lambda d: {p: {n: a.astype(np.float64) if a.dtype.kind == "f" else a for n, a in part.items()}
                      for p, part in d.items()}
    params, state = wide(run.params), wide(run.state)
    for player, entries in state.items():  # converged, the power iteration's vectors do not move with the weights
        for entry in [n for n in entries if n.endswith(".u")]:
            entries[entry], _ = power_iteration(params[player][entry[:-2]], entries[entry], 500)
    batch = train.batch_at(digits, 5, 2, 8)
    batch = batch._replace(x=batch.x.astype(np.float64))
    rng = np.random.default_rng(0)
    for k, (player, p) in enumerate(system.players.items()):
        v = {n: rng.standard_normal(a.shape) for n, a in params[player].items()}

        def total(h):
            moved = params | {player: {n: a + h * v[n] for n, a in params[player].items()}}  # noqa: B023
            loss, _, _, metrics = p.loss_and_grads(moved, state, batch, fold(9, k), ops)  # noqa: B023
            return float(loss) + sum(metrics.get(term, 0.0) for term in ("r1", "gp", "path", "orthogonal"))

        _, grads, _, _ = p.loss_and_grads(params, state, batch, fold(9, k), ops)
        slope = np.sum([np.sum(g * v[n]) for n, g in grads.items()])
        # Kinks of ReLUs and spectral norms: a difference may straddle one, so the best of three sizes counts.
        errors = [abs((total(h) - total(-h)) / (2 * h) - slope) for h in (1e-5, 1e-6, 1e-7)]
        assert min(errors) <= 2e-5 * (1 + abs(slope)), (player, errors, slope)


def test_generators_wait_for_the_critic(digits):
    system, config = built("wgan_gp", digits, critic_steps=3)
    run = steps(system, config, digits, 1)
    later = steps(system, config, digits, 2, run)
    assert same({"g": run.params["generator"]}, {"g": later.params["generator"]})
    assert not same({"d": run.params["discriminator"]}, {"d": later.params["discriminator"]})
    assert not same({"g": run.params["generator"]},
                    {"g": steps(system, config, digits, 1, later).params["generator"]})


def test_clipped_weights_stay_clipped(digits):
    system, config = built("wgan", digits, clip_weights=0.02)
    run = steps(system, config, digits, 2)
    assert max(np.max(abs(p)) for p in run.params["discriminator"].values()) <= np.float32(0.02)
    assert max(np.max(abs(p)) for p in run.params["generator"].values()) > 0.02


@pytest.mark.parametrize("objective", two_player.OBJECTIVES)
def test_every_objective_and_penalty(objective, digits):
    for penalty in ("none", *two_player.PENALTIES):
        system, config = built("gan", digits, objective=objective, penalty=penalty)
        run = steps(system, config, digits, 2)
        assert all(np.isfinite(p).all() for params in run.params.values() for p in params.values())


def test_truncation_narrows(digits):
    system, config = built("biggan", digits)
    run = steps(system, config, digits, 2)
    spread = [np.mean(np.std(system.sample(run.params, run.state, 40, 3, ops, np.zeros(40, int), truncation=t), axis=0))
              for t in (0.05, 0.5, 2.0)]
    assert spread == sorted(spread) and spread[0] < 0.5 * spread[2]
    for name in ("stylegan", "stylegan2"):
        system, config = built(name, digits)
        run = steps(system, config, digits, 2)
        x = [system.sample(run.params, run.state, 10, 3, ops, truncation=t) for t in (0.0, 0.5, 1.0)]
        assert np.any(x[0] != x[2]) and np.any(x[1] != x[2])


def test_growth_follows_its_schedule(digits):
    from refimpl.systems import progressive

    stages = [progressive.stage(k, 100, 3, 0.6, 0.5) for k in range(100)]
    assert [level for level, _ in stages] == [0] * 30 + [1] * 30 + [2] * 40
    assert all(alpha == 1 for _, alpha in stages[:30]) and stages[30][1] == 0 and stages[45][1] == 1
    assert stages[37][1] == pytest.approx(7 / 15) and stages[99] == (2, 1.0)
    assert progressive.stage(0, 100, 3, 0.0, 0.5) == (2, 1.0) and progressive.stage(0, 10, 1, 0.5, 0.5) == (0, 1.0)
    system, config = built("progressive", digits, grow=0.5, steps=8)
    run = steps(system, config, digits, 2)
    assert int(run.state["discriminator"]["step"]) == 2
    small = system.sample(train.averaged(run), run.state, 3, 3, ops)
    assert np.array_equal(small, ops.upsample_nearest(small[:, :, ::2, ::2], 2))  # still 4x4, drawn at full size
    run = steps(system, config, digits, 6, run)
    assert int(run.state["discriminator"]["step"]) == 8
    grown = system.sample(train.averaged(run), run.state, 3, 3, ops)
    assert np.any(grown != ops.upsample_nearest(grown[:, :, ::2, ::2], 2))


def test_mean_style_is_remembered(digits):
    system, config = built("stylegan2", digits)
    run = steps(system, config, digits, 3)
    assert np.any(run.state["generator"]["mean_w"]) and run.state["generator"]["mean_path"] > 0


def test_path_lengths_are_taken_lazily(digits):
    """At every path_every-th step, with path_every times the weight: the mean over steps stays."""
    def step(run, **changes):
        system, _ = built("stylegan2", digits, **changes)
        player = system.players["generator"].loss_and_grads
        return player(run.params, run.state, train.batch_at(digits, 5, run.step, 8), 9, ops)

    run = steps(*built("stylegan2", digits), digits, 2)
    always, lazy, never = step(run, path_every=1), step(run, path_every=2), step(run, path_weight=0.0)
    for n, g in never[1].items():
        np.testing.assert_allclose(lazy[1][n] - g, 2 * (always[1][n] - g), atol=1e-3 * (1 + np.max(abs(g))), rtol=1e-3)
    assert lazy[3]["path"] == pytest.approx(2 * always[3]["path"])
    skipped = step(steps(*built("stylegan2", digits), digits, 1))
    assert skipped[3] == {} and int(skipped[2]["generator"]["step"]) == 2


def test_captions(digits):
    from refimpl.systems import text_to_image

    assert text_to_image.caption(3, 1) == "three, thick" and text_to_image.caption(12, 0) == "12, thin"
    e = text_to_image.embed(np.array([3, 0]), np.array([1, 0]), 10, np.float32)
    assert e.shape == (2, 12) and e.sum() == 4 and e[0, 3] == e[0, 11] == e[1, 0] == e[1, 10] == 1
    medians = text_to_image.ink_medians(digits)
    thick = text_to_image.is_thick(digits.train, digits.train_labels, medians)
    assert abs(thick.mean() - 0.5) < 0.02
    assert digits.train[thick == 1].mean() > digits.train[thick == 0].mean()


def test_edges_and_domains(digits):
    from refimpl.systems import cyclegan, pix2pix

    x = np.zeros((1, 1, 4, 4), np.float32)
    x[0, 0, 1:3, 1:3] = 1
    e = pix2pix.edges(x)
    assert set(np.unique(e)) == {-1, 1} and e.shape == x.shape and (pix2pix.edges(0 * x) == -1).all()
    assert e[0, 0, 1, 1] == -1 and e[0, 0, 2, 2] == 1 and e[0, 0, 0, 1] == 1 and e[0, 0, 0, 0] == -1
    a, b = cyclegan.domains(digits.train[:10])
    assert np.array_equal(a, digits.train[:5]) and np.array_equal(b, -digits.train[5:10])


@pytest.mark.parametrize("name, changes, message", [
    ("gan", {"latent": 0}, "latent must be at least 1"),
    ("gan", {"width": 0}, "width must be at least 1"),
    ("gan", {"objective": "best"}, "objective must be one of minimax"),
    ("gan", {"penalty": "l2"}, "penalty must be one of none, r1"),
    ("gan", {"penalty_weight": -1.0}, "must not be negative"),
    ("dcgan", {"base": 3}, "size must be base 3"),
    ("biggan", {"base": 3}, "size must be base 3"),
    ("biggan", {"latent": 7}, "latent a multiple of 3, got 7"),
    ("progressive", {"batch": 6}, "batch must be a multiple of the group of 4"),
    ("progressive", {"grow": 1.0}, "grow must be in"),
    ("stylegan", {"base": 5}, "size must be base 5"),
    ("stylegan", {"mixing": 2.0}, "mixing must be in"),
    ("stylegan2", {"depth": 0}, "depth of the mapping"),
    ("stylegan2", {"path_every": 0}, "path_every must be at least 1"),
])
def test_bad_settings_are_one_sentence(name, changes, message, digits):
    refuses(lambda: train.begin(built(name, digits, **changes)[0], 1), message)


@pytest.mark.parametrize("name", ["cgan", "dcgan", "biggan", "progressive", "text_to_image", "pix2pix", "srgan"])
def test_data_that_do_not_fit(name):
    with pytest.raises(ValueError, match=r"moons|labels") as error:
        built(name, data.load("moons")._replace(classes=0, train_labels=None))
    assert "\n" not in str(error.value)


def test_labels_that_do_not_match(digits):
    system, _ = built("cgan", digits)
    run = train.begin(system, 1)
    for labels in (np.array([0, 10]), np.array([0]), np.array([-1, 0])):
        with pytest.raises(ValueError, match="labels must be 2 integers"):
            system.sample(run.params, run.state, 2, 1, ops, labels)
    system, _ = built("gan", digits)
    run = train.begin(system, 1)
    with pytest.raises(ValueError, match="knows no classes"):
        system.sample(run.params, run.state, 2, 1, ops, np.array([0, 1]))


def test_a_discriminator_that_diverges_says_so(digits):
    system, config = built("wgan", digits, clip_weights=0.0, rate=1e30)
    with pytest.raises(train.Diverged, match=r"discriminator|generator"):
        steps(system, config, digits, 5)


def test_all_are_on_the_command_line():
    assert {name.replace("-", "_") for name in SYSTEMS} >= set(SMALL)
