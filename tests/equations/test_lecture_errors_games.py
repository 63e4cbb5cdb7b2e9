"""Errors in the lecture texts on games, transposed convolution and batch norm: each printed form must fail here."""
import numpy as np

from refimpl import ops
from refimpl.equations import adversarial as adv
from refimpl.equations import game


def test_the_matrix_called_alternating_is_simultaneous_descent():
    """Error 4: [[1,-a],[a,1]] diverges at every step; alternating descent is [[1,-a],[a,1-a^2]] and stays bounded."""
    a, z0 = 0.3, np.array([1.0, 0.5])
    printed = np.array([[1, -a], [a, 1]])
    x = z0[0] - a * z0[1]
    alternated = np.array([x, z0[1] + a * x])
    assert not np.allclose(printed @ z0, alternated)
    assert np.allclose(printed, game.simultaneous(a)) and np.allclose(game.alternating(a) @ z0, alternated)
    assert np.linalg.norm(game.trajectory(printed, z0, 200)[-1]) > 1000
    assert np.linalg.norm(game.trajectory(game.alternating(a), z0, 10000), axis=1).max() < 2


def test_alternating_descent_is_bounded_only_below_step_two():
    """Error 4: at a = 2 the eigenvalue -1 is defective and the players run away linearly."""
    z0 = np.array([1.0, 0.5])
    assert np.linalg.norm(game.trajectory(game.alternating(1.99), z0, 3000), axis=1).max() < 100
    ends = np.linalg.norm(game.trajectory(game.alternating(2.0), z0, 2000)[[1000, 2000]], axis=1)
    assert abs(ends[1] / ends[0] - 2) < 1e-2
    assert np.allclose(np.linalg.eigvals(game.alternating(2.0)), -1, atol=1e-6)


def test_the_non_saturating_loss_has_the_same_fixed_point_and_other_dynamics():
    """Error 10: at equilibrium (l = 0, D constant) both push alike; away from it the gradients differ without bound."""
    equal, apart = np.zeros(1), np.array([-10.0])
    assert adv.minimax_g_vjp(1.0, equal) == adv.non_saturating_g_vjp(1.0, equal) == -0.5
    ratio = adv.non_saturating_g_vjp(1.0, apart) / adv.minimax_g_vjp(1.0, apart)
    assert abs(ratio / np.exp(10) - 1) < 1e-12

    def orbit(vjp, z, steps=400, h=0.05):
        """Data at 0, a sample at theta, logit psi x: both players descend their own losses."""
        for _ in range(steps):
            theta, psi = z
            l = np.array([theta * psi])
            z = z - h * np.array([psi * vjp(1.0, l)[0], theta * adv.minimax_d_vjp(1.0, np.zeros(1), l)[1][0]])
        return z

    start = np.array([1.0, 1.0])
    assert np.linalg.norm(orbit(adv.minimax_g_vjp, start) - orbit(adv.non_saturating_g_vjp, start)) > 0.5
    near = 1e-4 * start  # where the two linearise to the same rotation
    assert np.linalg.norm(orbit(adv.minimax_g_vjp, near) - orbit(adv.non_saturating_g_vjp, near)) < 1e-7


def zero_inserted(x, stride, output_padding):
    """The image with stride - 1 zeros between its pixels and output_padding zeros after them."""
    n, c, h, w = x.shape
    y = np.zeros((n, c, (h - 1) * stride + 1 + output_padding, (w - 1) * stride + 1 + output_padding))
    y[:, :, : (h - 1) * stride + 1 : stride, : (w - 1) * stride + 1 : stride] = x
    return y


def test_transposed_convolution_is_a_convolution_only_with_the_kernel_flipped_and_swapped(rng):
    """Error 13: the zero-inserted input with the same kernel is another map: flip, swap, pad by k - 1 - p."""
    x, w = rng.standard_normal((2, 3, 4, 4)), rng.standard_normal((3, 3, 4, 4))
    stride, padding, extra = 2, 1, 1
    expected = ops.conv_transpose2d(x, w, stride=stride, padding=padding, output_padding=extra)
    inserted = zero_inserted(x, stride, extra)
    correct = ops.conv2d(inserted, w[:, :, ::-1, ::-1].swapaxes(0, 1), padding=4 - 1 - padding)
    assert np.allclose(correct, expected, rtol=0, atol=1e-12)
    for printed in (w, w.swapaxes(0, 1), w[:, :, ::-1, ::-1]):
        assert not np.allclose(ops.conv2d(inserted, printed, padding=4 - 1 - padding), expected, atol=0.1)
    assert ops.conv2d(inserted, w, padding=padding).shape != expected.shape
