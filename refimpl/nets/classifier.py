"""A convolutional classifier whose hidden layers are the features that a perceptual loss compares."""
import math

import numpy as np

from .blocks import conv, linear
from .initial import conv_shapes, linear_shapes
from .layers import gaussian


def classifier(params, x, *, ops):
    r"""Strided convolutions and one linear map: the hidden layers, and the logits of the classes.

    $$h_0 = x, \qquad h_{k+1} = \mathrm{relu}(\mathrm{conv}_{3}(h_k)), \qquad l = W h_K + b$$

    The first convolution keeps the size, every later one halves it. As many as params hold.
    Shapes: x (N, C, H, W). Returns features, a tuple of (N, C_k, H_k, W_k); logits (N, classes); and
    pullback(dfeatures, dlogits) -> grads, dx, where dlogits None asks for dx alone and grads are None.
    Source: Simonyan and Zisserman 2015, arXiv:1409.1556 (VGG), the network of Johnson et al. 2016, arXiv:1603.08155;
    strides in place of pooling: Springenberg et al. 2015, arXiv:1412.6806.
    """
    h, features, backs, before, k = x, [], [], [], 0
    while f"convs.{k}.weight" in params:
        m, back = conv(params, f"convs.{k}", h, ops, stride=2 if k else 1, padding=1)
        h = ops.relu(m)
        features.append(h)
        backs.append(back)
        before.append(m)
        k += 1
    logits, last = linear(params, "output", h.reshape(len(h), -1), ops)

    def pullback(dfeatures, dlogits=None):
        grads, dh = ({}, 0) if dlogits is None else last(dlogits)
        dh = dfeatures[-1] + (dh if dlogits is None else dh.reshape(h.shape))
        for i in range(k - 1, -1, -1):
            g, dh = backs[i](ops.relu_vjp(dh, before[i]))
            grads, dh = grads | g, dh + dfeatures[i - 1] if i else dh
        return None if dlogits is None else grads, dh

    return tuple(features), logits, pullback


def classifier_shapes(shape, widths, classes):
    """Names and shapes of a classifier.

    Shapes: shape (C, H, W) of one sample; widths ints, one for each convolution. Returns a dict.
    Source: the project's own names.
    """
    (c, *sides), shapes = shape, {}
    for k, (i, o) in enumerate(zip([c, *widths], widths)):
        shapes |= conv_shapes(f"convs.{k}", i, o)
        sides = [(side + 1) // 2 for side in sides] if k else sides
    return shapes | linear_shapes("output", math.prod((widths[-1], *sides)), classes)


def classifier_init(key, shape, widths, classes, dtype=np.float32):
    """Weights with He's deviation, biases 0.

    Shapes: as classifier_shapes. Returns params, a flat dict of arrays of the dtype.
    Source: He et al. 2015, arXiv:1502.01852.
    """
    return gaussian(key, classifier_shapes(shape, widths, classes), dtype=dtype)
