"""Games and adversarial losses: closed-form values, optimal discriminators, and eigenvalues of the update rules."""
import numpy as np

from refimpl.equations import adversarial as adv
from refimpl.equations import game
from refimpl.equations.metrics import wasserstein_1d

from . import fact
from .gradients import pair


def _both(d):
    return {"logit_real": 3 * d.array(d.integer(1, 4), d.integer(1, 3)), "logit_fake": 3 * d.array(d.integer(1, 5), 1)}


def _fake(d):
    return {"logit_fake": 3 * d.array(d.integer(1, 5), 1)}


for _f, _vjp in ((adv.value_function, adv.value_function_vjp), (adv.minimax_d, adv.minimax_d_vjp),
                 (adv.hinge_d, adv.hinge_d_vjp), (adv.wasserstein_d, adv.wasserstein_d_vjp)):
    pair(_f, _vjp, "logit_real", "logit_fake")(_both)
for _f, _vjp in ((adv.minimax_g, adv.minimax_g_vjp), (adv.non_saturating_g, adv.non_saturating_g_vjp),
                 (adv.wasserstein_g, adv.wasserstein_g_vjp)):
    pair(_f, _vjp, "logit_fake")(_fake)


@pair(adv.smoothed_d, adv.smoothed_d_vjp, "logit_real", "logit_fake")
def _smoothed_d(d):
    return _both(d) | {"real": d.real(0.6, 0.99), "fake": d.real(0.01, 0.4)}


@pair(adv.lsgan_d, adv.lsgan_d_vjp, "logit_real", "logit_fake")
def _lsgan_d(d):
    return _both(d) | {"a": d.real(-2, -0.1), "b": d.real(0.1, 2)}


@pair(adv.lsgan_g, adv.lsgan_g_vjp, "logit_fake")
def _lsgan_g(d):
    return _fake(d) | {"c": d.real(-2, 2)}


class _Discrete:
    """Distributions p and q on a few points as samples: the losses are means, so a logit per point is repeated."""

    def __init__(self, d):
        k, n = d.integer(2, 6), 60
        self.real, self.fake = (np.concatenate([np.arange(k), np.floor(abs(k / 2 * d.array(n - k))).astype(int) % k])
                                for _ in range(2))
        self.p, self.q = (np.bincount(i, minlength=k) / n for i in (self.real, self.fake))

    def value(self, loss, l, **options):
        return loss(l[self.real], l[self.fake], **options)

    def gradient(self, vjp, l, **options):
        """Derivative in the logit of each point."""
        dreal, dfake = vjp(1.0, l[self.real], l[self.fake], **options)
        return (np.bincount(self.real, dreal, minlength=len(l)) + np.bincount(self.fake, dfake, minlength=len(l)))


@fact("F-A1", adv.value_function, adv.optimal_discriminator, adv.jensen_shannon, tolerance=1e-12)
def value_at_the_optimum(d):
    """V(D*) = -log 4 + 2 JSD with 0 <= JSD <= log 2, and V is stationary at D* = p/(p+q)."""
    g = _Discrete(d)
    best = adv.optimal_discriminator(g.p, g.q)
    l = np.log(best / (1 - best))
    jsd = adv.jensen_shannon(g.p, g.q)
    return max(abs(g.value(adv.value_function, l) + np.log(4) - 2 * jsd), -jsd, jsd - np.log(2),
               np.max(abs(g.gradient(adv.value_function_vjp, l))))


@fact("F-A1", adv.smoothed_d, adv.smoothed_d_vjp, tolerance=1e-12)
def smoothed_optimum(d):
    """With targets a and b the optimum is D* = (a p + b q)/(p + q)."""
    g, real, fake = _Discrete(d), d.real(0.6, 0.99), d.real(0.01, 0.4)
    best = (real * g.p + fake * g.q) / (g.p + g.q)
    return np.max(abs(g.gradient(adv.smoothed_d_vjp, np.log(best / (1 - best)), real=real, fake=fake)))


@fact("F-A2", adv.lsgan_d, adv.lsgan_g, tolerance=1e-12)
def least_squares_is_pearson(d):
    """LSGAN with a=-1, b=1, c=0: D* = (p-q)/(p+q), and the sum of (p+q) D*^2 is that of (q-p)^2/(p+q)."""
    g = _Discrete(d)
    best = (g.p - g.q) / (g.p + g.q)
    chi = 2 * (adv.lsgan_g(best[g.real], 0) + adv.lsgan_g(best[g.fake], 0))
    return max(abs(chi - np.sum((g.q - g.p) ** 2 / (g.p + g.q))),
               np.max(abs(g.gradient(adv.lsgan_d_vjp, best, a=-1, b=1))))


@fact("F-A3", adv.hinge_d, adv.total_variation, tolerance=1e-12)
def hinge_is_total_variation(d):
    """The hinge loss at D = sign(p-q) is 2 (1 - TV), and no other D is below it."""
    g = _Discrete(d)
    best = 2 * (1 - adv.total_variation(g.p, g.q))
    other = g.value(adv.hinge_d, d.real(0.1, 3) * d.array(len(g.p)))
    return max(abs(g.value(adv.hinge_d, np.sign(g.p - g.q)) - best), best - other)


@fact("F-A4", adv.minimax_g_vjp, adv.non_saturating_g_vjp, tolerance=1e-10)
def saturating_and_not(d):
    """The saturating gradient is -s, the other s - 1: of ratio (1-s)/s, the second tending to -1 as l -> -inf."""
    l = np.array([d.real(-30, 30)])
    s = 1 / (1 + np.exp(-l))
    saturating, other = adv.minimax_g_vjp(1.0, l), adv.non_saturating_g_vjp(1.0, l)
    far = adv.non_saturating_g_vjp(1.0, np.array([-700.0]))
    return float(max(abs(saturating + s) / s, abs(other / saturating - np.exp(-l)) * np.exp(l), abs(far + 1))[0])


@fact("F-A5", wasserstein_1d, adv.wasserstein_d, tolerance=1e-12)
def wasserstein_three_ways(d):
    """1-D Wasserstein: sorted differences = integral of |F - G| = the critic with slope sign(G - F)."""
    n = d.integer(1, 30)
    x, y = d.array(n), d.real(0.2, 3) * d.array(n) + d.real(-2, 2)
    nodes = np.sort(np.concatenate([x, y]))
    gap = np.array([(y <= u).mean() - (x <= u).mean() for u in nodes[:-1]])
    f = np.concatenate([[0], np.cumsum(np.sign(gap) * np.diff(nodes))])
    critic = [f[np.searchsorted(nodes, u)] for u in (x, y)]
    w = wasserstein_1d(x, y)
    return max(abs(w - np.sum(abs(gap) * np.diff(nodes))), abs(w + adv.wasserstein_d(*critic)))


@fact("F-A11", *(f for name, f in vars(adv).items() if name.endswith("_d")), tolerance=1e-12)
def duplicated_batch(d):
    """Duplicating the batch leaves every mean loss unchanged and halves the gradient of each sample."""
    real, fake = d.array(d.integer(1, 4)), d.array(d.integer(1, 4))
    options = {"smoothed": {"real": 0.9, "fake": 0.1}, "lsgan": {"a": -1, "b": 1}}
    worst = 0.0
    for kind in ("minimax", "smoothed", "lsgan", "hinge", "wasserstein"):
        loss, vjp, o = getattr(adv, f"{kind}_d"), getattr(adv, f"{kind}_d_vjp"), options.get(kind, {})
        once, twice = (real, fake), (np.tile(real, 2), np.tile(fake, 2))
        halves = [abs(np.tile(g, 2) / 2 - h).max() for g, h in zip(vjp(1.0, *once, **o), vjp(1.0, *twice, **o))]
        worst = max(worst, abs(loss(*once, **o) - loss(*twice, **o)), *halves)
    return worst


@fact("F-B1", game.simultaneous, game.rotation, game.growth, tolerance=1e-10)
def simultaneous_turns_and_grows(d):
    """[[1,-a],[a,1]] = sqrt(1+a^2) R(atan a); after n steps the norm has grown by (1+a^2)^(n/2)."""
    a, n, z0 = d.real(0.01, 0.9), d.integer(1, 30), d.array(2)
    m = game.simultaneous(a)
    z = game.trajectory(m, z0, n)[-1]
    grown = game.growth(a) ** n * np.linalg.norm(z0)
    return max(np.max(abs(m - [[1, -a], [a, 1]])), np.max(abs(m - game.growth(a) * game.rotation(np.arctan(a)))),
               abs(np.linalg.norm(z) / grown - 1), abs(game.spectral_radius(m) - game.growth(a)))


@fact("F-B1", game.alternating, game.conserved, tolerance=1e-10)
def alternating_conserves(d):
    """[[1,-a],[a,1-a^2]] has determinant 1 and keeps x^2 - a x y + y^2; it is one player's move after the other's."""
    a, z0 = d.real(0.01, 1.9), d.array(2)
    m = game.alternating(a)
    x = z0[0] - a * z0[1]
    z = game.trajectory(m, z0, 20)
    q = game.conserved(*z.T, a)
    return max(abs(np.linalg.det(m) - 1), np.max(abs(q / q[0] - 1)), np.max(abs(m @ z0 - [x, z0[1] + a * x])),
               abs(game.spectral_radius(m) - 1))


@fact("F-B1", game.extragradient, game.proximal, game.field_matrix, tolerance=1e-10)
def extragradient_and_proximal(d):
    """Extragradient: |lambda|^2 = 1 - a^2 s^2 + a^4 s^4; proximal: 1/(1 + a^2 s^2), for every singular value s of A."""
    step, matrix = d.real(0.01, 0.9), d.array(2, 2)
    t = step**2 * np.linalg.svd(matrix, compute_uv=False) ** 2
    expected = {game.extragradient: 1 - t + t**2, game.proximal: 1 / (1 + t)}
    return max(np.max(abs(np.sort(abs(np.linalg.eigvals(f(step, matrix))) ** 2) - np.sort(np.repeat(e, 2))) / e.max())
               for f, e in expected.items())


@fact("F-B1", game.averaged, tolerance=1e-10)
def average_of_a_cycle(d):
    """The closed form of the mean of n iterates is their mean, and for alternating descent it shrinks as 1/n."""
    a, n, z0 = d.real(0.1, 1.8), d.integer(1, 40), d.array(2)
    m = game.alternating(a)
    z = game.trajectory(m, z0, n - 1)
    q = 2 * (game.conserved(*z0, a) / (1 - a / 2)) ** 0.5 * np.linalg.norm(np.linalg.inv(np.eye(2) - m), 2)
    mean = game.averaged(m, n) @ z0
    return max(np.max(abs(mean - z.mean(axis=0))), np.linalg.norm(mean) - q / n)


@fact("F-B2", game.optimistic, game.spectral_radius, tolerance=1e-6)
def optimistic_threshold(d):
    """z - 2aF + aF_prev on x*y is stable iff a < 1/sqrt 3, where the spectral radius is 1."""
    edge, below, above = 3**-0.5, d.real(0.05, 0.55), d.real(0.6, 2)
    rho = [game.spectral_radius(game.optimistic(a)) for a in (edge, below, above)]
    return max(abs(rho[0] - 1), rho[1] - 1, 1 - rho[2])


@fact("F-B3", game.dirac_gan_eigenvalues, game.dirac_gan_matrix, game.dirac_gan_field, tolerance=1e-10)
def dirac_gan_spectrum(d):
    """Dirac-GAN + R1: eigenvalues -gamma/2 +- sqrt(gamma^2/4 - f'^2) of the Jacobian of its field, by complex step."""
    slope, gamma = d.real(0.1, 1), d.choice([0.0, d.real(0.01, 3)])
    jacobian = np.stack([np.array(game.dirac_gan_field(*z, slope, gamma)).imag / 1e-30
                         for z in ((1e-30j, 0), (0, 1e-30j))], axis=1)
    m, roots = game.dirac_gan_matrix(slope, gamma), game.dirac_gan_eigenvalues(slope, gamma)
    return max(np.max(abs(m - jacobian)), abs(sum(roots) - np.trace(m)), abs(np.prod(roots) - np.linalg.det(m)))
