"""Conditional and translating GANs, readers and blending: gradients, and values known in closed form."""
from itertools import groupby, product

import numpy as np

from refimpl.equations import blending, ctc, images, translation

from . import fact
from .gradients import pair


@pair(translation.matching_d, translation.matching_d_vjp, "logit_right", "logit_wrong", "logit_fake")
def _matching_d(d):
    return {f"logit_{kind}": 2 * d.array(d.integer(1, 4)) for kind in ("right", "wrong", "fake")}


def _images(d):
    return d.array(2, 1, 2, 2), d.array(2, 1, 2, 2)


@pair(translation.pix2pix_g, translation.pix2pix_g_vjp, "logit_fake", "y_fake", "y")
def _pix2pix_g(d):
    y_fake, y = _images(d)
    return {"logit_fake": d.array(3, 1, 2, 2), "y_fake": y_fake, "y": y, "weight": d.real(1, 100)}


@pair(translation.cyclegan_g, translation.cyclegan_g_vjp, "logit_a", "logit_b", "a", "a_cycle", "b", "b_cycle")
def _cyclegan_g(d):
    (a, a_cycle), (b, b_cycle) = _images(d), _images(d)
    return {"logit_a": d.array(3), "logit_b": d.array(2), "a": a, "a_cycle": a_cycle, "b": b, "b_cycle": b_cycle,
            "weight": d.real(1, 10)}


@pair(translation.srgan_g, translation.srgan_g_vjp, "logit_fake", "y_fake", "y")
def _srgan_g(d):
    y_fake, y = _images(d)
    return {"logit_fake": d.array(3), "y_fake": y_fake, "y": y, "weight": d.real(0.001, 1)}


@pair(ctc.ctc, ctc.ctc_vjp, "logits")
def _ctc(d):
    labels = np.array([d.integer(1, 3) for _ in range(d.integer(0, 3))], dtype=int)
    frames = len(labels) + int(np.sum(labels[1:] == labels[:-1])) + d.integer(0, 3)
    return {"logits": 2 * d.array(max(frames, 1), 4), "labels": labels}


@fact("F-G6", ctc.ctc, ctc.ctc_vjp, tolerance=1e-10)
def ctc_by_brute_force(d):
    """CTC equals the sum over all paths; the gradient of every frame sums to 0."""
    inputs = _ctc(d)
    logits, labels = inputs["logits"][:, :3], np.minimum(inputs["labels"], 2)
    frames = max(len(logits), 2 * len(labels) - 1 if len(labels) else 1)
    logits = np.concatenate([logits, d.array(frames - len(logits), 3)])[:7]
    labels = labels[:(len(logits) + 1) // 2]
    p = np.exp(logits - np.log(np.sum(np.exp(logits), axis=1, keepdims=True)))
    total = sum(np.prod(p[np.arange(len(p)), list(path)]) for path in product(range(3), repeat=len(p))
                if [k for k, _ in groupby(path) if k] == labels.tolist())
    return max(abs(ctc.ctc(logits, labels) + np.log(total)),
               np.max(abs(np.sum(ctc.ctc_vjp(1.0, logits, labels), axis=1))))


@fact("B7", blending.poisson_blend, blending.poisson_residual, blending.guidance, tolerance=1e-10)
def blend_solves_its_equation(d):
    """No residual in the mask, no change outside it; the target's own gradients give the target back."""
    h, w = d.integer(4, 8), d.integer(4, 8)
    target, source, mask = d.array(h, w), d.array(h, w), np.zeros((h, w), dtype=bool)
    mask[1:-1, 1:-1] = d.array(h - 2, w - 2) > -0.5
    mask[1, 1] = True
    v = blending.guidance(source, d.choice([None, target]))
    blend = blending.poisson_blend(target, mask, v)
    again = blending.poisson_blend(target, mask, blending.guidance(target))
    shifted = blending.poisson_blend(target, mask, blending.guidance(target + d.real(-3, 3)))
    return max(blending.poisson_residual(blend, mask, v), np.max(abs(blend - target)[~mask]),
               np.max(abs(again - target)), np.max(abs(shifted - target)))


@fact("C7", translation.restyle, tolerance=1e-10)
def restyle_of_a_linear_generator(d):
    """With G = A w and E = A^+ (x - y) one step is exact, the next ones stay; half a step halves the error."""
    a, w, start = d.array(6, 3), d.array(2, 3), d.array(2, 3)
    inverse, x = np.linalg.pinv(a), w @ a.T
    exact = translation.restyle(x, start, lambda w: w @ a.T, lambda x, y: (x - y) @ inverse.T, 3)
    half = translation.restyle(x, start, lambda w: w @ a.T, lambda x, y: (x - y) @ inverse.T / 2, 3)
    return max(np.max(abs(exact[1:] - w)), np.max(abs(half[3] - w - (start - w) / 8)))


@fact("C4", translation.truncated_normal, translation.truncated_variance, tolerance=1e-10)
def truncated_moments(d):
    """Gauss-Legendre over u gives mean 0 and the closed-form variance; all values stay within the threshold."""
    t = d.real(0.1, 2)
    nodes, weights = np.polynomial.legendre.leggauss(80)
    z = translation.truncated_normal((nodes + 1) / 2, t)
    return max(abs(weights @ z), abs(weights @ z**2 / 2 - translation.truncated_variance(t)), np.max(abs(z)) - t)


@fact("B5", images.psnr, images.ssim, tolerance=1e-10)
def similar_images(d):
    """PSNR of a constant error e is 20 log10(L/|e|); SSIM is symmetric, 1 for equal images, closed for flat ones."""
    x, y, e, span = d.array(2, 12, 12), d.array(2, 12, 12), d.real(0.01, 2), d.real(1, 255)
    a, b, c1 = d.real(-1, 1), d.real(-1, 1), (0.01 * span) ** 2
    flat = images.ssim(np.full((11, 11), a), np.full((11, 11), b), span)
    return max(abs(images.psnr(x, x + e, span) - 20 * np.log10(span / e)), abs(images.ssim(x, x, span) - 1),
               abs(images.ssim(x, y, span) - images.ssim(y, x, span)),
               abs(flat - (2 * a * b + c1) / (a * a + b * b + c1)), images.ssim(x, y, span) - 1)
