"""The autoregressive transformer: what a code may see, its samples, its start, its errors. Gradients are facts."""
import numpy as np
import pytest
from conftest import with_own
from strict import StrictArray, to_device, to_host

from refimpl import ops
from refimpl.facts import Draw
from refimpl.facts.nets import random_params
from refimpl.nets.transformer import (
    TransformerConfig,
    block,
    sample_codes,
    transformer,
    transformer_init,
    transformer_shapes,
)

CONFIG = TransformerConfig(codes=5, length=6, width=8, depth=2, heads=2, classes=3)


def random_case(config=CONFIG, seed=0, n=4):
    d = Draw(seed)
    codes = d.rng.integers(0, config.codes, (n, config.length))
    labels = None if config.classes is None else d.rng.integers(0, config.classes, n)
    return random_params(transformer_shapes(config), d), codes, labels


def test_block_values(rng):
    """The block against its equation, one head and one query at a time."""
    params = {n[len("blocks.0."):]: p for n, p in random_case()[0].items() if n.startswith("blocks.0.")}
    x = rng.standard_normal((4, 8))
    y, _, _ = block({f"b.{n}": p for n, p in params.items()}, "b", x[None], 2, ops)
    norm = lambda a, n: (a - a.mean(1, keepdims=True)) / np.sqrt(a.var(1, keepdims=True) + 1e-5) * params[
        f"{n}.weight"] + params[f"{n}.bias"]
    affine = lambda a, n: a @ params[f"{n}.weight"].T + params[f"{n}.bias"]
    q, k, v = (affine(norm(x, "norm_1"), f"to_{c}") for c in "qkv")
    o = np.empty((4, 8))
    for head in (slice(0, 4), slice(4, 8)):
        for i in range(4):
            w = np.exp(k[:i + 1, head] @ q[i, head] / 2)
            o[i, head] = w @ v[:i + 1, head] / w.sum()
    h = x + affine(o, "to_out")
    expected = h + affine(ops.gelu(affine(norm(h, "norm_2"), "linear_1"), "tanh"), "linear_2")
    np.testing.assert_allclose(y[0], expected, rtol=1e-10, atol=1e-12)


def test_a_code_sees_only_those_before_it_and_its_class():
    params, codes, labels = random_case()
    logits, _ = transformer(params, codes, labels, config=CONFIG, ops=ops)
    for j in range(CONFIG.length):
        changed = codes.copy()
        changed[:, j] = (changed[:, j] + 1) % CONFIG.codes
        other, _ = transformer(params, changed, labels, config=CONFIG, ops=ops)
        assert np.array_equal(other[:, :j + 1], logits[:, :j + 1])
        assert j == CONFIG.length - 1 or np.all(np.any(other[:, j + 1:] != logits[:, j + 1:], axis=(1, 2)))
    other, _ = transformer(params, codes, (labels + 1) % 3, config=CONFIG, ops=ops)
    assert np.all(np.any(other != logits, axis=2))
    shorter, _ = transformer(params, codes[:, :3], labels, config=CONFIG, ops=ops)
    np.testing.assert_allclose(shorter, logits[:, :3], rtol=1e-10)


def test_uniform_at_initialisation():
    params = transformer_init(1, CONFIG)
    logits, pullback = transformer(params, *random_case()[1:], config=CONFIG, ops=ops)
    assert logits.dtype == np.float32 and logits.shape == (4, 6, 5) and not np.any(logits)
    grads = pullback(logits + 1)
    assert all(g.dtype == np.float32 and g.shape == params[n].shape for n, g in grads.items())
    assert 0.015 < np.std(params["position_embedding.weight"]) < 0.025


def test_samples_follow_the_logits():
    """Pairs of codes against their exact probabilities: chi-square of 24 degrees of freedom, 1 in 10^6 beyond 77."""
    config, n = CONFIG._replace(length=2, classes=None), 20000
    params, *_ = random_case(config, seed=3)
    codes = sample_codes(params, n, 11, config=config, ops=ops)
    pairs = np.array([[a, b] for a in range(5) for b in range(5)])
    logits, _ = transformer(params, pairs, config=config, ops=ops)
    log_p = logits - ops.logsumexp(logits)[..., None]
    p = np.exp(log_p[np.arange(25), 0, pairs[:, 0]] + log_p[np.arange(25), 1, pairs[:, 1]])
    assert abs(p.sum() - 1) < 1e-12
    seen = np.bincount(codes[:, 0] * 5 + codes[:, 1], minlength=25)
    assert np.sum((seen - n * p) ** 2 / (n * p)) < 77


def test_a_sample_does_not_depend_on_its_batch():
    params, _, labels = random_case()
    sample = lambda n, first, labels: sample_codes(params, n, 5, labels, config=CONFIG, ops=ops, first=first)
    whole = sample(4, 0, labels)
    assert whole.shape == (4, 6) and whole.min() >= 0 and whole.max() < 5
    assert np.array_equal(whole[2:], sample(2, 2, labels[2:]))
    assert not np.array_equal(whole, sample(4, 4, labels))
    cold = sample_codes(params, 4, 5, labels, config=CONFIG, ops=ops, temperature=1e-3)
    logits, _ = transformer(params, cold, labels, config=CONFIG, ops=ops)
    assert np.array_equal(cold, np.argmax(logits, axis=2))
    assert sample_codes(params, 2, 5, labels[:2], config=CONFIG, ops=ops, length=3).shape == (2, 3)


def test_on_device():
    params, codes, labels = random_case()
    logits, pullback = transformer(params, codes, labels, config=CONFIG, ops=ops)
    on_device, pullback_device = transformer(to_device(params), codes, labels, config=CONFIG, ops=ops)
    assert isinstance(on_device, StrictArray) and np.array_equal(to_host(on_device), logits)
    grads, grads_device = pullback(logits), pullback_device(on_device)
    assert all(np.array_equal(to_host(grads_device[n]), grads[n]) for n in params)
    sampled = sample_codes(to_device(params), 3, 5, labels[:3], config=CONFIG, ops=ops)
    assert isinstance(sampled, StrictArray)
    assert np.array_equal(to_host(sampled), sample_codes(params, 3, 5, labels[:3], config=CONFIG, ops=ops))


@pytest.mark.parametrize("change, message", [
    (dict(config=CONFIG._replace(heads=3)), "heads = 3 must divide the width 8"),
    (dict(config=CONFIG._replace(depth=0)), "at least 1"),
    (dict(codes=np.zeros((2, 7), int)), r"L in 1..6, got shape \(2, 7\)"),
    (dict(codes=np.full((2, 3), 5)), "0..4"),
    (dict(labels=None), "labels must be given exactly when"),
    (dict(labels=np.array([0, 3])), "0..2"),
    (dict(labels=np.zeros(3, int)), r"labels must be \(N,\)"),
])
def test_errors(change, message):
    inputs = dict(codes=np.zeros((2, 6), int), labels=np.zeros(2, int), config=CONFIG) | change
    with pytest.raises(ValueError, match=message):
        transformer(transformer_init(1, CONFIG), ops=ops, **inputs)


@pytest.mark.parametrize("change, message", [
    (dict(length=7), "length must be in 1..6, got 7"), (dict(temperature=0), "temperature must be positive, got 0")])
def test_sampling_errors(change, message):
    with pytest.raises(ValueError, match=message):
        sample_codes(transformer_init(1, CONFIG), 1, 0, np.zeros(1, int), config=CONFIG, ops=ops, **change)


@pytest.mark.parametrize("u, code", [(1.0, 4), (2.0**-24, 0)])
def test_the_ends_of_the_unit_interval_point_to_codes(u, code):
    def uniform(key, index, draw, shape, dtype, like):
        return np.full((len(index), *shape), u, dtype)

    params = {n: p.astype(np.float32) for n, p in random_case()[0].items()}
    sampled = sample_codes(params, 3, 0, np.zeros(3, int), config=CONFIG, ops=with_own(uniform))
    assert np.all(sampled == code)
