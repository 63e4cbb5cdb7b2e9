"""The adversarial networks written in PyTorch: functions of parameters p, state s and input, by the reference's names."""
import numpy as np
import torch
from torch.nn import functional as F

from refimpl.nets import stylegan

LABELS = np.array([0, 2, 1, 2])
STYLE = stylegan.StyleConfig(base=2, widths=(4, 3), channels=2, latent=5, depth=2)
NOISES = [np.random.default_rng(3).standard_normal((4, *s)) for s in stylegan.noise_shapes(STYLE)]
NOISE = [torch.tensor(n) for n in NOISES]


def lrelu(x):
    return F.leaky_relu(x, 0.2)


def bn(p, s, name, x):
    mean, var = (torch.tensor(s[f"{name}.{k}"]) for k in ("running_mean", "running_var"))
    return F.batch_norm(x, mean, var, p.get(f"{name}.weight"), p.get(f"{name}.bias"), training=True)


def conv(p, name, x, **options):
    return F.conv2d(x, p[f"{name}.weight"], p.get(f"{name}.bias"), **options)


def linear(p, name, x):
    return F.linear(x, p[f"{name}.weight"], p.get(f"{name}.bias"))


def inorm(p, name, x):
    return F.instance_norm(x, weight=p[f"{name}.weight"], bias=p[f"{name}.bias"])


def up(x):
    return F.interpolate(x, scale_factor=2, mode="nearest")


def pool(x):
    return F.avg_pool2d(x, 2)


def pn(x):
    return x / torch.sqrt((x**2).mean(1, keepdim=True) + 1e-8)


def dcgan_generator(p, s, z):
    h = F.conv_transpose2d(z[:, :, None, None], p["input.weight"])
    for k in range(2):
        h = F.conv_transpose2d(F.relu(bn(p, s, f"norms.{k}", h)), p[f"convs.{k}.weight"], p.get(f"convs.{k}.bias"),
                               stride=2, padding=1)
    return torch.tanh(h)


def dcgan_discriminator(p, s, x):
    for k in range(2):
        x = conv(p, f"convs.{k}", x, stride=2, padding=1)
        x = lrelu(bn(p, s, f"norms.{k}", x) if f"norms.{k}.weight" in p else x)
    return conv(p, "output", x).flatten()


def attention(p, name, x):
    n, _, h, w = x.shape
    q, k, v = (conv(p, f"{name}.{part}", x).flatten(2) for part in ("query", "key", "value"))
    o = v @ torch.softmax(q.transpose(1, 2) @ k, dim=2).transpose(1, 2)
    return x + p[f"{name}.gamma"] * conv(p, f"{name}.out", o.reshape(n, -1, h, w))


def cbn(p, s, name, x, y):
    gain, shift = linear(p, f"{name}.gain", y), linear(p, f"{name}.shift", y)
    return bn(p, s, name, x) * (1 + gain[:, :, None, None]) + shift[:, :, None, None]


def biggan_generator(split):
    def run(p, s, z):
        e = p["embedding.weight"][LABELS]
        parts = torch.chunk(z, 3, dim=1) if split else [z, z[:, :0], z[:, :0]]
        h = linear(p, "input", parts[0]).reshape(len(z), -1, 2, 2)
        for k in range(2):
            name, y = f"blocks.{k}", torch.cat([e, parts[k + 1]], 1)
            r = conv(p, f"{name}.conv1", up(F.relu(cbn(p, s, f"{name}.norm1", h, y))), padding=1)
            r = conv(p, f"{name}.conv2", F.relu(cbn(p, s, f"{name}.norm2", r, y)), padding=1)
            h = r + conv(p, f"{name}.shortcut", up(h))
            h = attention(p, f"attentions.{k}", h) if f"attentions.{k}.gamma" in p else h
        return torch.tanh(conv(p, "output", F.relu(bn(p, s, "norm", h)), padding=1))

    return run


def biggan_discriminator(p, s, x):
    for k in range(3):
        r = conv(p, f"blocks.{k}.conv1", F.relu(x) if k else x, padding=1)
        r = conv(p, f"blocks.{k}.conv2", F.relu(r), padding=1)
        c = conv(p, f"blocks.{k}.shortcut", x)
        x = pool(r + c) if k < 2 else r + c
        x = attention(p, f"attentions.{k}", x) if f"attentions.{k}.gamma" in p else x
    phi = F.relu(x).sum((2, 3))
    return linear(p, "output", phi)[:, 0] + (p["embedding.weight"][LABELS] * phi).sum(1)


def progressive_generator(p, s, z):
    h = pn(lrelu(linear(p, "input", pn(z))).reshape(len(z), -1, 2, 2))
    h = small = pn(lrelu(conv(p, "blocks.0.conv2", h, padding=1)))
    for name in ("conv1", "conv2"):
        h = pn(lrelu(conv(p, f"blocks.1.{name}", up(h) if name == "conv1" else h, padding=1)))
    return 0.7 * up(conv(p, "rgb.0", small)) + 0.3 * conv(p, "rgb.1", h)


def stddev(x, group):
    y = x.reshape(group, -1, *x.shape[1:])
    s = torch.sqrt(y.var(0, unbiased=False) + 1e-8).mean((1, 2, 3))
    return torch.cat([x, s.repeat(group)[:, None, None, None].expand(-1, 1, *x.shape[2:])], 1)


def head(p, h, group):
    h = lrelu(conv(p, "blocks.0.conv", stddev(h, group), padding=1)).flatten(1)
    return linear(p, "output", lrelu(linear(p, "dense", h)))[:, 0]


def progressive_discriminator(p, s, x):
    h = lrelu(conv(p, "from_rgb.1", x))
    h = pool(lrelu(conv(p, "blocks.1.conv2", lrelu(conv(p, "blocks.1.conv1", h, padding=1)), padding=1)))
    return head(p, 0.7 * lrelu(conv(p, "from_rgb.0", pool(x))) + 0.3 * h, 2)


def mapping(p, s, z):
    w = pn(z)
    for i in range(2):
        w = lrelu(linear(p, f"mapping.{i}", w))
    return w


def stylegan_synthesis(p, s, ws):
    h = p["constant"].expand(len(ws), -1, -1, -1)
    for k, n in enumerate(NOISE):
        name = f"layers.{k}"
        h = conv(p, f"{name}.conv", up(h) if k == 2 else h, padding=1) if k else h
        h = lrelu(h + p[f"{name}.strength"][:, None, None] * n + p[f"{name}.bias"][:, None, None])
        scale, bias = linear(p, f"{name}.style", ws[:, k])[:, :, None, None].chunk(2, dim=1)
        h = F.instance_norm(h) * (1 + scale) + bias
    return conv(p, "rgb", h)


def modulated(x, w, style, demodulate, padding):
    """The weight form: filters of each sample's own, by a grouped convolution."""
    n, i, h, width = x.shape
    w = w[None] * style[:, None, :, None, None]
    w = w * torch.rsqrt((w**2).sum((2, 3, 4), keepdim=True) + 1e-8) if demodulate else w
    y = F.conv2d(x.reshape(1, n * i, h, width), w.flatten(0, 1), padding=padding, groups=n)
    return y.reshape(n, -1, *y.shape[2:])


def stylegan2_synthesis(p, s, ws):
    h, x = p["constant"].expand(len(ws), -1, -1, -1), 0
    for k, n in enumerate(NOISE):
        name = f"layers.{k}"
        style = 1 + linear(p, f"{name}.style", ws[:, k])
        h = modulated(up(h) if k == 2 else h, p[f"{name}.weight"], style, True, 1)
        h = 2**0.5 * lrelu(h + p[f"{name}.strength"] * n + p[f"{name}.bias"][:, None, None])
        if k % 2:
            name = f"rgb.{k // 2}"
            y = modulated(h, p[f"{name}.weight"], 1 + linear(p, f"{name}.style", ws[:, k]), False, 0)
            x = (up(x) if k > 1 else 0) + y + p[f"{name}.bias"][:, None, None]
    return x


def stylegan2_discriminator(p, s, x):
    h = lrelu(conv(p, "from_rgb", x))
    r = lrelu(conv(p, "blocks.1.conv2", lrelu(conv(p, "blocks.1.conv1", h, padding=1)), padding=1))
    return head(p, pool(r + conv(p, "blocks.1.shortcut", h)) / 2**0.5, 2)


def translator(p, s, x):
    h = F.relu(inorm(p, "norm", conv(p, "input", x, padding=1)))
    for k in range(2):
        r = F.relu(inorm(p, f"blocks.{k}.norm1", conv(p, f"blocks.{k}.conv1", h, padding=1)))
        h = h + inorm(p, f"blocks.{k}.norm2", conv(p, f"blocks.{k}.conv2", r, padding=1))
    return torch.tanh(conv(p, "output", h, padding=1))


def srresnet(p, s, x):
    normed = lambda name, h: bn(p, s, f"{name}.norm", conv(p, f"{name}.conv", h, padding=1))
    start = h = F.prelu(conv(p, "input", x, padding=1), p["input.slope"])
    for k in range(2):
        h = h + normed(f"blocks.{k}.1", F.prelu(normed(f"blocks.{k}.0", h), p[f"blocks.{k}.slope"]))
    h = F.pixel_shuffle(conv(p, "ups.0", start + normed("joint", h), padding=1), 2)
    return conv(p, "output", F.prelu(h, p["ups.0.slope"]), padding=1)


def patchgan(p, s, x):
    for k in range(2):
        x = conv(p, f"convs.{k}", x, stride=2, padding=1)
        x = lrelu(inorm(p, f"norms.{k}", x) if k else x)
    return conv(p, "output", x, padding=1)
