"""Pullbacks of blocks and networks, held to the complex step in all their parameters and inputs at once."""
import numpy as np

from refimpl import ops
from refimpl.nets import autoencoder, blocks, classifier, initial, mlp, transformer, unet

from . import fact


def pullback_error(net, params, arrays, d):
    """Error of <u, J v> = <J^T u, v> for y, pullback = net(params, *arrays), J v by complex step in everything.

    Shapes: params a dict of float64 arrays; arrays a tuple of them; pullback(u) -> grads and one cotangent per array.
    Relative to the sum of the magnitudes of the terms. Infinite when a gradient is missing or has another shape.
    Source: Squire and Trapp 1998, SIAM Review 40(1).
    """
    def move(a, v):
        return a + 1e-30j * v

    v = {name: d.array(*p.shape) for name, p in params.items()}
    w = tuple(d.array(*a.shape) for a in arrays)
    y, pullback = net(params, *arrays)
    u = d.array(*y.shape)
    moved, _ = net({name: move(p, v[name]) for name, p in params.items()}, *(move(a, b) for a, b in zip(arrays, w)))
    jv = moved.imag / 1e-30
    grads, *cotangents = pullback(u)
    if grads.keys() != params.keys() or any(grads[n].shape != params[n].shape for n in params):
        return np.inf
    if tuple(c.shape for c in cotangents) != tuple(a.shape for a in arrays):
        return np.inf
    left, right = np.ravel(u * jv), np.concatenate(
        [np.ravel(grads[n] * v[n]) for n in params] + [np.ravel(c * b) for c, b in zip(cotangents, w)])
    scale = np.sum(np.abs(left)) + np.sum(np.abs(right)) + 1e-30
    return float(abs(np.sum(left) - np.sum(right)) / scale)


def random_params(shapes, d):
    """A value for every parameter, of a size that keeps activations near 1.

    Shapes: shapes a dict from names to shapes; returns a dict of float64 arrays.
    Source: LeCun et al. 1998, Efficient BackProp.
    """
    return {n: d.array(*s) / max(1, int(np.prod(s[1:]))) ** 0.5 for n, s in shapes.items()}


def _form(d):
    return blocks.Form(groups=2, head_dim=d.choice([2, None]), adaptive=d.choice([False, True]),
                       scale=d.choice([1.0, 1.5]))


@fact("vjp", blocks.residual, tolerance=1e-10)
def residual_pullback(d):
    """The residual block's pullback is the transpose of its Jacobian, by complex step."""
    form, inputs, outputs, E = _form(d), d.choice([2, 4]), d.choice([2, 4]), d.choice([None, 3])
    form = form._replace(adaptive=form.adaptive and E is not None)
    params = random_params(initial.residual_shapes("r", inputs, outputs, E, form.adaptive), d)
    x = d.array(2, inputs, 3, d.integer(1, 4))
    if E is None:
        def without_act(p, x):
            y, pullback = blocks.residual(p, "r", x, None, form, ops)
            return y, lambda dy: pullback(dy)[:2]
        return pullback_error(without_act, params, (x,), d)
    return pullback_error(lambda p, x, act: blocks.residual(p, "r", x, act, form, ops), params, (x, d.array(2, E)), d)


@fact("vjp", blocks.attention, tolerance=1e-10)
def attention_pullback(d):
    """The attention block's pullback is the transpose of its Jacobian, by complex step."""
    form, channels = _form(d), d.choice([2, 4])
    params = random_params(initial.attention_shapes("a", channels, d.choice([True, False])), d)
    x = d.array(d.integer(1, 3), channels, d.integer(1, 3), 2)
    return pullback_error(lambda p, x: blocks.attention(p, "a", x, form, ops), params, (x,), d)


@fact("vjp", unet.unet, tolerance=1e-10)
def unet_pullback(d):
    """The U-Net's pullback is the transpose of its Jacobian, by complex step."""
    config = unet.unet_config(dict(
        in_channels=1, out_channels=1, block_out_channels=[2, 4], layers_per_block=1, norm_num_groups=2,
        down_block_types=["DownBlock2D"] * 2, up_block_types=["UpBlock2D"] * 2, attention_head_dim=2,
        downsample_padding=d.choice([0, 1]), num_class_embeds=3))
    params = random_params(unet.unet_shapes(config), d)
    t, labels = np.array([d.real(0, 1000)]), np.array([d.integer(0, 2)])
    return pullback_error(lambda p, x: unet.unet(p, x, t, labels, config=config, ops=ops), params,
                          (d.array(1, 1, 2, 2),), d)


@fact("vjp", mlp.mlp, tolerance=1e-10)
def mlp_pullback(d):
    """The perceptron's pullback is the transpose of its Jacobian, by complex step."""
    params = random_params(mlp.mlp_shapes([6, *[d.integer(1, 5) for _ in range(d.integer(0, 2))], 2]), d)
    activation = d.choice(sorted(mlp.ACTIVATIONS))  # a kink is met with probability 0
    return pullback_error(lambda p, x: mlp.mlp(p, x, ops=ops, activation=activation), params, (d.array(2, 2, 3),), d)


@fact("vjp", mlp.time_mlp, tolerance=1e-10)
def time_mlp_pullback(d):
    """The timed perceptron's pullback is the transpose of its Jacobian, by complex step."""
    config = mlp.TimeMLPConfig(features=4, width=d.integer(1, 5), depth=d.integer(0, 2), time_dim=d.integer(2, 5),
                               num_class_embeds=d.choice([None, 3]))
    params, N = random_params(mlp.time_mlp_shapes(config), d), d.integer(1, 3)
    t, labels = np.array([d.real(0, 1000) for _ in range(N)]), np.array([d.integer(0, 2) for _ in range(N)])
    labels = labels if config.num_class_embeds else None
    return pullback_error(lambda p, x: mlp.time_mlp(p, x, t, labels, config=config, ops=ops), params,
                          (d.array(N, 1, 2, 2),), d)


def _autoencoder(d):
    kind = d.choice([{"_class_name": "AutoencoderKL"}, {"_class_name": "VQModel", "num_vq_embeddings": 3}])
    config = autoencoder.autoencoder_config(kind | dict(
        in_channels=1, out_channels=1, block_out_channels=[2, 4], norm_num_groups=2, latent_channels=2,
        down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2))
    return config, random_params(autoencoder.autoencoder_shapes(config), d)


@fact("vjp", autoencoder.encode, tolerance=1e-10)
def encode_pullback(d):
    """The encoder's pullback is the transpose of its Jacobian, by complex step."""
    config, params = _autoencoder(d)
    params = {n: p for n, p in params.items() if n.startswith(("encoder", "quant_conv"))}
    net = lambda p, x: autoencoder.encode(p, x, config=config, ops=ops)
    return pullback_error(net, params, (d.array(1, 1, 4, 2),), d)


@fact("vjp", autoencoder.decode, tolerance=1e-10)
def decode_pullback(d):
    """The decoder's pullback is the transpose of its Jacobian, by complex step."""
    config, params = _autoencoder(d)
    params = {n: p for n, p in params.items() if n.startswith(("decoder", "post_quant_conv"))}
    net = lambda p, z: autoencoder.decode(p, z, config=config, ops=ops)
    return pullback_error(net, params, (d.array(1, 2, 2, 1),), d)


@fact("vjp", classifier.classifier, tolerance=1e-10)
def classifier_pullback(d):
    """The classifier's pullback is the transpose of its Jacobian, logits and hidden layers being its outputs."""
    shape = (d.integer(1, 2), d.integer(1, 4), d.integer(1, 4))
    params = random_params(classifier.classifier_shapes(shape, [2, 3][:d.integer(1, 2)], 2), d)

    def net(p, x):
        features, logits, pullback = classifier.classifier(p, x, ops=ops)
        outputs = [*features, logits]

        def back(dy):
            pieces = np.split(dy, np.cumsum([a.size for a in outputs])[:-1])
            *dfeatures, dlogits = [piece.reshape(a.shape) for piece, a in zip(pieces, outputs)]
            return pullback(dfeatures, dlogits)

        return np.concatenate([a.reshape(-1) for a in outputs]), back

    return pullback_error(net, params, (d.array(2, *shape),), d)


def _transformer(d):
    """A config, float64 parameters, codes (N, L) and labels or None."""
    heads = d.choice([1, 2])
    config = transformer.TransformerConfig(codes=3, length=d.integer(1, 4), width=2 * heads, depth=d.integer(1, 2),
                                           heads=heads, classes=d.choice([None, 2]))
    N = d.integer(1, 2)
    codes = np.array([[d.integer(0, 2) for _ in range(d.integer(1, config.length))]] * N)
    labels = None if config.classes is None else np.array([d.integer(0, 1) for _ in range(N)])
    return config, random_params(transformer.transformer_shapes(config), d), codes, labels


@fact("vjp", transformer.transformer, transformer.block, tolerance=1e-10)
def transformer_pullback(d):
    """The transformer's pullback is the transpose of its Jacobian in the parameters, by complex step."""
    config, params, codes, labels = _transformer(d)

    def net(p):
        logits, pullback = transformer.transformer(p, codes, labels, config=config, ops=ops)
        return logits, lambda dy: (pullback(dy),)

    return pullback_error(net, params, (), d)


@fact("cache", transformer.next_logits, transformer.transformer, tolerance=1e-10)
def cached_logits(d):
    """Logits code by code, from the keys and values kept, are those of the whole sequence at once."""
    config, params, codes, labels = _transformer(d)
    whole, _ = transformer.transformer(params, codes, labels, config=config, ops=ops)
    code, past, error = np.zeros(len(codes), int) if labels is None else labels, None, 0.0
    for i in range(codes.shape[1]):
        logits, past = transformer.next_logits(params, code, i, past, config=config, ops=ops)
        error, code = max(error, np.max(abs(logits - whole[:, i]))), codes[:, i]
    return error / (1 + np.max(abs(whole)))
