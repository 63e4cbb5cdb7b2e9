"""Diffusion systems on device arrays that refuse conversion to NumPy: losses, gradients and samples as on the host."""
import numpy as np
import pytest
from strict import special_functions, to_device, to_host

from refimpl import data, ops, systems, train

IMAGES = data.Data("made up", np.round(8 * np.sin(np.arange(6 * 16)).reshape(6, 1, 4, 4)) / 8, np.arange(6) % 3,
                   np.zeros((1, 1, 4, 4)), np.zeros(1, int), 3, 17)
POINTS = IMAGES._replace(train=np.sin(np.arange(16.0)).reshape(8, 2), test=np.zeros((1, 2)), train_labels=np.arange(8) % 3,
                         levels=None)
CASES = {"ddpm": {"T": 20, "weight": "min_snr"}, "improved-ddpm": {"T": 20}, "ncsn": {"scales": 4}, "score-sde": {},
         "edm": {}, "flow-matching": {}, "cold": {"T": 4}}


@pytest.mark.parametrize("samples", [IMAGES, POINTS], ids=["unet", "mlp"])
@pytest.mark.parametrize("name", CASES)
def test_on_device(name, samples, rng, monkeypatch):
    special_functions(monkeypatch)
    settings = {"channels": 8, "width": 8, "depth": 1, "attention": [2], "steps": 4} | CASES[name]
    system = systems.build(name, systems.configure(name, samples, settings), samples)
    params = {k: p + 0.1 * rng.standard_normal(p.shape) for k, p in system.players["model"].init(0)[0].items()}

    def run(params, x):
        loss, grads, _, _ = system.players["model"].loss_and_grads(
            {"model": params}, {"model": {}}, train.Batch(x, samples.train_labels), 5, ops)
        options = {} if name == "cold" else {"guidance": 0.5}
        few = {} if name in ("cold", "ncsn") else {"steps": 3}
        return loss, grads, system.sample({"model": params}, {}, 3, 1, ops, np.array([0, 2, 1]), **few, **options)

    host, device = run(params, samples.train), to_host(run(to_device(params), to_device(samples.train)))
    np.testing.assert_array_equal(device[0], host[0])
    np.testing.assert_array_equal(device[2], host[2])
    for k, gradient in host[1].items():
        np.testing.assert_array_equal(device[1][k], gradient)
