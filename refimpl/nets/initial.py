"""Names, shapes and initial values of the parameters of the blocks."""
import math
import zlib

import numpy as np

from refimpl.ops.random import fold, normal, uniform


def linear_shapes(name, inputs, outputs):
    """Names and shapes of an affine map. Shapes: weight (O, I), bias (O,). Source: PyTorch, Linear."""
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def conv_shapes(name, inputs, outputs, size=3):
    """Names and shapes of a convolution. Shapes: weight (O, I, size, size), bias (O,). Source: PyTorch, Conv2d."""
    return {f"{name}.weight": (outputs, inputs, size, size), f"{name}.bias": (outputs,)}


def norm_shapes(name, channels):
    """Names and shapes of a group norm's scale and shift. Shapes: (C,) each. Source: PyTorch, GroupNorm."""
    return {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}


def residual_shapes(name, inputs, outputs, embedding, adaptive):
    """Names and shapes of a residual block. Shapes: embedding is E, or None. Source: diffusers, ResnetBlock2D."""
    shapes = norm_shapes(f"{name}.norm1", inputs) | conv_shapes(f"{name}.conv1", inputs, outputs)
    if embedding:
        shapes |= linear_shapes(f"{name}.time_emb_proj", embedding, (1 + adaptive) * outputs)
    shapes |= norm_shapes(f"{name}.norm2", outputs) | conv_shapes(f"{name}.conv2", outputs, outputs)
    return shapes | (conv_shapes(f"{name}.conv_shortcut", inputs, outputs, 1) if inputs != outputs else {})


def attention_shapes(name, channels, normed=True):
    """Names and shapes of an attention block. Shapes: projections (C, C). Source: diffusers, Attention."""
    shapes = norm_shapes(f"{name}.group_norm", channels) if normed else {}
    for part in ("to_q", "to_k", "to_v", "to_out.0"):
        shapes |= linear_shapes(f"{name}.{part}", channels, channels)
    return shapes


def stage_shapes(name, inputs, outputs, embedding, adaptive, attends, resample):
    """Names and shapes of a stage: a residual block for each number of input channels, attention behind each if it
    attends, and the convolution of the down- or upsampler that `resample` names, or None.

    Shapes: see the parts. Source: diffusers, its U-Net blocks.
    """
    shapes = {}
    for j, width in enumerate(inputs):
        shapes |= residual_shapes(f"{name}.resnets.{j}", width, outputs, embedding, adaptive)
        if attends:
            shapes |= attention_shapes(f"{name}.attentions.{j}", outputs)
    return shapes | (conv_shapes(f"{name}.{resample}.0.conv", outputs, outputs) if resample else {})


def initialise(key, shapes, dtype=np.float32, zero=()):
    r"""Initial parameters: uniform with variance 1/(3 fan-in), norms 1 and 0, tables of embeddings standard normal.

    $$w, b \sim U\left(-\tfrac{1}{\sqrt{\mathrm{fan}}}, \tfrac{1}{\sqrt{\mathrm{fan}}}\right),
      \qquad \mathrm{fan} = I R S$$

    Every parameter has a key of its own, from its name, so it does not depend on what else the network holds.
    Shapes: shapes a dict from names to shapes; zero, parts of names whose parameters start at 0. Returns a dict.
    Source: LeCun et al. 1998, Efficient BackProp (fan-in); the bounds are PyTorch's.
    """
    params = {}
    for name, shape in shapes.items():
        weight = shapes[f"{name.rsplit('.', 1)[0]}.weight"]
        own = fold(key, zlib.crc32(name.encode()))
        if any(part in name for part in zero):
            value = np.zeros(shape)
        elif len(weight) == 1:
            value = np.full(shape, float(name.endswith("weight")))
        elif "embedding.weight" in name:
            value = normal(own, np.zeros(1, dtype=int), 0, shape, dtype=np.float64)[0]
        else:
            value = (2 * uniform(own, np.zeros(1, dtype=int), 0, shape, dtype=np.float64)[0] - 1) / math.sqrt(
                math.prod(weight[1:]))
        params[name] = value.astype(dtype)
    return params
