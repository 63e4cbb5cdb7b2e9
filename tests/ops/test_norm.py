"""The norms: what they refuse, and what they keep of dtype, strides and emptiness."""
import numpy as np
import pytest

from refimpl import ops

X, G = np.arange(48.0).reshape(2, 6, 2, 2), np.ones(6)
RUNNING = dict(running_mean=G, running_var=G, train=True)


@pytest.mark.parametrize("name, arguments, sentence", [
    ("group_norm", dict(groups=4), "groups must divide the 6 channels, got 4"),
    ("group_norm", dict(groups=0), "groups must divide the 6 channels, got 0"),
    ("group_norm", dict(groups=2, gamma=G[:3]), "gamma (6,) expected, got (3,)"),
    ("group_norm", dict(groups=2, beta=np.ones((6, 1))), "beta (6,) expected, got (6, 1)"),
    ("group_norm", dict(groups=1, x=X[0, :, 0, 0]), "x (N, C, ...) expected, got shape (6,)"),
    ("instance_norm", dict(gamma=G[:3]), "gamma (6,) expected, got (3,)"),
    ("instance_norm", dict(x=G), "x (N, C, ...) expected, got shape (6,)"),
    ("layer_norm", dict(axes=5), "axes must be in 1..4 for x (2, 6, 2, 2), got 5"),
    ("layer_norm", dict(axes=0), "axes must be in 1..4 for x (2, 6, 2, 2), got 0"),
    ("layer_norm", dict(axes=2, gamma=np.ones(2)), "gamma (2, 2) expected, got (2,)"),
    ("batch_norm", RUNNING | dict(beta=G[:3]), "beta (6,) expected, got (3,)"),
    ("batch_norm", RUNNING | dict(running_var=G[:3]), "running_var (6,) expected, got (3,)"),
    ("batch_norm", RUNNING | dict(x=X[:1, :, 0, 0]), "training needs more than one value per channel, got x (1, 6)"),
    ("batch_norm", RUNNING | dict(x=X[:0]), "training needs more than one value per channel, got x (0, 6, 2, 2)"),
])
@pytest.mark.parametrize("vjp", [False, True])
def test_norms_refuse(name, arguments, sentence, vjp):
    defaults = {} if name in ("instance_norm", "layer_norm") else dict(gamma=None, beta=None)
    arguments = dict(x=X) | defaults | arguments | (dict(dy=arguments.get("x", X)) if vjp else {})
    with pytest.raises(ValueError) as error:
        getattr(ops, name + "_vjp" * vjp)(**arguments)
    assert str(error.value) in (f"{name}: {sentence}", f"{name}_vjp: {sentence}")


CALLS = {
    "group_norm": dict(gamma=G, beta=G, groups=2), "instance_norm": dict(gamma=G, beta=G),
    "layer_norm": dict(gamma=G, beta=G), "batch_norm": dict(gamma=G, beta=G, **RUNNING),
}


def called(name, x, **more):
    """f or its vjp at x, the parameters in x's dtype."""
    parameters = {n: a.astype(x.dtype) if isinstance(a, np.ndarray) else a for n, a in CALLS[name].items()}
    return getattr(ops, name + "_vjp" * bool(more))(x=x, **{**parameters, **more})


def laid_out(name, shape):
    """An array that is channels-last in memory; layer norm takes its channels last anyway."""
    x = np.arange(float(np.prod(shape))).reshape(shape[0], *shape[2:], shape[1])
    return x if name == "layer_norm" else np.moveaxis(x, -1, 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
@pytest.mark.parametrize("name", CALLS)
def test_dtype_and_strides_stay(name, dtype):
    x = laid_out(name, (2, 6, 2, 3)).astype(dtype)
    y, back = called(name, x), called(name, x, dy=x)
    y = y[0] if isinstance(y, tuple) else y
    assert y.dtype == dtype and y.strides == x.strides
    assert [a.dtype for a in back] == [dtype] * 3 and back[0].strides == x.strides


@pytest.mark.parametrize("name", CALLS)
def test_mixed_dtypes_are_refused(name):
    x, refusal = laid_out(name, (2, 6, 2, 2)), f"({name}|group_norm)(_vjp)?: .* expected, got .*float32"
    for change in (dict(gamma=G.astype(np.float32)), dict(dy=x.astype(np.float32))):
        with pytest.raises(TypeError, match=refusal):
            called(name, x, **({"dy": x} | change))
    with pytest.raises(TypeError, match="inexact arrays expected, got x int64"):
        called(name, X.astype(int))


@pytest.mark.parametrize("name", CALLS)
def test_cotangent_must_fit(name):
    with pytest.raises(ValueError, match=r"dy in x's shape \(2, 6, 2, 2\) expected, got \(2, 6, 1, 1\)|dy in x's .*"):
        called(name, laid_out(name, (2, 6, 2, 2)), dy=X[:, :, :1, :1])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [(0, 6, 2, 2), (2, 6, 0, 2), (2, 6)])
@pytest.mark.parametrize("name", ["group_norm", "instance_norm", "layer_norm"])
def test_nothing_in_nothing_out(name, shape):
    x = laid_out(name, shape)
    assert called(name, x).shape == x.shape
    assert [a.shape for a in called(name, x, dy=x)] == [x.shape, (6,), (6,)]


def test_absent_parameters_have_no_cotangent():
    for name in CALLS:
        back = called(name, laid_out(name, (2, 6, 2, 2)), dy=laid_out(name, (2, 6, 2, 2)), gamma=None, beta=None)
        assert back[1] is None and back[2] is None


def test_variance_survives_a_large_mean():
    """In float32, one pass (E[x^2] - E[x]^2) would leave nothing of a deviation of 1 around 10^4."""
    x = np.tile(np.array([9999.0, 10001.0], dtype=np.float32), 8).reshape(1, 4, 2, 2)
    for y in (ops.group_norm(x, None, None, 2), ops.layer_norm(x), ops.instance_norm(x),
              ops.batch_norm(x, None, None, *np.zeros((2, 4), dtype=np.float32), True)[0]):
        np.testing.assert_allclose(abs(y), 1, rtol=1e-4)


def test_a_nan_stays_in_its_group():
    x = X.copy()
    x[0, 0, 0, 0] = np.nan
    y = ops.group_norm(x, None, None, 2)
    assert np.isnan(y[0, :3]).all() and np.isfinite(y[0, 3:]).all() and np.isfinite(y[1]).all()


@pytest.mark.filterwarnings("error")
def test_layer_norm_over_an_empty_axis():
    x = np.ones((2, 3, 0))
    assert ops.layer_norm(x, axes=2).shape == ops.layer_norm_vjp(x, x, axes=2)[0].shape == x.shape
