"""Diffusion systems beside DDPM: gradients of their losses, what their networks are asked, every sampler, likelihoods."""
import numpy as np
import pytest
from conftest import refuses

from benchmarks import quality_diffusion
from refimpl import data, ops, systems, train
from refimpl.equations import catalogue, continuous, diffusion, likelihood, mixture
from refimpl.systems import drawing, prior

IMAGES = data.Data("made up", np.round(8 * np.sin(np.arange(6 * 16)).reshape(6, 1, 4, 4)) / 8, np.arange(6) % 3,
                   np.round(8 * np.cos(np.arange(2 * 16)).reshape(2, 1, 4, 4)) / 8, np.zeros(2, int), 3, 17)
POINTS = IMAGES._replace(train=np.sin(np.arange(16.0)).reshape(8, 2), test=np.cos(np.arange(4.0)).reshape(2, 2),
                         train_labels=np.arange(8) % 3, levels=None)
SMALL = {"channels": 8, "width": 8, "depth": 1, "attention": [2], "steps": 4}
CASES = {"improved-ddpm": {"T": 40}, "ncsn": {"scales": 6}, "score-sde": {}, "score-sde ve": {"sde": "ve"},
         "score-sde subvp": {"sde": "subvp"}, "edm": {}, "flow-matching": {}, "cold": {"T": 5},
         "ddpm min_snr": {"T": 40, "weight": "min_snr"}, "ddpm p2": {"T": 40, "weight": "p2", "prediction": "x0"},
         "ddpm flow": {"T": 40, "weight": "truncated_snr", "prediction": "flow"}}
DRAWN = {"improved-ddpm": "vp", "ncsn": "ve", "score-sde": "vp", "score-sde ve": "ve", "score-sde subvp": "subvp",
         "edm": "ve", "flow-matching": "flow", "ddpm p2": "vp"}


def built(name, samples, rng=None, **changes):
    """System and parameters in float64; with rng, random in place of the zeros that a network starts with."""
    config = systems.configure(name.split()[0], samples, SMALL | CASES[name] | changes)
    system = systems.build(name.split()[0], config, samples)
    params = {k: p.astype(np.float64) for k, p in system.players["model"].init(0)[0].items()}
    if rng is not None:
        params = {k: p + 0.1 * rng.standard_normal(p.shape) for k, p in params.items()}
    return system, {"model": params}


@pytest.mark.parametrize("samples", [IMAGES, POINTS], ids=["unet", "mlp"])
@pytest.mark.parametrize("name", [name for name in CASES if name != "improved-ddpm"])
def test_gradient_of_the_loss(samples, name, rng):
    """Against the complex step along a random direction, which has no rounding to speak of."""
    system, params = built(name, samples, rng)
    loss_and_grads = system.players["model"].loss_and_grads
    direction = {k: rng.standard_normal(p.shape) for k, p in params["model"].items()}

    def at(h):
        moved = {"model": {k: p + h * direction[k] for k, p in params["model"].items()}}
        return loss_and_grads(moved, {"model": {}}, train.Batch(samples.train + 0 * h, samples.train_labels), 5, ops)

    loss, grads, _, _ = at(0.0)
    found = sum(np.sum(g * direction[k]) for k, g in grads.items())
    slope = at(1e-30j)[0].imag / 1e-30
    assert loss > 0 and grads.keys() == params["model"].keys()
    assert abs(found - slope) < 1e-10 * max(1, abs(slope))


@pytest.mark.parametrize("samples", [IMAGES, POINTS], ids=["unet", "mlp"])
def test_gradient_of_the_hybrid_loss(samples, rng, monkeypatch):
    """With the bound's e frozen at what it was, the hybrid loss has the gradient that is returned."""
    from refimpl.systems import improved_ddpm

    system, params = built("improved-ddpm", samples, rng)
    batch, loss_and_grads = train.Batch(samples.train, samples.train_labels), system.players["model"].loss_and_grads
    kept, hybrid = [], improved_ddpm.hybrid_loss

    def frozen(e, *rest):
        kept.append(e)
        return hybrid(e, *rest, frozen=kept[0])

    monkeypatch.setattr(improved_ddpm, "hybrid_loss", frozen)
    direction = {k: rng.standard_normal(p.shape) for k, p in params["model"].items()}

    def at(h):
        moved = {"model": {k: p + h * direction[k] for k, p in params["model"].items()}}
        return loss_and_grads(moved, {"model": {}}, batch, 5, ops)

    found = sum(np.sum(g * direction[k]) for k, g in at(0.0)[1].items())
    difference = lambda h: (at(h)[0] - at(-h)[0]) / (2 * h)
    slope = (4 * difference(1e-4) - difference(2e-4)) / 3  # the error's first term cancels
    assert abs(found - slope) < 1e-7 * max(1, abs(slope))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("samples", [IMAGES, POINTS], ids=["unet", "mlp"])
def test_training_and_sampling(name, samples):
    """Two steps of the common trainer in float32; samples do not depend on how many are drawn with them."""
    config = systems.configure(name.split()[0], samples, SMALL | CASES[name])
    system = systems.build(name.split()[0], config, samples)
    samples = samples._replace(train=samples.train.astype(np.float32))
    run = train.begin(system, 0)
    for step in range(2):
        run, _ = train.advance(system, run, train.batch_at(samples, 0, step, 4), 0, ops)
    assert np.isfinite(run.history["model"]).all()
    params = train.averaged(run)
    x = system.sample(params, run.state, 5, 1, ops, labels=np.array([0, 1, 2, 0, 1]))
    later = system.sample(params, run.state, 2, 1, ops, labels=np.array([0, 1]), first=3)
    assert x.shape == (5, *samples.shape) and x.dtype == np.float32
    np.testing.assert_allclose(later, x[3:], atol=2e-4)
    assert system.sample(params, run.state, 0, 1, ops).shape == (0, *samples.shape)
    if system.nll:
        assert np.isfinite(system.nll(params, run.state, samples.test.astype(np.float32), 1, ops)).all()


WEIGHTS, MEANS, VARIANCE = np.full(3, 1 / 3), np.array([[-1.0, 0.0], [0.7, 0.7], [0.7, -0.7]]), 0.04
MIXTURE = mixture.mixture(WEIGHTS, MEANS, VARIANCE)


@pytest.mark.parametrize("name", DRAWN)
def test_every_sampler_with_the_exact_network(name, monkeypatch):
    """Told its levels and given its inputs right, a network that knows the mixture makes every sampler arrive in it."""
    points = POINTS._replace(train_labels=None, test_labels=None, classes=0)
    config = systems.configure(name.split()[0], points, SMALL | CASES[name])
    model = systems.module(name.split()[0]).model(config, points)
    asked = {}

    def network(config, d, outputs=1):
        init, _ = plain(config, d, outputs)

        def net(params, x, t, labels, ops, key=None):
            signal, noise = asked["level"]
            np.testing.assert_allclose(t, float(model.told(signal, noise)), atol=1e-6)
            y = x if model.scale is None else x / float(model.scale(signal, noise))
            x0_hat = mixture.mixture_denoiser(y, MIXTURE, signal, noise)
            if model.denoiser:
                a, b = (float(c) for c in model.denoiser(signal, noise))
                return (x0_hat - a * y) / b, None
            e = diffusion.convert(x0_hat, y, signal, noise, "x0", model.prediction)
            return np.concatenate([e] + [0 * e] * (outputs - 1), axis=1), None

        return init, net

    plain = prior.network
    monkeypatch.setattr(prior, "network", network)
    scaled = drawing.scaled

    def watched(model, x, *level):
        asked["level"] = level
        return scaled(model, x, *level)

    monkeypatch.setattr(drawing, "scaled", watched)
    system = systems.build(name.split()[0], config, points)
    params = {"model": {k: p.astype(np.float64) for k, p in system.players["model"].init(0)[0].items()}}
    path = DRAWN[name]
    for sampler in catalogue.SAMPLERS:
        refused = {"flow-heun": path != "flow", "langevin": path != "ve", "euler-maruyama": path == "flow",
                   "plms": path == "flow", "edm": path == "flow"}.get(sampler, False)
        least = {"edm": 0.002, "ncsn": 0.02}.get(name, 0.01)
        options = {"step": 0.1 * least**2, "inner": 20} if sampler == "langevin" else {}
        if refused:
            with pytest.raises(ValueError):
                system.sample(params, {}, 1, 3, ops, sampler=sampler, steps=30, **options)
            continue
        x = system.sample(params, {}, 64, 3, ops, sampler=sampler, steps=40, **options)
        gap = np.sqrt(np.min(np.sum((x[:, None] - MEANS) ** 2, axis=2), axis=1))
        counts = np.bincount(np.argmin(np.sum((x[:, None] - MEANS) ** 2, axis=2), axis=1), minlength=3)
        assert 0.15 < np.mean(gap) < 0.6 and counts.min() >= 8, (sampler, np.mean(gap), counts)


@pytest.mark.parametrize("name", DRAWN)
def test_training_asks_for_what_sampling_takes(name, rng):
    """Levels of a training step lie on the path and are told as a sampler tells them; the loss is least at the output that
    sampling reads as x0."""
    model = systems.module(name.split()[0]).model(systems.configure(name.split()[0], IMAGES, SMALL | CASES[name]), IMAGES)
    signal, noise, told = model.draw((np.arange(6) + 0.3) / 6)
    x0, eps = IMAGES.train, rng.standard_normal(IMAGES.train.shape)
    for a, b, label in zip(signal, noise, told):
        np.testing.assert_allclose(drawing.on_path(a, b, DRAWN[name]), (a, b), rtol=1e-8)
        np.testing.assert_allclose(model.told(a, b), label, atol=1e-6)
    assert len(np.unique(told)) == 6 and np.ptp(np.log(noise / signal)) > 3
    signal_, noise_ = (v.reshape(-1, 1, 1, 1) for v in (signal, noise))
    x_t = signal_ * x0 + noise_ * eps
    if model.denoiser:
        a, b = (v.reshape(-1, 1, 1, 1) for v in model.denoiser(signal, noise))
        best = (x0 - a * x_t) / b
    else:
        best = diffusion.convert(x0, x_t, signal, noise, "x0", model.prediction)
    best = np.concatenate([best] + [0 * best] * (model.outputs - 1), axis=1)
    value, slope = model.loss(best, x0, x_t, eps, signal, noise, told)
    assert np.max(abs(slope[:, :1])) < 1e-9 and (value < 1e-9 or model.outputs == 2)
    assert model.loss(best + 0.1, x0, x_t, eps, signal, noise, told)[0] > value + 1e-4


@pytest.mark.parametrize("samples", [IMAGES, POINTS], ids=["unet", "mlp"])
@pytest.mark.parametrize("name", ["ncsn", "score-sde", "score-sde subvp", "edm", "flow-matching"])
def test_likelihood_by_pullbacks_is_that_by_complex_steps(samples, name, rng, monkeypatch):
    system, params = built(name, samples, rng)
    config = systems.configure(name.split()[0], samples, SMALL | CASES[name])
    model, (_, net), calls = systems.module(name.split()[0]).model(config, samples), prior.network(config, samples), []
    ode = likelihood.ode_log_likelihood
    wide = {k: v + 0j for k, v in params["model"].items()}

    def both(predict, x, levels, density, **options):
        def plain(x, signal, noise):
            told = np.full(len(x), float(model.told(signal, noise)))
            e = net(wide, drawing.scaled(model, x, signal, noise), told, np.full(len(x), 3), ops)[0]
            a, b = model.denoiser(signal, noise) if model.denoiser else (0.0, 1.0)
            return a * x + b * e

        calls.append((ode(predict, x, levels, density, **options),
                      ode(plain, x, levels, density, **options | {"pullback": False})))
        return calls[-1][0]

    monkeypatch.setattr(likelihood, "ode_log_likelihood", both)
    value = system.nll(params, {}, samples.test, 1, ops, steps=3)
    np.testing.assert_allclose(*calls[0], rtol=1e-9)
    if samples is POINTS:
        np.testing.assert_allclose(value, -calls[0][0])
    else:  # a network that says nothing about 16 pixels of 17 values: some bits for each
        assert value.shape == (2,) and (value > 1).all()


def test_cold_diffusion_takes_the_algorithm_asked_for():
    """With a restorer that always says grey, algorithm 2 keeps what it started from and algorithm 1 says grey."""
    system, params = built("cold", IMAGES)
    assert np.abs(system.sample(params, {}, 3, 1, ops)).max() > 0.01
    assert np.abs(system.sample(params, {}, 3, 1, ops, improved=False)).max() == 0


def test_edm_network_of_gaussian_data_says_nothing():
    """With F = 0 the denoiser is the right one for data N(0, sigma_d^2), and Heun's samples have that deviation."""
    points = POINTS._replace(train=np.array([[3.0, -3.0], [-3.0, 3.0]]), train_labels=None, test_labels=None, classes=0)
    system, params = built("edm", points)
    x = system.sample(params, {}, 2000, 1, ops, steps=40)
    np.testing.assert_allclose(x.std(axis=0), 3.0, rtol=0.05)


def test_levels_of_a_path():
    """A level off the path is asked as the one of its SNR; one that lies on it as itself."""
    assert drawing.on_path(1.0, 0.5, "ve") == (1.0, 0.5)
    np.testing.assert_allclose(drawing.on_path(0.5, 1.0, "ve"), (1.0, 2.0))
    np.testing.assert_allclose(drawing.on_path(1.0, 1.0, "vp"), np.sqrt([0.5, 0.5]))
    for path, level in (("vp", continuous.vp_level), ("subvp", continuous.subvp_level), ("flow", continuous.flow_level)):
        signal, noise = (float(v) for v in level(0.37))
        assert drawing.on_path(signal, noise, path) == (signal, noise)
        np.testing.assert_allclose(drawing.on_path(3 * signal, 3 * noise, path), (signal, noise))


@pytest.mark.parametrize("name, samples, changes, words", [
    ("ddpm", POINTS, {"weight": "heavy"}, "weight must be plain or one of eps"),
    ("improved-ddpm", POINTS, {"T": 1}, "T must be at least 2"),
    ("improved-ddpm", POINTS, {"vlb_weight": -1.0}, "vlb_weight must not be negative, got -1"),
    ("ncsn", POINTS, {"scales": 1}, "scales of at least 2"),
    ("ncsn", POINTS, {"sigma_min": 5.0}, "0 < sigma_min < sigma_max expected"),
    ("score-sde", POINTS, {"sde": "sub"}, "sde must be one of vp, subvp, ve, got 'sub'"),
    ("score-sde", POINTS, {"last": 0.0}, r"last must be in \(0, 1\), got 0"),
    ("score-sde", POINTS, {"beta_min": 30.0}, "0 < beta_min < beta_max expected"),
    ("edm", POINTS, {"sigma_min": 0.0}, "0 < sigma_min < sigma_max expected"),
    ("edm", POINTS, {"deviation": 0.0}, "deviation must be positive"),
    ("cold", POINTS, {"degradation": "blur"}, "blur needs images"),
    ("cold", IMAGES, {"degradation": "rust"}, "degradation must be one of blur, noise, got 'rust'"),
    ("cold", IMAGES, {"T": 0}, "T of at least 1"),
])
def test_settings_that_do_not_fit(name, samples, changes, words):
    with pytest.raises(ValueError, match=words):
        systems.build(name, systems.configure(name, samples, SMALL | changes), samples)


@pytest.mark.parametrize("name, options, words", [
    ("improved-ddpm", {"steps": 41}, r"steps must be in 1\.\.40, got 41"),
    ("improved-ddpm", {"sampler": "ddim", "eta": 1.5}, r"eta must be in \[0, 1\], got 1.5"),
    ("improved-ddpm", {"sampler": "ddim", "eta": "much"}, "eta must be a number, got 'much'"),
    ("improved-ddpm", {"sampler": "heun", "eta": 0.5}, "sampler 'heun' has no option 'eta'"),
    ("improved-ddpm", {"sampler": "dpm-solver-4"}, "sampler must be one of ddpm, ddim"),
    ("improved-ddpm", {"sampler": "langevin"}, "langevin keeps the signal at 1"),
    ("improved-ddpm", {"spacing": "even"}, "spacing must be"),
    ("score-sde", {"sampler": "ddpm", "variance": "learned"}, "variance 'learned' needs a network that gives one"),
    ("flow-matching", {"sampler": "euler-maruyama"}, "a path 'flow' has none here"),
    ("flow-matching", {"sampler": "plms"}, "plms divides by the signal, which is 0"),
    ("flow-matching", {"sampler": "edm"}, "churn has no meaning at signal 0"),
    ("ncsn", {"steps": 0}, "steps must be an integer >= 1"),
    ("cold", {"sampler": "ddim"}, "only --sampler cold restores what was degraded"),
    ("cold", {"steps": 3}, "steps must be 5, got 3"),
])
def test_what_the_mathematics_does_not_allow(name, options, words):
    system, params = built(name, POINTS)
    refuses(lambda: system.sample(params, {}, 2, 0, ops, **options), words)


@pytest.mark.parametrize("name", quality_diffusion.ACCEPTANCE)
def test_acceptance_runs(name, monkeypatch):
    """With two training steps every acceptance function returns finite figures and named requirements."""
    monkeypatch.setattr(quality_diffusion, "computer", lambda name: ("reference", ops))
    short = {"ddpm": {"most": 20, "ancestral": 4}, "improved-ddpm": {"most": 40, "terms": 3}, "ncsn": {}}
    found = quality_diffusion.ACCEPTANCE[name](steps=2, **short.get(name, {"most": 40}))
    assert found["passed"] and all(np.isfinite(v) for k, v in found.items() if k != "passed" and v is not None)
