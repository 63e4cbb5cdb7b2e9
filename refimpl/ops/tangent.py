"""Directional derivatives by pairs (primal, tangent): the fast form of what the complex step does.

A Dual is a value and its derivative along one direction. It answers NumPy's own protocols, so that the operations of
the reference, and every network and pullback made of them, run on it unchanged; arrays that do not move stay plain and
cost nothing extra. Point-wise functions need one derivative each: the table POINTWISE. Bilinear operations need no new
formula, they are called once per moving factor; `tangent` does so with a backend's own, so that its kernels serve here.
"""
from types import SimpleNamespace

import numpy as np
from scipy import special

from ._check import require

POINTWISE = {  # the derivative of each, from the value x it is taken at and the result y
    np.exp: lambda x, y: y,
    np.log: lambda x, y: 1 / x,
    np.log1p: lambda x, y: 1 / (1 + x),
    np.sqrt: lambda x, y: 0.5 / y,
    np.square: lambda x, y: 2 * x,
    np.tanh: lambda x, y: 1 - y * y,
    np.sin: lambda x, y: np.cos(x),
    np.cos: lambda x, y: -np.sin(x),
    np.negative: lambda x, y: -1,
    special.erf: lambda x, y: 2 / np.pi**0.5 * np.exp(-x * x),
}

PAIRWISE = {  # the tangent of f(a, b) = y from those of a and b, which are 0 for what does not move
    np.add: lambda a, b, y, da, db: da + db,
    np.subtract: lambda a, b, y, da, db: da - db,
    np.multiply: lambda a, b, y, da, db: da * b + a * db,
    np.true_divide: lambda a, b, y, da, db: (da - y * db) / b,
    np.power: lambda a, b, y, da, db: b * a ** (b - 1) * da,  # of a fixed exponent: see __array_ufunc__
    np.maximum: lambda a, b, y, da, db: np.where(a >= b, da, db),
    np.minimum: lambda a, b, y, da, db: np.where(a < b, da, db),  # a tie is b: softplus has max(x, 0) and min(x, -x)
}

BILINEAR = {np.matmul, np.tensordot, np.einsum}

FLAT = {np.sign, np.greater, np.greater_equal, np.less, np.less_equal, np.equal, np.not_equal, np.isnan, np.isfinite,
        np.arange, np.shape, np.any, np.all}  # derivative 0, or nothing to differentiate

LINEAR = {np.sum, np.mean, np.reshape, np.ravel, np.moveaxis, np.swapaxes, np.transpose, np.concatenate, np.stack,
          np.broadcast_to, np.repeat, np.tile, np.expand_dims, np.squeeze, np.split, np.flip, np.zeros_like, np.copy,
          np.take_along_axis, np.lib.stride_tricks.sliding_window_view}  # the same of the tangents

ROOM = {np.zeros, np.empty, np.full, np.ones}  # made like=Dual, to be filled with what moves


def primal(x):
    """The value of a Dual; of anything else, itself.

    Shapes: x any; returns x's shape.
    Source: Griewank and Walther 2008, Evaluating Derivatives, ch. 3.
    """
    return x.primal if isinstance(x, Dual) else x


def derivative(x):
    """The tangent of a Dual; zeros for an array that does not move.

    Shapes: x any array; returns x's shape.
    Source: Griewank and Walther 2008, Evaluating Derivatives, ch. 3.
    """
    return x.tangent if isinstance(x, Dual) else np.zeros_like(x)


def _pick(tree, part):
    """Nested arguments with every Dual replaced by its value, or by its tangent (and what does not move by 0)."""
    if isinstance(tree, (list, tuple)):
        return type(tree)(_pick(branch, part) for branch in tree)
    moves = isinstance(tree, Dual) or (isinstance(tree, np.ndarray) and tree.dtype.kind == "f")
    return part(tree) if moves else tree


def _product_rule(f, args, options):
    """Sum over the moving factors of f with that factor's tangent in its place."""
    moving = [i for i, a in enumerate(args) if isinstance(a, Dual)]
    return sum(f(*(a.tangent if i == j else primal(a) for j, a in enumerate(args)), **options) for i in moving)


class Dual(np.lib.mixins.NDArrayOperatorsMixin):
    """A value and its derivative along a direction: arrays of one shape and dtype. `real` is the value, for masks."""

    def __init__(self, primal, tangent):
        if primal.shape != tangent.shape or primal.dtype != tangent.dtype:  # no message is formed where none is needed
            raise ValueError(f"Dual: primal and tangent of one shape and dtype expected, got {primal.shape} "
                             f"{primal.dtype} and {tangent.shape} {tangent.dtype}")
        self.primal, self.tangent = primal, tangent

    shape = property(lambda self: self.primal.shape)
    dtype = property(lambda self: self.primal.dtype)
    ndim = property(lambda self: self.primal.ndim)
    size = property(lambda self: self.primal.size)
    real = property(lambda self: self.primal)

    def __len__(self):
        return len(self.primal)

    def reshape(self, *shape):
        return Dual(self.primal.reshape(*shape), self.tangent.reshape(*shape))

    def transpose(self, *axes):
        return Dual(self.primal.transpose(*axes), self.tangent.transpose(*axes))

    def swapaxes(self, i, j):
        return Dual(self.primal.swapaxes(i, j), self.tangent.swapaxes(i, j))

    def copy(self):
        return Dual(self.primal.copy(), self.tangent.copy())

    def __getitem__(self, where):
        return Dual(np.asarray(self.primal[where]), np.asarray(self.tangent[where]))

    def __setitem__(self, where, value):
        self.primal[where] = primal(value)
        self.tangent[where] = value.tangent if isinstance(value, Dual) else 0

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        if method != "__call__":
            return NotImplemented
        values = [primal(x) for x in inputs]
        y = ufunc(*values, **options)
        if ufunc in FLAT:
            return y
        if ufunc in POINTWISE:
            t = POINTWISE[ufunc](values[0], y) * self.tangent
        elif ufunc in PAIRWISE:
            require(ufunc is not np.power or not isinstance(inputs[1], Dual), "Dual: an exponent must not move")
            t = PAIRWISE[ufunc](*values, y, *(x.tangent if isinstance(x, Dual) else 0 for x in inputs))
        elif ufunc in BILINEAR:
            t = _product_rule(ufunc, inputs, options)
        else:
            return NotImplemented
        y = np.asarray(y)
        t = np.broadcast_to(np.asarray(t, dtype=y.dtype), y.shape)
        if out is None:
            return Dual(y, t)
        require(isinstance(out[0], Dual), "Dual: what moves cannot be written into an array that does not")
        out[0].primal[...], out[0].tangent[...] = y, t
        return out[0]

    def __array_function__(self, f, types, args, options):
        if f in ROOM:
            y = f(*args, **options)
            return Dual(y, np.zeros_like(y))
        if f is np.asarray:  # a Dual stays one; coefficients from the host, made like=Dual, do not move
            return args[0] if isinstance(args[0], Dual) else f(*args, **options)
        if f is np.where:
            y = np.where(args[0], *(primal(a) for a in args[1:]))
            t = np.where(args[0], *(a.tangent if isinstance(a, Dual) else 0 for a in args[1:]))
            return Dual(y, np.broadcast_to(t.astype(y.dtype, copy=False), y.shape))
        y = f(*_pick(args, primal), **options)
        if f in FLAT:
            return y
        if f in BILINEAR:
            t = _product_rule(f, args, options)
        elif f in LINEAR:
            t = f(*_pick(args, derivative), **options)
        else:
            return NotImplemented
        if isinstance(y, (list, tuple)):
            return [Dual(*pair) for pair in zip(y, t)]
        return Dual(np.asarray(y), np.asarray(t))


def _layer(f):
    """A layer f(x, w, b, ...), linear in x and affine in (w, b), on Duals by the backend's own f."""
    def layer(x, w, b=None, *args, **options):
        x0, w0, b0 = primal(x), primal(w), primal(b)
        terms = []
        if isinstance(x, Dual):
            terms.append(f(x.tangent, w0, None, *args, **options))
        if isinstance(w, Dual) or isinstance(b, Dual):
            terms.append(f(x0, derivative(w), None if b is None else derivative(b), *args, **options))
        y = f(x0, w0, b0, *args, **options)
        return Dual(y, sum(terms[1:], terms[0])) if terms else y

    return layer


def _layer_vjp(f_vjp):
    """Its vjp: dx is bilinear in (dy, w), dw in (dy, x), db linear in dy."""
    def layer_vjp(dy, x, w, b=None, *args, **options):
        dy0, x0, w0, b0 = (primal(a) for a in (dy, x, w, b))
        results = f_vjp(dy0, x0, w0, b0, *args, **options)
        tangents = [0, 0, 0]
        for moving, inputs, outputs in ((dy, lambda t: (t, x0, w0), (0, 1, 2)), (x, lambda t: (dy0, t, w0), (1,)),
                                        (w, lambda t: (dy0, x0, t), (0,))):
            if isinstance(moving, Dual):
                parts = f_vjp(*inputs(moving.tangent), b0, *args, **options)
                for i in outputs:
                    tangents[i] = 0 if parts[i] is None else tangents[i] + parts[i]
        return tuple(y if isinstance(t, int) else Dual(y, t) for y, t in zip(results, tangents))

    return layer_vjp


def tangent(ops):
    r"""The backend's operations on Duals: one pass of a network carries its value and its derivative along a direction.

    $$f(x + \epsilon\,u) = f(x) + \epsilon\,J u, \qquad \epsilon^2 = 0$$

    Its linear layers and convolutions run on the backend; everything else is the reference, which Duals pass through.

    Shapes: ops a backend namespace. Returns a namespace with the same functions.
    Source: Pearlmutter 1994, Neural Computation 6(1) (the R operator); Griewank and Walther 2008, ch. 3.
    """
    from .. import ops as reference

    table = {name: f for name, f in vars(reference).items() if callable(f)}
    for name in ("linear", "conv2d", "conv_transpose2d"):
        table[name] = _layer(getattr(ops, name))
        table[f"{name}_vjp"] = _layer_vjp(getattr(ops, f"{name}_vjp"))

    def embedding_vjp(dy, indices, table):
        value, scatter = primal(dy), lambda a: ops.embedding_vjp(a, indices, primal(table))
        return Dual(scatter(value), scatter(dy.tangent)) if isinstance(dy, Dual) else scatter(value)

    return SimpleNamespace(**table | {"embedding_vjp": embedding_vjp})
