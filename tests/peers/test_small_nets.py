"""The transformer and the perceptrons beside the same networks built from torch.nn's modules, with the same weights."""
import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from refimpl import ops  # noqa: E402
from refimpl.facts import Draw  # noqa: E402
from refimpl.facts.nets import random_params  # noqa: E402
from refimpl.nets.classifier import classifier, classifier_shapes  # noqa: E402
from refimpl.nets.mlp import TimeMLPConfig, mlp, mlp_shapes, time_mlp, time_mlp_shapes  # noqa: E402
from refimpl.nets.transformer import TransformerConfig, transformer, transformer_shapes  # noqa: E402


def leaves(params):
    return {n: torch.from_numpy(p.copy()).requires_grad_() for n, p in params.items()}


def check(y, y_torch, grads, params_torch):
    assert np.max(abs(y - y_torch.detach().numpy())) <= 1e-9
    assert grads.keys() == params_torch.keys()
    for name, g in grads.items():
        assert np.max(abs(g - params_torch[name].grad.numpy())) <= 1e-9 * max(1, float(np.max(abs(g)))), name


def test_transformer(rng):
    config = TransformerConfig(codes=7, length=6, width=8, depth=2, heads=2, classes=3)
    params = random_params(transformer_shapes(config), Draw(0))
    codes, labels = rng.integers(0, 7, (3, 6)), rng.integers(0, 3, 3)
    logits, pullback = transformer(params, codes, labels, config=config, ops=ops)
    u = rng.standard_normal(logits.shape)

    p = leaves(params)
    h = torch.cat([p["start_embedding.weight"][labels][:, None], p["code_embedding.weight"][codes[:, :-1]]], dim=1)
    h = h + p["position_embedding.weight"]
    layer = nn.TransformerEncoderLayer(8, 2, 32, dropout=0.0, activation=nn.GELU("tanh"), batch_first=True,
                                       norm_first=True, dtype=torch.float64)
    for i in range(2):
        own = {n.removeprefix(f"blocks.{i}."): a for n, a in p.items() if n.startswith(f"blocks.{i}.")}
        state = {f"{theirs}.{kind}": own[f"{ours}.{kind}"] for kind in ("weight", "bias") for ours, theirs in
                 (("norm_1", "norm1"), ("norm_2", "norm2"), ("linear_1", "linear1"), ("linear_2", "linear2"),
                  ("to_out", "self_attn.out_proj"))}
        for kind in ("weight", "bias"):
            state[f"self_attn.in_proj_{kind}"] = torch.cat([own[f"to_{c}.{kind}"] for c in "qkv"])
        mask = nn.Transformer.generate_square_subsequent_mask(6, dtype=torch.float64)
        h = torch.func.functional_call(layer, state, (h,), dict(src_mask=mask, is_causal=True))
    h = nn.functional.layer_norm(h, (8,), p["norm.weight"], p["norm.bias"])
    y = nn.functional.linear(h, p["out.weight"], p["out.bias"])
    y.backward(torch.from_numpy(u))
    check(logits, y, pullback(u), p)


def test_mlp(rng):
    params, x = random_params(mlp_shapes((6, 5, 4, 2)), Draw(0)), rng.standard_normal((3, 6))
    y, pullback = mlp(params, x, ops=ops, activation="leaky_relu")
    u = rng.standard_normal(y.shape)
    p, x_torch = leaves(params), torch.from_numpy(x).requires_grad_()
    h = x_torch
    for i in range(3):
        h = h if i == 0 else nn.functional.leaky_relu(h, 0.2)
        h = nn.functional.linear(h, p[f"layers.{i}.weight"], p[f"layers.{i}.bias"])
    h.backward(torch.from_numpy(u))
    grads, dx = pullback(u)
    check(y, h, grads, p)
    assert np.max(abs(dx - x_torch.grad.numpy())) <= 1e-9


def test_classifier(rng):
    params, x = random_params(classifier_shapes((2, 6, 5), [3, 4], 3), Draw(0)), rng.standard_normal((2, 2, 6, 5))
    features, logits, pullback = classifier(params, x, ops=ops)
    cotangents = [rng.standard_normal(a.shape) for a in (*features, logits)]
    p, x_torch = leaves(params), torch.from_numpy(x).requires_grad_()
    h1 = nn.functional.conv2d(x_torch, p["convs.0.weight"], p["convs.0.bias"], padding=1).relu()
    h2 = nn.functional.conv2d(h1, p["convs.1.weight"], p["convs.1.bias"], stride=2, padding=1).relu()
    y = nn.functional.linear(h2.flatten(1), p["output.weight"], p["output.bias"])
    for ours, theirs in zip((*features, logits), (h1, h2, y)):
        assert np.max(abs(ours - theirs.detach().numpy())) <= 1e-9
    sum((a * torch.from_numpy(u)).sum() for a, u in zip((h1, h2, y), cotangents)).backward()
    grads, dx = pullback(cotangents[:2], cotangents[2])
    check(logits, y, grads, p)
    assert np.max(abs(dx - x_torch.grad.numpy())) <= 1e-9
    nothing, dx_of_features = pullback(cotangents[:2])
    assert nothing is None
    np.testing.assert_allclose(dx_of_features, pullback(cotangents[:2], 0 * cotangents[2])[1], atol=1e-12)


def test_time_mlp(rng):
    config = TimeMLPConfig(features=4, width=6, depth=2, time_dim=8, num_class_embeds=3)
    params, x = random_params(time_mlp_shapes(config), Draw(0)), rng.standard_normal((3, 4))
    t, labels = np.array([0.5, 10.0, 999.0]), np.array([0, 2, 1])
    y, pullback = time_mlp(params, x, t, labels, config=config, ops=ops)
    u = rng.standard_normal(y.shape)
    p, x_torch, silu = leaves(params), torch.from_numpy(x).requires_grad_(), nn.functional.silu

    def linear(name, a):
        return nn.functional.linear(a, p[f"{name}.weight"], p[f"{name}.bias"])

    angles = torch.from_numpy(t)[:, None] * 10000.0 ** (-torch.arange(4, dtype=torch.float64) / 4)
    e = torch.cat([angles.cos(), angles.sin()], dim=1)
    e = linear("time_embedding.linear_2", silu(linear("time_embedding.linear_1", e)))
    act = silu(e + p["class_embedding.weight"][labels])
    h = linear("linear_in", x_torch)
    for i in range(2):
        m = linear(f"layers.{i}.linear_1", silu(h)) + linear(f"layers.{i}.time_emb_proj", act)
        h = h + linear(f"layers.{i}.linear_2", silu(m))
    y_torch = linear("linear_out", silu(h))
    y_torch.backward(torch.from_numpy(u))
    grads, dx = pullback(u)
    check(y, y_torch, grads, p)
    assert np.max(abs(dx - x_torch.grad.numpy())) <= 1e-9
