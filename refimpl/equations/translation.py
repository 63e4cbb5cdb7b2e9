"""What conditional and translating GANs minimise: an adversarial term plus one that ties the output to its source.

The lectures print pix2pix and CycleGAN without the weight lambda; without it the adversarial term drowns the other.
"""
import numpy as np

from ..ops._check import require, same_dtype
from ..ops.activation import sigmoid, softplus
from ..ops.losses import l1, l1_vjp, mse, mse_vjp
from .adversarial import lsgan_g, lsgan_g_vjp, non_saturating_g, non_saturating_g_vjp


def matching_d(logit_right, logit_wrong, logit_fake):
    r"""The matching-aware discriminator: real images with wrong captions count as fake, half of the time.

    $$-E\log\sigma(l_r) - \frac12\left[E\log(1-\sigma(l_w)) + E\log(1-\sigma(l_f))\right]$$

    Shapes: logits any; returns a scalar. Analytic.
    Source: Reed et al. 2016, arXiv:1605.05396, alg. 1.
    """
    same_dtype("matching_d", logit_right=logit_right, logit_wrong=logit_wrong, logit_fake=logit_fake)
    return np.mean(softplus(-logit_right)) + (np.mean(softplus(logit_wrong)) + np.mean(softplus(logit_fake))) / 2


def matching_d_vjp(dy, logit_right, logit_wrong, logit_fake):
    """dl_right = (s - 1)/N, dl_wrong = s/2N, dl_fake = s/2N."""
    return (-dy / logit_right.size * sigmoid(-logit_right), dy / 2 / logit_wrong.size * sigmoid(logit_wrong),
            dy / 2 / logit_fake.size * sigmoid(logit_fake))


def interpolate(embedding, other, beta=0.5):
    r"""Embeddings between those of two captions: extra conditions for the generator that need no images.

    $$\beta\,\phi_1 + (1-\beta)\,\phi_2$$

    Shapes: embedding, other of one shape; beta a number in [0, 1]. Returns that shape.
    Source: Reed et al. 2016, arXiv:1605.05396, eq. 5.
    """
    require(0 <= beta <= 1, f"interpolate: beta must be in [0, 1], got {beta}")
    return beta * embedding + (1 - beta) * other


def pix2pix_g(logit_fake, y_fake, y, weight):
    r"""The generator of pix2pix: fool the discriminator, and stay near the paired target in the L1 norm.

    $$-E\log\sigma(l_f) + \lambda\,E\,|y - \hat y|$$

    Shapes: logit_fake any; y_fake, y of one shape: pairs. weight is lambda, 100 in the paper. Returns a scalar.
    Raises: ValueError when the images are no pairs, that is, differ in shape.
    Source: Isola et al. 2017, arXiv:1611.07004, eq. 4.
    """
    require(y_fake.shape == y.shape,
            f"pix2pix needs pairs: each output beside its target, got shapes {y_fake.shape} and {y.shape}")
    return non_saturating_g(logit_fake) + weight * l1(y_fake, y)


def pix2pix_g_vjp(dL, logit_fake, y_fake, y, weight):
    """dlogit = (s - 1)/M, dy_fake = lambda sign(y_fake - y)/N, dy = -dy_fake."""
    return non_saturating_g_vjp(dL, logit_fake), *l1_vjp(weight * dL, y_fake, y)


def cyclegan_g(logit_a, logit_b, a, a_cycle, b, b_cycle, weight):
    r"""Both generators of CycleGAN: least-squares games in both domains, and there and back again changes nothing.

    $$\frac12 E(l_a-1)^2 + \frac12 E(l_b-1)^2 + \lambda\left(E\,|F(G(a))-a| + E\,|G(F(b))-b|\right)$$

    Shapes: logits any; a and a_cycle of one shape, b and b_cycle of one shape. weight is lambda; the paper's squares have
    no 1/2, so that its lambda, 10 beside them, is 5 here. Returns a scalar.
    Raises: ValueError when an image and its cycle differ in shape.
    Source: Zhu et al. 2017, arXiv:1703.10593, eq. 3 with the least squares of sec. 4.
    """
    return lsgan_g(logit_a, 1.0) + lsgan_g(logit_b, 1.0) + weight * (l1(a, a_cycle) + l1(b, b_cycle))


def cyclegan_g_vjp(dL, logit_a, logit_b, a, a_cycle, b, b_cycle, weight):
    """dlogit = (l - 1)/M in both domains; dcycle = lambda sign(cycle - image)/N, and minus that for the image."""
    return (lsgan_g_vjp(dL, logit_a, 1.0), lsgan_g_vjp(dL, logit_b, 1.0), *l1_vjp(weight * dL, a, a_cycle),
            *l1_vjp(weight * dL, b, b_cycle))


def srgan_g(logit_fake, y_fake, y, weight):
    r"""The generator of SRGAN: near the true image, and a little adversarial.

    $$E\,(y-\hat y)^2 - \lambda\,E\log\sigma(l_f)$$

    Shapes: logit_fake any; y_fake, y of one shape. weight is lambda, 1e-3 in the paper, whose content term also has a
    form on a classifier's features. Returns a scalar. Analytic.
    Source: Ledig et al. 2017, arXiv:1609.04802, eq. 3, 4, 6.
    """
    return mse(y_fake, y) + weight * non_saturating_g(logit_fake)


def srgan_g_vjp(dL, logit_fake, y_fake, y, weight):
    """dlogit = lambda (s - 1)/M, dy_fake = 2 (y_fake - y)/N, dy = -dy_fake."""
    return non_saturating_g_vjp(weight * dL, logit_fake), *mse_vjp(dL, y_fake, y)


def restyle(x, w, generator, encoder, steps):
    r"""ReStyle's inversion: an encoder corrects the code by what it sees of the target and the present image.

    $$w_{t+1} = w_t + E(x, G(w_t))$$

    Shapes: x (N, ...), w (N, D); generator(w) -> (N, ...), encoder(x, y) -> (N, D). Returns the codes, (steps+1, N, D).
    Raises: ValueError when steps is negative.
    Source: Alaluf et al. 2021, arXiv:2104.02699.
    """
    require(steps >= 0, f"restyle: steps must not be negative, got {steps}")
    codes = [w]
    for _ in range(steps):
        codes.append(codes[-1] + encoder(x, generator(codes[-1])))
    return np.stack(codes)


def truncated_variance(t):
    r"""Variance of a standard normal variable that is redrawn until it lies in [-t, t].

    $$1 - \frac{2\,t\,\varphi(t)}{2\,\Phi(t)-1}$$

    Shapes: t a positive number. Returns a float.
    Source: Johnson, Kotz, Balakrishnan 1994, Continuous Univariate Distributions 1, sec. 10.1.
    """
    from scipy.special import erf

    require(t > 0, f"truncated_variance: t must be positive, got {t}")
    return float(1 - 2 * t * np.exp(-(t**2) / 2) / (2 * np.pi) ** 0.5 / erf(t / 2**0.5))


def truncated_normal(u, t):
    r"""Standard normal numbers restricted to [-t, t], from uniform ones: BigGAN's truncation trick.

    $$z = \Phi^{-1}\left(\Phi(-t) + u\,(1 - 2\,\Phi(-t))\right)$$

    The distribution is that of drawing again until |z| <= t.

    Shapes: u any, in [0, 1]; t a positive number. Returns u's shape.
    Raises: ValueError when t is not positive.
    Source: Brock et al. 2019, arXiv:1809.11096, sec. 3.1.
    """
    from scipy.special import ndtr, ndtri

    require(t > 0, f"truncated_normal: t must be positive, got {t}")
    low = ndtr(-t)
    return np.clip(ndtri(low + u * (1 - 2 * low)), -t, t).astype(u.dtype)
