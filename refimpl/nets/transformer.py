"""A small autoregressive transformer over sequences of codes: the prior of discrete latents."""
from typing import NamedTuple

import numpy as np

from refimpl.ops._check import require

from .blocks import layer, linear
from .initial import initialise, linear_shapes, norm_shapes


class TransformerConfig(NamedTuple):
    """codes: how many different ones; length: of the longest sequence; classes: that a sequence may start from."""

    codes: int
    length: int
    width: int = 64
    depth: int = 2
    heads: int = 4
    classes: int | None = None


def _check(config):
    c = config
    require(min(c.codes, c.length, c.width, c.depth, c.heads) >= 1 and (c.classes is None or c.classes >= 1),
            f"transformer: every number of the config must be at least 1, got {c}")
    require(c.width % c.heads == 0, f"transformer: heads = {c.heads} must divide the width {c.width}")


def _layer_norm(params, name, x, ops):
    return layer(ops.layer_norm, ops.layer_norm_vjp, params, name, x)


def block(params, name, x, heads, ops, past=None):
    r"""Causal self-attention and a two-layer perceptron, a norm before each and a residual around each.

    $$h = x + W_o\,\mathrm{attention}(q, k, v), \quad q, k, v = W_{q,k,v}\,\mathrm{LN}(x), \qquad
      y = h + W_2\,\mathrm{gelu}(W_1\,\mathrm{LN}(h))$$

    Shapes: x, y (N, L, D). past: keys and values (N, h, P, d) of the tokens before x, which is then one token and sees
    them all. Returns y, pullback(dy) -> grads, dx, without a past, and the keys and values, past included.
    Source: Vaswani et al. 2017, arXiv:1706.03762; norms first: Radford et al. 2019, GPT-2.
    """
    N, L, D = x.shape
    split = lambda a: a.reshape(N, L, heads, D // heads).swapaxes(1, 2)  # (N, h, L, d)
    join = lambda a: a.swapaxes(1, 2).reshape(N, L, D)

    n, norm_1 = _layer_norm(params, f"{name}.norm_1", x, ops)
    q, to_q = linear(params, f"{name}.to_q", n, ops)
    k, to_k = linear(params, f"{name}.to_k", n, ops)
    v, to_v = linear(params, f"{name}.to_v", n, ops)
    q, k, v = split(q), split(k), split(v)
    if past is not None:
        k, v = (ops.concatenate([before, a], axis=2) for before, a in zip(past, (k, v)))
    o, to_out = linear(params, f"{name}.to_out", join(ops.attention(q, k, v, causal=past is None)), ops)
    h = x + o
    m, norm_2 = _layer_norm(params, f"{name}.norm_2", h, ops)
    m, linear_1 = linear(params, f"{name}.linear_1", m, ops)
    r, linear_2 = linear(params, f"{name}.linear_2", ops.gelu(m, "tanh"), ops)

    def pullback(dy):
        g2, dm = linear_2(dy)
        g1, dm = linear_1(ops.gelu_vjp(dm, m, "tanh"))
        g_norm_2, dh = norm_2(dm)
        dh = dy + dh
        g_out, do = to_out(dh)
        dq, dk, dv = ops.attention_vjp(split(do), q, k, v, causal=True)
        g_v, dn_v = to_v(join(dv))
        g_k, dn_k = to_k(join(dk))
        g_q, dn_q = to_q(join(dq))
        g_norm_1, dx = norm_1(dn_q + dn_k + dn_v)
        return g_norm_1 | g_q | g_k | g_v | g_out | g_norm_2 | g1 | g2, dh + dx

    return h + r, pullback, (k, v)


def _start(labels, n, config):
    """The rows of start_embedding.weight that n sequences begin with."""
    require((labels is not None) == (config.classes is not None),
            "transformer: labels must be given exactly when the config has classes")
    labels = np.zeros(n, dtype=int) if labels is None else labels
    require(np.shape(labels) == (n,), f"transformer: labels must be (N,) with N = {n}, got shape {np.shape(labels)}")
    return labels


def transformer(params, codes, labels=None, *, config, ops):
    r"""Logits of every code given those before it and the class.

    $$\log p(c \mid y) = \sum_i \log\mathrm{softmax}(\mathrm{logits}_i(y, c_{<i}))_{c_i}$$

    The sequence is shifted by one, its first input being the class's row, so that position i never sees code i.

    Shapes: codes (N, L) integers, L at most the config's length; labels (N,) integers, expected exactly when the config
    has classes. Returns logits (N, L, K) and pullback(dlogits) -> dparams (codes have no gradient).
    Raises: ValueError when shapes do not fit or a code or label is outside its table.
    Source: Vaswani et al. 2017, arXiv:1706.03762; as a prior of codes: Ramesh et al. 2021, arXiv:2102.12092.
    """
    _check(config)
    require(codes.ndim == 2 and 1 <= codes.shape[1] <= config.length,
            f"transformer: codes must be (N, L) with L in 1..{config.length}, got shape {codes.shape}")
    N, L = codes.shape
    labels = _start(labels, N, config)
    first, table, positions = (params[f"{name}_embedding.weight"] for name in ("start", "code", "position"))
    h = ops.concatenate([ops.embedding(labels, first)[:, None], ops.embedding(codes, table)[:, :-1]], axis=1)
    h = h + positions[:L]
    backs = []
    for i in range(config.depth):
        h, back, _ = block(params, f"blocks.{i}", h, config.heads, ops)
        backs.append(back)
    h, norm = _layer_norm(params, "norm", h, ops)
    logits, out = linear(params, "out", h, ops)

    def pullback(dlogits):
        g_out, dh = out(dlogits)
        g_norm, dh = norm(dh)
        grads = g_out | g_norm
        for back in reversed(backs):
            g, dh = back(dh)
            grads |= g
        grads["position_embedding.weight"] = ops.concatenate(
            [np.sum(dh, axis=0), np.zeros_like(positions[L:])], axis=0)
        grads["start_embedding.weight"] = ops.embedding_vjp(dh[:, 0], labels, first)
        grads["code_embedding.weight"] = ops.embedding_vjp(dh[:, 1:], codes[:, :-1], table)
        return {name: grads[name] for name in params}

    return logits, pullback


def next_logits(params, code, i, past, *, config, ops):
    """Logits of code i from the code before it (the label, where i = 0) and what earlier steps kept.

    Shapes: code (N,) integers; past a list of each block's keys and values, None where i = 0. Returns logits (N, K) and
    the longer past.
    Source: Shazeer 2019, arXiv:1911.02150, sec. 2.4 (incremental decoding).
    """
    h = ops.embedding(code, params[f"{'code' if i else 'start'}_embedding.weight"])[:, None]
    h, kept = h + params["position_embedding.weight"][i], []
    for j in range(config.depth):
        h, _, keys_and_values = block(params, f"blocks.{j}", h, config.heads, ops, past[j] if i else None)
        kept.append(keys_and_values)
    h, _ = _layer_norm(params, "norm", h, ops)
    return linear(params, "out", h, ops)[0][:, 0], kept


def sample_codes(params, n, key, labels=None, *, config, ops, length=None, temperature=1.0, first=0):
    r"""Sequences drawn code by code, keys and values kept, so that every code costs one token's pass.

    $$c_i = \min\{c : \textstyle\sum_{k\le c} p_k \ge u_i\}, \qquad p = \mathrm{softmax}(\mathrm{logits}_i/\tau)$$

    Shapes: n sequences, numbered from `first` on (what fixes their randomness); labels (n,); length at most the
    config's, which it is by default. Returns codes (n, length), integers.
    Raises: ValueError when labels, length or temperature do not fit.
    Source: Devroye 1986, Non-Uniform Random Variate Generation, sec. III.2 (inversion).
    """
    _check(config)
    length = config.length if length is None else length
    require(1 <= length <= config.length, f"sample_codes: length must be in 1..{config.length}, got {length}")
    require(temperature > 0, f"sample_codes: temperature must be positive, got {temperature}")
    code, past, codes = _start(labels, n, config), None, []
    for i in range(length):
        logits, past = next_logits(params, code, i, past, config=config, ops=ops)
        total = np.cumsum(ops.softmax(logits / temperature), axis=1)
        u = ops.uniform(key, first + np.arange(n), i, (1,), dtype=total.dtype, like=total)
        # Against the last sum, which rounding may leave beside 1: then no u, 1 included, points behind the last code.
        code = np.sum(total < u * total[:, -1:], axis=1)
        codes.append(code)
    return np.stack(codes, axis=1)


def transformer_shapes(config):
    """Name and shape of every parameter.

    Shapes: config a TransformerConfig; returns a dict from names to shapes.
    Source: the project's own names.
    """
    _check(config)
    c, D = config, config.width
    tables = {"start": c.classes or 1, "code": c.codes, "position": c.length}
    shapes = {f"{name}_embedding.weight": (rows, D) for name, rows in tables.items()}
    for i in range(c.depth):
        name = f"blocks.{i}"
        shapes |= norm_shapes(f"{name}.norm_1", D)
        for part in ("to_q", "to_k", "to_v", "to_out"):
            shapes |= linear_shapes(f"{name}.{part}", D, D)
        shapes |= norm_shapes(f"{name}.norm_2", D)
        shapes |= linear_shapes(f"{name}.linear_1", D, 4 * D) | linear_shapes(f"{name}.linear_2", 4 * D, D)
    return shapes | norm_shapes("norm", D) | linear_shapes("out", D, c.codes)


def transformer_init(key, config, dtype=np.float32):
    """Initial parameters: tables normal with deviation .02; every residual branch and the logits start at 0.

    Shapes: key an int; config a TransformerConfig. Returns a dict from names to arrays of the dtype.
    Source: Radford et al. 2019, GPT-2 (.02); zeros as the U-Net's.
    """
    params = initialise(key, transformer_shapes(config), dtype, zero=("out.", ".linear_2."))
    return {name: p.dtype.type(0.02) * p if "embedding" in name else p for name, p in params.items()}
