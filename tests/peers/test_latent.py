"""Latent-variable losses, quantisation, flows and spectra beside PyTorch and diffusers: values and gradients."""
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from beside_torch import same, t  # noqa: E402
from torch import distributions as dist  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from refimpl import ops  # noqa: E402
from refimpl.equations import elbo, energy, gaussian, perceptual, quantise  # noqa: E402
from refimpl.nets.mlp import mlp, mlp_init  # noqa: E402
from refimpl.systems import configure  # noqa: E402
from refimpl.systems.coder import coder  # noqa: E402


def check(value, vjp, theirs, inputs, dy=None):
    """Our value and cotangents against theirs(*tensors), whose gradients autograd finds."""
    tensors = [t(a) for a in inputs]
    y = theirs(*tensors)
    same(value, y)
    dy = np.ones(np.shape(value)) if dy is None else dy
    y.backward(t(dy, False))
    back = vjp(dy)
    for ours, tensor in zip(back if isinstance(back, tuple) else (back,), tensors, strict=True):
        same(ours, tensor.grad)


def test_gaussians(rng):
    x, m, lv, m2, lv2 = rng.standard_normal((5, 3, 4))
    dy = rng.standard_normal(3)
    normal = lambda m, lv: dist.Normal(m, (lv / 2).exp())
    check(gaussian.log_normal(x, m, lv), lambda dy: gaussian.log_normal_vjp(dy, x, m, lv),
          lambda x, m, lv: normal(m, lv).log_prob(x).sum(1), (x, m, lv), dy)
    check(gaussian.kl_normal(m, lv, m2, lv2), lambda dy: gaussian.kl_normal_vjp(dy, m, lv, m2, lv2),
          lambda m, lv, m2, lv2: dist.kl_divergence(normal(m, lv), normal(m2, lv2)).sum(1), (m, lv, m2, lv2), dy)
    check(elbo.gaussian_reconstruction(x, m, 0.3), lambda dy: elbo.gaussian_reconstruction_vjp(dy, x, m, 0.3),
          lambda x, m: dist.Normal(m, 0.3**0.5).log_prob(x).sum(1), (x, m), dy)


def test_score_function(rng):
    """f times the gradient of the log density, which autograd finds at a fixed sample."""
    mean, log_var, z = rng.standard_normal((3, 4, 2))
    f, m, v = rng.standard_normal(4), t(mean), t(log_var)
    x = t(gaussian.reparametrise(mean, log_var, z), False)
    (t(f, False) * dist.Normal(m, (v / 2).exp()).log_prob(x).sum(1)).sum().backward()
    for ours, theirs in zip(elbo.score_function(f, mean, log_var, z), (m.grad, v.grad)):
        same(ours, theirs)


def test_diffusers_posterior(rng):
    """Its log-variance, clamped to -30..20, its deviation exp(logvar/2) and its divergence are ours."""
    vae = pytest.importorskip("diffusers.models.autoencoders.vae")
    moments, z = rng.standard_normal((2, 8, 3, 3)), rng.standard_normal((2, 4, 3, 3))
    theirs = vae.DiagonalGaussianDistribution(t(moments, False))
    mean, log_var = np.split(moments, 2, axis=1)
    same(gaussian.kl_normal(mean, log_var, 0 * mean, 0 * mean), theirs.kl())
    same(gaussian.reparametrise(mean, log_var, z), theirs.mean + theirs.std * t(z, False))
    same(-gaussian.log_normal(z, mean, log_var), theirs.nll(t(z, False), dims=[1, 2, 3]))


def test_bernoulli(rng):
    x, l = rng.random((3, 4)), 3 * rng.standard_normal((3, 4))
    dy = rng.standard_normal(3)
    check(elbo.log_bernoulli(x, l), lambda dy: elbo.log_bernoulli_vjp(dy, x, l),
          lambda l: -F.binary_cross_entropy_with_logits(l, t(x, False), reduction="none").sum(1), (l,), dy)


def test_discretised_logistic(rng):
    x = np.round(rng.uniform(-1, 1, (3, 8)) * 127.5 + 127.5) / 127.5 - 1
    x[0, 0], x[0, 1] = -1, 1
    mean, log_scale = rng.standard_normal((3, 8)) / 2, rng.standard_normal((3, 8)) - 2

    def theirs(mean, log_scale):
        """As in PixelCNN++'s code, without its approximation for narrow bins."""
        data, inverse = t(x, False), torch.exp(-log_scale)
        plus, minus = inverse * (data - mean + 1 / 255), inverse * (data - mean - 1 / 255)
        middle = torch.log(torch.sigmoid(plus) - torch.sigmoid(minus))
        return torch.where(data < -0.999, F.logsigmoid(plus),
                           torch.where(data > 0.999, -F.softplus(minus), middle)).sum(1)

    tensors = t(mean), t(log_scale)
    y = theirs(*tensors)
    np.testing.assert_allclose(elbo.discretised_logistic(x, mean, log_scale, 256), y.detach().numpy(), rtol=1e-8)
    y.sum().backward()
    for ours, tensor in zip(elbo.discretised_logistic_vjp(np.ones(3), x, mean, log_scale, 256), tensors):
        np.testing.assert_allclose(ours, tensor.grad.numpy(), rtol=1e-6, atol=1e-8)  # theirs cancels


def test_bounds(rng):
    log_w, kl = rng.standard_normal((3, 5)), rng.random((4, 3))
    dy = rng.standard_normal(3)
    check(elbo.importance_weighted_bound(log_w), lambda dy: elbo.importance_weighted_bound_vjp(dy, log_w),
          lambda w: torch.logsumexp(w, 1) - math.log(5), (log_w,), dy)
    check(elbo.free_bits(kl, 0.5), lambda dy: elbo.free_bits_vjp(dy, kl, 0.5),
          lambda kl: kl.mean(0).clamp(min=0.5).sum(), (kl,))
    w, b, x = rng.standard_normal((4, 2)), rng.standard_normal(4), rng.standard_normal((5, 4))
    exact = dist.LowRankMultivariateNormal(t(b, False), t(w, False), torch.full((4,), 0.3, dtype=torch.float64))
    same(elbo.linear_gaussian_evidence(x, w, b, 0.3), exact.log_prob(t(x, False)))


@pytest.mark.parametrize("legacy", [False, True])
def test_diffusers_quantiser(rng, legacy):
    """Codes, output and all gradients, with beta on the commitment (legacy=False) and on the codebook (legacy=True)."""
    quantizers = pytest.importorskip("diffusers.models.autoencoders.vae")
    K, D, beta = 6, 3, 0.25
    theirs = quantizers.VectorQuantizer(K, D, beta=beta, remap=None, sane_index_shape=False, legacy=legacy).double()
    z, book, dy = rng.standard_normal((2, D, 2, 2)), rng.standard_normal((K, D)), rng.standard_normal((2, D, 2, 2))
    with torch.no_grad():
        theirs.embedding.weight.copy_(t(book, False))
    tensor = t(z)
    e, loss, (_, _, codes) = theirs(tensor)
    (loss + (e * t(dy, False)).sum()).backward()

    rows = np.moveaxis(z, 1, -1)
    ours = quantise.nearest_code(rows, book)
    np.testing.assert_array_equal(ours.reshape(-1), codes.numpy())
    chosen = quantise.quantise(ours, book)
    same(np.moveaxis(quantise.straight_through(rows, chosen), -1, 1), e)
    on_book, on_encoder = (beta, 1.0) if legacy else (1.0, beta)
    value = on_book * quantise.codebook_loss(chosen, rows) + quantise.commitment_loss(rows, chosen, on_encoder)
    same(value / D, loss)  # diffusers takes the mean over D too
    dz = quantise.straight_through_vjp(np.moveaxis(dy, 1, -1), rows, chosen)
    dz = dz + quantise.commitment_loss_vjp(1 / D, rows, chosen, on_encoder)
    same(np.moveaxis(dz, -1, 1), tensor.grad)
    de = on_book * quantise.codebook_loss_vjp(1 / D, chosen, rows)
    same(ops.embedding_vjp(de, ours, book), theirs.embedding.weight.grad)


def test_gumbel_softmax(rng):
    logits, g, dy = rng.standard_normal((3, 2, 4, 5))
    check(quantise.gumbel_softmax(logits, g, 0.7), lambda dy: quantise.gumbel_softmax_vjp(dy, logits, g, 0.7),
          lambda l, g: torch.softmax((l + g) / 0.7, -1), (logits, g), dy)
    dy = rng.standard_normal(2)
    uniform = dist.Categorical(torch.ones(5, dtype=torch.float64))
    check(quantise.kl_uniform(logits), lambda dy: quantise.kl_uniform_vjp(dy, logits),
          lambda l: dist.kl_divergence(dist.Categorical(logits=l), uniform).sum(1), (logits,), dy)


def test_adaptive_weight(rng):
    """As taming-transformers computes it from autograd's gradients of the last layer."""
    w, h, target, v = (rng.standard_normal(s) for s in ((3, 4), (5, 4), (5, 3), (3,)))
    last = t(w)
    x = t(h, False) @ last.T
    rec = torch.autograd.grad(((x - t(target, False)) ** 2).mean(), last, retain_graph=True)[0]
    adversarial = torch.autograd.grad(-(x @ t(v, False)).mean(), last)[0]
    theirs = torch.clamp(torch.norm(rec) / (torch.norm(adversarial) + 1e-4), 0.0, 1e4)
    dx = ops.mse_vjp(1.0, h @ w.T, target)[0]
    ours = quantise.adaptive_weight(dx.T @ h, (-np.outer(np.full(5, 1 / 5), v)).T @ h)
    same(ours, theirs)


def test_coder_and_energy(rng):
    """The perceptrons of the latent systems, and the contrastive loss through one."""
    from refimpl import data

    d = data.Data("made up", rng.standard_normal((4, 1, 4, 4)), None, None, None, 0, None)
    net = coder(configure("vae", d, {"width": 8, "depth": 2}), d, 4, 2, 3)
    own = {k: v.astype(np.float64) for k, v in net.init(0).items()}
    p = {k: t(v) for k, v in own.items()}

    def stack(name, h):
        for i in range(3):
            h = F.linear(F.silu(h) if i else h, p[f"{name}.layers.{i}.weight"], p[f"{name}.layers.{i}.bias"])
        return h

    h, enc = net.encode(own, d.train, ops)
    x_hat, dec = net.decode(own, h[:, :, :2], ops)
    theirs = stack("encoder", t(d.train, False).reshape(4, 16)).reshape(4, 3, 4)
    back = stack("decoder", theirs[:, :, :2].reshape(4, 6)).reshape(d.train.shape)
    same(x_hat, back)
    dx = rng.standard_normal(x_hat.shape)
    (back * t(dx, False)).sum().backward()
    g_dec, dz = dec(dx)
    dh = np.concatenate([dz, 0 * dz], axis=2)
    for name, g in (enc(dh)[0] | g_dec).items():
        same(g, p[name].grad)

    params = {k: v.astype(np.float64) for k, v in mlp_init(1, [2, 5, 1]).items()}
    q = {k: t(v) for k, v in params.items()}
    real, fake = rng.standard_normal((2, 6, 2))
    f = lambda x: F.linear(F.silu(F.linear(x, q["layers.0.weight"], q["layers.0.bias"])), q["layers.1.weight"],
                           q["layers.1.bias"])[:, 0]
    a, b = f(t(real, False)), f(t(fake, False))
    (b.mean() - a.mean() + 0.1 * (a**2).mean() + 0.1 * (b**2).mean()).backward()
    values, pullback = mlp(params, np.concatenate([real, fake]), ops=ops)
    d_data, d_model = energy.contrastive_loss_vjp(1.0, values[:6, 0], values[6:, 0], 0.1)
    for name, g in pullback(np.concatenate([d_data, d_model])[:, None])[0].items():
        same(g, q[name].grad)


def test_spectra_and_features(rng):
    x, y = rng.standard_normal((2, 2, 40))
    window = torch.hann_window(16, dtype=torch.float64)
    spectrum = lambda x: torch.stft(x, 16, 4, window=window, center=False, return_complex=True)
    re, im = perceptual.stft(x, 16, 4)
    same(re, spectrum(t(x)).real.transpose(1, 2))
    same(im, spectrum(t(x)).imag.transpose(1, 2))
    magnitude = lambda x: (spectrum(x).real ** 2 + spectrum(x).imag ** 2 + 1e-8).sqrt()
    check(perceptual.spectral_loss(x, y, 16, 4), lambda dy: perceptual.spectral_loss_vjp(dy, x, y, 16, 4),
          lambda x, y: ((magnitude(x) - magnitude(y)) ** 2).sum() / 2, (x, y))
    a, b = rng.standard_normal((2, 2, 3, 4, 4))
    unit = lambda a: a / ((a**2).sum(1, keepdim=True) + 1e-10).sqrt()
    check(perceptual.feature_loss((a,), (b,)),
          lambda dy: tuple(g[0] for g in perceptual.feature_loss_vjp(dy, (a,), (b,))),
          lambda a, b: ((unit(a) - unit(b)) ** 2).sum(1).mean(), (a, b))
