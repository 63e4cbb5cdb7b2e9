"""Inputs for the gradient of attention, and what is known of its weights."""
import numpy as np

from refimpl import ops

from . import fact
from .gradients import pair


def _qkv(d):
    n, h, length, keys = d.integer(1, 2), d.integer(1, 2), d.integer(1, 4), d.integer(1, 4)
    width = d.integer(1, 3)
    return {"q": 2 * d.array(n, h, length, width), "k": 2 * d.array(n, h, keys, width),
            "v": d.array(n, h, keys, d.integer(1, 3))}


@pair(ops.attention, ops.attention_vjp, "q", "k", "v")
def _attention(d):
    inputs = _qkv(d)
    (n, _, length, _), keys = inputs["q"].shape, inputs["k"].shape[2]
    mask = d.choice([None, d.array(length, keys) > -0.5, d.array(n, 1, 1, keys) > -0.5])
    return inputs | {"mask": mask, "causal": d.choice([False, True]), "scale": d.choice([None, d.real(0.1, 2)])}


@fact("F-F3", ops.attention, tolerance=1e-12)
def online_softmax(d):
    """Keys taken one at a time, with a running maximum, sum and output, give the same."""
    q, k, v = _qkv(d).values()
    scale = q.shape[3] ** -0.5
    top = np.full(q.shape[:3], -np.inf)
    total, out = np.zeros(q.shape[:3]), np.zeros((*q.shape[:3], v.shape[3]))
    for j in range(k.shape[2]):
        s = scale * np.sum(q * k[:, :, j:j + 1], axis=3)
        higher = np.maximum(top, s)
        shrink, p = np.exp(top - higher), np.exp(s - higher)
        total, out, top = shrink * total + p, shrink[..., None] * out + p[..., None] * v[:, :, j:j + 1], higher
    return np.max(abs(ops.attention(q, k, v) - out / total[..., None]))


@fact("F-F3", ops.attention_vjp, tolerance=1e-12)
def weights_sum_to_one(d):
    """sum_j dS = 0 (so sum_j dk_j = 0), <dq, q> = <dk, k> = <dS, S>, and <dv, v> = <dy, O> (rowsum(P dP))."""
    inputs = _qkv(d) | {"causal": d.choice([False, True])}
    out = ops.attention(**inputs)
    dy = d.array(*out.shape)
    dq, dk, dv = ops.attention_vjp(dy, **inputs)
    return max(np.max(abs(np.sum(dk, axis=2))), abs(np.sum(dq * inputs["q"]) - np.sum(dk * inputs["k"])),
               abs(np.sum(dv * inputs["v"]) - np.sum(dy * out)))


@fact("causal", ops.attention, tolerance=1e-12)
def causal_sees_the_past(d):
    """Query i of causal attention is that query alone with the keys 0..i, counted from the first (top-left)."""
    q, k, v = _qkv(d).values()
    rows = [ops.attention(q[:, :, i:i + 1], k[:, :, :i + 1], v[:, :, :i + 1]) for i in range(q.shape[2])]
    return np.max(abs(ops.attention(q, k, v, causal=True) - np.concatenate(rows, axis=2)))


@fact("mask", ops.attention, tolerance=1e-12)
def masked_keys_are_absent(d):
    """Attention under a mask of the keys is attention without those keys; without any it is 0."""
    q, k, v = _qkv(d).values()
    keep = d.array(k.shape[2]) > 0
    return np.max(abs(ops.attention(q, k, v, mask=keep) - ops.attention(q, k[:, :, keep], v[:, :, keep])))
