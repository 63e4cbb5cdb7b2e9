"""The diffusion step: what it refuses, NaN through the clip, and dtypes."""
import numpy as np
import pytest

from refimpl import ops

X = np.linspace(-2, 2, 12).reshape(3, 4)
KEYED = (5, [0, 1, 2], 0)


@pytest.mark.parametrize("change, error, sentence", [
    (dict(signal=[0.5, 0.5]), ValueError, r"one number or one per sample, got shape \(2,\) for data \(3, 4\)"),
    (dict(noise=np.ones((3, 4))), ValueError, r"one number or one per sample, got shape \(3, 4\)"),
    (dict(z=X[:2]), ValueError, r"q_sample: z in x's shape \(3, 4\) expected, got \(2, 4\)"),
    (dict(z=X.astype(np.float32)), TypeError, "q_sample: z in x's dtype float64 expected, got float32"),
    (dict(z=(5, [0], 0)), ValueError, r"q_sample: one index per sample \(3\) expected, got 1"),
    (dict(z=(-5, [0, 1, 2], 0)), ValueError, "random: key must be in"),
    (dict(x0=X.astype(int)), TypeError, "q_sample: inexact arrays expected, got x0 int64"),
])
def test_q_sample_refuses(change, error, sentence):
    with pytest.raises(error, match=sentence):
        ops.q_sample(**(dict(x0=X, signal=0.6, noise=0.8, z=X) | change))


def step(**change):
    return ops.sampler_step(**(dict(x=X, e_c=X, a=1.0, b=-0.5, c_0=1.0) | change))


@pytest.mark.parametrize("change, error, sentence", [
    (dict(e_c=X[:, :3]), ValueError, r"sampler_step: e_c in x's shape \(3, 4\) expected, got \(3, 3\)"),
    (dict(e_u=X[:2]), ValueError, r"sampler_step: e_u in x's shape \(3, 4\) expected, got \(2, 4\)"),
    (dict(e_c=X.astype(np.float32)), TypeError, "sampler_step: e_c in x's dtype float64 expected, got float32"),
    (dict(a=X), TypeError, "sampler_step: w, a, b must be numbers, got"),
    (dict(c_x=None), TypeError, "sampler_step: c_x, c_0, c_e, sigma must be numbers, got"),
    (dict(history=[X]), ValueError, "sampler_step: 1 history terms but 0 coefficients c_h"),
    (dict(history=[X[:1]], c_h=[1.0]), ValueError, r"history in x's shape \(3, 4\) expected, got \(1, 4\)"),
    (dict(sigma=0.1), ValueError, "sampler_step: sigma 0.1 needs noise z, got None"),
    (dict(sigma=0.1, z=X[:1]), ValueError, r"sampler_step: z in x's shape \(3, 4\) expected, got \(1, 4\)"),
    (dict(lo=1, hi=-1), ValueError, "sampler_step: lo must not exceed hi, got 1 and -1"),
    (dict(lo=[-1, -1]), ValueError, r"one number or one per sample, got shape \(2,\)"),
    (dict(x=X.astype(int), e_c=X.astype(int)), TypeError, "sampler_step: inexact arrays expected, got x int64"),
])
def test_sampler_step_refuses(change, error, sentence):
    with pytest.raises(error, match=sentence):
        step(**change)


def test_cotangents_must_fit():
    with pytest.raises(ValueError, match=r"sampler_step_vjp: dx_s in x's shape \(3, 4\) expected, got \(3, 1\)"):
        ops.sampler_step_vjp((X[:, :1], X), X, X, a=1, b=1)
    with pytest.raises(ValueError, match=r"q_sample_vjp: dy in x's shape \(3, 4\) expected, got \(3, 1\)"):
        ops.q_sample_vjp(X[:, :1], X, 1, 1, X)


def test_keyed_noise_has_no_cotangent():
    assert ops.q_sample_vjp(X, X, 1, 1, KEYED)[1] is None


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_clip_passes_nan_through():
    x = np.array([[np.nan, np.inf, -np.inf, 0.0]])
    x_s, x0 = step(x=x, e_c=0 * X[:1], lo=-1, hi=1)
    np.testing.assert_array_equal(x0, [[np.nan, 1, -1, 0]])
    np.testing.assert_array_equal(np.isnan(x_s), [[True, True, True, False]])  # 0 x_t is NaN at infinity


def test_limits_per_sample():
    _, x0 = step(b=0.0, lo=[-1, -0.5, 0], hi=[1, 0.5, 0])
    np.testing.assert_array_equal(x0, np.clip(X, [[-1], [-0.5], [0]], [[1], [0.5], [0]]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_dtype_stays_with_numpys_own_scalars(dtype):
    x, one = X.astype(dtype), np.float64(1.0)
    made = step(x=x, e_c=x, e_u=x, w=one, a=one, b=one, lo=-one, hi=np.ones(3), c_x=one, c_0=one, c_e=one,
                history=[x], c_h=[one], sigma=one, z=KEYED)
    made += ops.sampler_step_vjp((x, x), x, x, x, w=one, a=one, b=one, c_x=one, c_0=one, c_e=one)
    made += (ops.q_sample(x, one, np.ones(3), KEYED), *ops.q_sample_vjp(x, x, one, np.ones(3), x))
    assert {a.dtype for a in made} == {np.dtype(dtype)}


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0,)])
def test_nothing_in_nothing_out(shape):
    x = np.ones(shape)
    keyed = (1, np.arange(shape[0]), 0)
    assert all(a.shape == shape for a in (*step(x=x, e_c=x, sigma=1.0, z=keyed, lo=-1), ops.q_sample(x, 1, 1, keyed)))


def test_no_noise_is_formed_without_sigma():
    assert np.array_equal(step(z=(5, "not looked at", 0))[0], step()[0])
