"""Translation losses, CTC and image metrics beside PyTorch."""
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: E402

from refimpl.equations import ctc, metrics, translation  # noqa: E402

bce = F.binary_cross_entropy_with_logits
to = lambda value: lambda l: bce(l, torch.full_like(l, value))
half = lambda l: F.mse_loss(l, torch.ones_like(l)) / 2
IMAGE = (2, 1, 3, 3)
LOSSES = {
    "matching_d": ({}, [(4,), (4,), (4,)], lambda r, w, f: to(1.0)(r) + (to(0.0)(w) + to(0.0)(f)) / 2),
    "pix2pix_g": ({"weight": 100.0}, [(4,), IMAGE, IMAGE], lambda l, y, t: to(1.0)(l) + 100 * F.l1_loss(y, t)),
    "cyclegan_g": ({"weight": 10.0}, [(4,), (3,), IMAGE, IMAGE, IMAGE, IMAGE], lambda la, lb, a, ac, b, bc: (
        half(la) + half(lb) + 10 * (F.l1_loss(ac, a) + F.l1_loss(bc, b)))),
    "srgan_g": ({"weight": 1e-3}, [(4,), IMAGE, IMAGE], lambda l, y, t: F.mse_loss(y, t) + 1e-3 * to(1.0)(l)),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", LOSSES)
def test_loss(name, seed):
    options, shapes, theirs = LOSSES[name]
    rng = np.random.default_rng(seed)
    inputs = [rng.standard_normal(s) for s in shapes]
    tensors = [torch.tensor(a, requires_grad=True) for a in inputs]
    expected = theirs(*tensors)
    assert abs(getattr(translation, name)(*inputs, **options) - expected.item()) <= 1e-12 * (1 + abs(expected.item()))
    back = getattr(translation, f"{name}_vjp")(0.7, *inputs, **options)
    for ours, other in zip(back, torch.autograd.grad(expected, tensors), strict=True):
        np.testing.assert_allclose(ours, 0.7 * other.numpy(), rtol=0, atol=1e-12 * options.get("weight", 1))


@pytest.mark.parametrize("labels", [[], [1], [2, 2], [1, 2, 1], [3, 3, 3], [1, 2, 3, 1]])
def test_ctc(labels):
    rng = np.random.default_rng(len(labels))
    for frames in (2 * len(labels) + 1, 12):
        logits = 2 * rng.standard_normal((frames, 4))
        t = torch.tensor(logits, requires_grad=True)
        expected = F.ctc_loss(F.log_softmax(t, 1)[:, None], torch.tensor([labels], dtype=torch.long), [frames],
                              [len(labels)], reduction="sum")
        (grad,) = torch.autograd.grad(expected, t)
        assert abs(ctc.ctc(logits, np.array(labels, dtype=int)) - expected.item()) < 1e-10
        np.testing.assert_allclose(ctc.ctc_vjp(1.0, logits, np.array(labels, dtype=int)), grad.numpy(), atol=1e-10)


def test_frechet_distance_by_a_general_matrix_root():
    """Where covariances have full rank, the usual formula with a general square root says the same."""
    linalg = pytest.importorskip("scipy.linalg")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((50, 6)), rng.standard_normal((40, 6)) @ rng.standard_normal((6, 6)) + 1
    (m1, c1), (m2, c2) = metrics.moments(x), metrics.moments(y)
    expected = np.sum((m1 - m2) ** 2) + np.trace(c1 + c2 - 2 * np.real(linalg.sqrtm(c1 @ c2)))
    assert abs(metrics.frechet_distance(x, y) - expected) < 1e-9 * expected
