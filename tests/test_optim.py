"""The optimisers' bad inputs and dtypes; their identities are facts (refimpl/facts/optim.py)."""
import numpy as np
import pytest

from refimpl import optim

RULES = [optim.sgd, optim.rmsprop, optim.adam, optim.adamw]


def arrays(rng, dtype=np.float64):
    return {"w": rng.standard_normal((2, 3)).astype(dtype), "b": rng.standard_normal(3).astype(dtype)}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_keeps_the_dtype_and_the_input(rule, dtype, rng):
    params, grads = arrays(rng, dtype), arrays(rng, dtype)
    before = {k: p.copy() for k, p in params.items()}
    moved, state = rule(params, grads, {}, 0.1)
    moved, state = rule(moved, grads, state, 0.1)
    assert all(p.dtype == dtype for p in moved.values()) and state["count"] == 2
    assert all(a.dtype == dtype for k, a in state.items() if k != "count")
    assert all(np.array_equal(before[k], params[k]) and not np.array_equal(moved[k], params[k]) for k in params)


@pytest.mark.parametrize("rule", RULES)
def test_names_must_agree(rule, rng):
    params, grads = arrays(rng), arrays(rng)
    with pytest.raises(ValueError, match=r"missing or foreign.*'b'"):
        rule(params, {"w": grads["w"]}, {}, 0.1)
    _, state = rule(params, grads, {}, 0.1)
    del state["count"]
    with pytest.raises(ValueError, match=r"another rule.*'count'"):
        rule(params, grads, state, 0.1)


def test_a_state_of_another_rule_is_refused(rng):
    params, grads = arrays(rng), arrays(rng)
    _, state = optim.sgd(params, grads, {}, 0.1)
    with pytest.raises(ValueError, match="another rule"):
        optim.adam(params, grads, state, 0.1)


def test_ranges_are_checked():
    with pytest.raises(ValueError, match="decay must be in"):
        optim.ema({}, {}, 1.5)
    with pytest.raises(ValueError, match="name different arrays"):
        optim.ema({"a": np.ones(1)}, {"b": np.ones(1)}, 0.5)
    with pytest.raises(ValueError, match="limit must be positive, got 0"):
        optim.clip_by_global_norm({}, 0)
    with pytest.raises(ValueError, match=r"warmup must be in 0\.\.9, got 10"):
        optim.cosine_rate(0, 10, 1.0, warmup=10)


def test_rate_warms_up_to_the_full_rate_and_ends_near_zero():
    rates = [optim.cosine_rate(k, 100, 2.0, warmup=10) for k in range(100)]
    assert np.allclose(rates[:10], 0.2 * np.arange(1, 11)) and max(rates) == rates[10] == 2.0
    assert 0 < rates[-1] < 2e-3 and all(np.diff(rates[10:]) < 0)


def test_average_is_short_at_first():
    assert optim.ema_decay(0, 0.999) == 0.1 and optim.ema_decay(10**6, 0.999) == 0.999
