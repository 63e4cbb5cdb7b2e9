"""The blocks' values against their equations, written out one element or one head at a time."""
import numpy as np
from conftest import draws, with_own
from hypothesis import given

from refimpl import ops
from refimpl.facts.nets import random_params
from refimpl.nets import blocks, initial


def group_norm(x, groups, stabiliser, p, name):
    out = np.empty_like(x)
    size = x.shape[1] // groups
    for n in range(x.shape[0]):
        for g in range(0, x.shape[1], size):
            part = x[n, g:g + size]
            out[n, g:g + size] = (part - part.mean()) / np.sqrt(part.var() + stabiliser)
    return out * p[f"{name}.weight"][:, None, None] + p[f"{name}.bias"][:, None, None]


def silu(x):
    return x / (1 + np.exp(-x))


@given(d=draws())
def test_residual(d):
    adaptive, scale, outputs = d.choice([False, True]), d.choice([1.0, 2.0]), d.choice([2, 4])
    form = blocks.Form(groups=2, stabiliser=0.1, adaptive=adaptive, scale=scale)
    p = random_params(initial.residual_shapes("r", 2, outputs, 3, adaptive), d)
    x, act = d.array(2, 2, 3, 4), d.array(2, 3)
    y, _ = blocks.residual(p, "r", x, act, form, ops)
    conv = lambda a, name: ops.conv2d_sum(a, p[f"r.{name}.weight"], p[f"r.{name}.bias"], padding=1)
    e = (act @ p["r.time_emb_proj.weight"].T + p["r.time_emb_proj.bias"])[:, :, None, None]
    h = conv(silu(group_norm(x, 2, 0.1, p, "r.norm1")), "conv1")
    if adaptive:
        h = group_norm(h, 2, 0.1, p, "r.norm2") * (1 + e[:, :outputs]) + e[:, outputs:]
    else:
        h = group_norm(h + e, 2, 0.1, p, "r.norm2")
    carried = x if outputs == 2 else np.einsum("oi,nihw->nohw", p["r.conv_shortcut.weight"][:, :, 0, 0], x) + \
        p["r.conv_shortcut.bias"][:, None, None]
    np.testing.assert_allclose(y, (carried + conv(silu(h), "conv2")) / scale, rtol=1e-10, atol=1e-12)


@given(d=draws())
def test_attention(d):
    head_dim, groups, scale = d.choice([1, 2, 4, None]), d.choice([None, 1]), d.choice([1.0, 2.0])
    form = blocks.Form(groups=2, stabiliser=0.1, head_dim=head_dim, attention_groups=groups, scale=scale)
    p = random_params(initial.attention_shapes("a", 4), d)
    x = d.array(2, 4, 2, 3)
    y, _ = blocks.attention(p, "a", x, form, ops)
    n = group_norm(x, groups or 2, 0.1, p, "a.group_norm").reshape(2, 4, 6)
    for sample in range(2):
        q, k, v = (p[f"a.to_{c}.weight"] @ n[sample] + p[f"a.to_{c}.bias"][:, None] for c in "qkv")  # (C, L)
        o, width = np.empty((4, 6)), head_dim or 4
        for head in range(0, 4, width):
            part = slice(head, head + width)
            weights = np.exp(q[part].T @ k[part] / np.sqrt(width))
            o[part] = v[part] @ (weights / weights.sum(axis=1, keepdims=True)).T
        expected = x[sample] + (p["a.to_out.0.weight"] @ o + p["a.to_out.0.bias"][:, None]).reshape(4, 2, 3)
        np.testing.assert_allclose(y[sample], expected / scale, rtol=1e-10, atol=1e-12)


@given(d=draws())
def test_stages(d):
    """Each output of a stage is a skip; padding 0 pads below and to the right; going up takes the last skip first."""
    form, x, act = blocks.Form(groups=1), d.array(1, 2, 4, 4), d.array(1, 3)
    shapes = initial.stage_shapes("s", [2, 2], 2, 3, False, False, "downsamplers")
    p = random_params(shapes, d)
    outputs, _ = blocks.down_stage(p, "s", x, act, form, ops, padding=0)
    a, _ = blocks.residual(p, "s.resnets.0", x, act, form, ops)
    b, _ = blocks.residual(p, "s.resnets.1", a, act, form, ops)
    bordered = np.zeros((1, 2, 5, 5))
    bordered[:, :, :4, :4] = b
    c = ops.conv2d_sum(bordered, p["s.downsamplers.0.conv.weight"], p["s.downsamplers.0.conv.bias"], stride=2)
    for got, expected in zip(outputs, (a, b, c), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-12)

    p = random_params(initial.stage_shapes("s", [3, 4], 2, 3, False, False, "upsamplers"), d)
    first, last = d.array(1, 2, 4, 4), d.array(1, 1, 4, 4)
    y, _ = blocks.up_stage(p, "s", x, [first, last], act, form, ops)
    a, _ = blocks.residual(p, "s.resnets.0", np.concatenate([x, last], axis=1), act, form, ops)
    b, _ = blocks.residual(p, "s.resnets.1", np.concatenate([a, first], axis=1), act, form, ops)
    doubled = b.repeat(2, axis=2).repeat(2, axis=3)
    expected = ops.conv2d_sum(doubled, p["s.upsamplers.0.conv.weight"], p["s.upsamplers.0.conv.bias"], padding=1)
    np.testing.assert_allclose(y, expected, rtol=1e-10, atol=1e-12)


def test_dropout_differs_from_block_to_block(rng):
    """Two equal blocks in a row drop different elements: each has a key of its own."""
    form, seen = blocks.Form(groups=1, rate=0.5), []

    def dropout(x, rate, key):
        seen.append(key)
        return ops.dropout(x, rate, key)

    shapes = initial.stage_shapes("s", [2, 2], 2, None, False, False, None)
    p = {n: np.ones(s) for n, s in shapes.items()}
    blocks.down_stage(p, "s", rng.standard_normal((1, 2, 2, 2)), None, form, with_own(dropout), 1, key=3)
    assert len(set(seen)) == 2
