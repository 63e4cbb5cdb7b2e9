"""Orders of convergence on a mixture whose score is exact; stochastic samplers by exact moments; device arrays."""
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from strict import to_device, to_host

from refimpl import ops
from refimpl.equations import cold, continuous, diffusion, mixture, multistep, samplers, sde, solvers
from refimpl.facts.solvers import all_rules, stochastic_rules

MIXTURE = mixture.mixture([0.4, 0.6], [[-1.0, 0.5], [1.0, -0.5]], [[0.6, 0.5], [0.4, 0.7]])
FIRST, LAST = 3.0, 0.3  # noise/signal at both ends
START = np.array([[1.2, -0.4], [-0.3, 0.9]]) * (1 + FIRST**2) ** 0.5


def eps(x, signal, noise):
    return -noise * mixture.mixture_score(x, MIXTURE, signal, noise)


@pytest.fixture(scope="module")
def truth():
    """x/signal at any log(noise/signal), by an eighth-order solver."""
    def velocity(u, y):
        return (np.exp(u) * eps(y.reshape(2, 2), 1.0, np.exp(u))).ravel()

    nodes = {}

    def at(u):
        u = round(float(u), 15)
        if u not in nodes:
            span = (np.log(FIRST), u)
            nodes[u] = solve_ivp(velocity, span, START.ravel(), "DOP853", rtol=1e-13, atol=1e-14).y[:, -1] \
                if u < span[0] else START.ravel()
        return nodes[u].reshape(2, 2)

    return at


def times(n):
    """n + 1 evenly spaced times of the variance-preserving path."""
    return np.linspace(*continuous.vp_time(-2 * np.log([FIRST, LAST])), n + 1)


def levels_between(path, n):
    """n + 1 levels, evenly spaced in each path's own time."""
    if path == "vp":
        return np.stack(continuous.vp_level(times(n)), axis=1)
    if path == "flow":
        t = np.linspace(FIRST / (1 + FIRST), LAST / (1 + LAST), n + 1)
        return np.stack([1 - t, t], axis=1)
    return np.stack([np.ones(n + 1), np.linspace(FIRST, LAST, n + 1)], axis=1)


def order(rule, path, starts, truth, ns=(80, 160)):
    """log2 of the ratio of the errors at n and 2n steps; the first `starts` steps are replaced by exact values."""
    errors = []
    for n in ns:
        levels = levels_between(path, n)
        exact = [truth(np.log(noise / signal)) * signal for signal, noise in levels[:starts + 1]]
        x = samplers.sample(eps, exact[0], levels, rule, ops=ops,
                            after=lambda i, x, _, exact=exact: exact[i + 1] if i < starts else None)
        errors.append(np.sqrt(np.mean((x / levels[-1, 0] - truth(np.log(LAST))) ** 2)))
    return np.log2(errors[0] / errors[1])


CASES = {
    "euler": (solvers.euler(), "vp", 0, 1), "ddim": (samplers.ddim(), "vp", 0, 1),
    "euler ve": (solvers.euler(), "ve", 0, 1), "euler flow": (solvers.euler(), "flow", 0, 1),
    "heun": (solvers.heun(), "vp", 0, 2), "heun ve": (solvers.heun(), "ve", 0, 2),
    "heun flow": (solvers.flow_heun(), "flow", 0, 2),
    "plms": (multistep.plms(), "vp", 3, 2), "plms, own start": (multistep.plms(), "vp", 0, 2),
    "2S": (solvers.dpm_solver_pp_2s("vp"), "vp", 0, 2), "2S ve": (solvers.dpm_solver_pp_2s("ve"), "ve", 0, 2),
    **{f"dpm-solver-{k} {p}": (solvers.dpm_solver(k, p), p, 0, k) for k in (1, 2, 3) for p in ("vp", "ve", "flow")},
    **{f"dpm-solver++{k}M {kind}": (multistep.dpm_solver_pp(k, kind, lower_last=False), "vp", k - 1, k)
       for k in (1, 2, 3) for kind in ("midpoint", "heun")},
    "dpm-solver++3M halved": (multistep.dpm_solver_pp(3, lower_last=False, halved=True), "vp", 2, 2),
    **{f"unipc-{k} {kind}": (multistep.unipc(k, kind, lower_last=False), "vp", k, k + 1)
       for k in (1, 2, 3) for kind in ("bh1", "bh2")},
    **{f"unip-{k} {kind}": (multistep.unipc(k, kind, corrector=False, lower_last=False), "vp", k, k)
       for k in (1, 2, 3) for kind in ("bh1", "bh2")},
}


@pytest.mark.parametrize("name", CASES)
def test_order(name, truth):
    rule, path, starts, expected = CASES[name]
    assert order(rule, path, starts, truth) == pytest.approx(expected, abs=0.1)


def unipc_as_printed(x, levels, order, kind, lower_last):
    """Algorithms 1-3 of UniPC step by step, predictor and corrector apart, as its authors' code has them."""
    lam, outputs, before, used = [solvers.half_log_snr(level) for level in levels], [], None, 0

    def b_and_rho(i, p):
        h = lam[i + 1] - lam[i]
        r = np.array([(lam[i - k] - lam[i]) / h for k in range(1, p)] + [1.0])
        phi, factorial, rows, b = np.expm1(-h) / -h - 1, 1, [], []
        big = {"bh1": -h, "bh2": np.expm1(-h)}[kind]
        for k in range(1, p + 1):
            rows.append(r ** (k - 1))
            b.append(phi * factorial / big)
            factorial *= k + 1
            phi = phi / -h - 1 / factorial
        return big, r, np.array(rows), np.array(b)

    def start(i, x):
        return levels[i + 1][1] / levels[i][1] * x - levels[i + 1][0] * np.expm1(lam[i] - lam[i + 1]) * outputs[i]

    for i in range(len(levels) - 1):
        signal, noise = levels[i]
        outputs.append((x - noise * eps(x, signal, noise)) / signal)
        if before is not None:
            big, r, rows, b = b_and_rho(i - 1, used)
            rho = np.linalg.solve(rows, b) if used > 1 else [0.5]
            slopes = sum(rho[k - 1] * (outputs[i - 1 - k] - outputs[i - 1]) / r[k - 1] for k in range(1, used))
            x = start(i - 1, before) - signal * big * (slopes + rho[-1] * (outputs[i] - outputs[i - 1]))
        used = min(order, i + 1, len(levels) - 1 - i if lower_last else order)
        big, r, rows, b = b_and_rho(i, used)
        rho = [0.5] if used == 2 else np.linalg.solve(rows[:-1, :-1], b[:-1])
        slopes = sum(rho[k - 1] * (outputs[i - k] - outputs[i]) / r[k - 1] for k in range(1, used))
        before, x = x, start(i, x) - levels[i + 1][0] * big * slopes
    return x


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("kind", ["bh1", "bh2"])
@pytest.mark.parametrize("lower_last", [False, True])
def test_unipc_in_one_stage_is_the_printed_algorithm(order, kind, lower_last):
    levels = levels_between("vp", 6)
    rule = multistep.unipc(order, kind, lower_last=lower_last)
    ours = samplers.sample(eps, START * levels[0, 0], levels, rule, ops=ops)
    printed = unipc_as_printed(START * levels[0, 0], levels, order, kind, lower_last)
    np.testing.assert_allclose(ours, printed, rtol=1e-11)


def test_orders_fall_towards_the_end():
    """lower_last: one term at the last step, two before it; from its start a multistep rule gains one a step."""
    levels = levels_between("vp", 6)
    for rule, expected in ((multistep.dpm_solver_pp(3), [0, 1, 2, 2, 1, 0]),
                           (multistep.dpm_solver_pp(2), [0, 1, 1, 1, 1, 0]),
                           (multistep.dpm_solver_pp(3, lower_last=False), [0, 1, 2, 2, 2, 2]),
                           (multistep.plms(), [0, 1, 2, 3, 3, 3])):
        assert [len(rule(levels, i)[0].earlier) for i in range(6)] == expected


def moments(rule, levels, mean, variance):
    """Mean and variance of what a sampler makes of data N(mean, variance), exactly: with them the sampler is affine.

    Sample 0 starts at 0 and hears no noise, sample 1 starts at 1, and sample 1 + k hears a one as its k-th noise alone.
    """
    def predict(x, signal, noise):
        return mean + signal * variance / (signal**2 * variance + noise**2) * (x - signal * mean)

    draws = 0

    def count(draw):
        nonlocal draws
        draws = max(draws, draw)
        return np.zeros((1, 1))

    samplers.sample(predict, np.zeros((1, 1)), levels, rule, ops=ops, prediction="x0", noise=count)
    x = np.zeros((2 + draws, 1))
    x[1] = 1
    units = np.eye(2 + draws)
    y = samplers.sample(predict, x, levels, rule, ops=ops, prediction="x0", noise=lambda draw: units[:, 1 + draw, None])
    start_mean, start_variance = levels[0, 0] * mean, levels[0, 0] ** 2 * variance + levels[0, 1] ** 2
    slope, noises = y[1] - y[0], y[2:] - y[0]
    return (y[0] + slope * start_mean).item(), (slope**2 * start_variance + np.sum(noises**2)).item()


STOCHASTIC = {
    "ddpm": (samplers.ddpm(), 1, 200), "ddpm large": (samplers.ddpm("large"), 1, 200),
    "ddim eta .6": (samplers.ddim(0.6), 1, 200), "euler ancestral": (solvers.ancestral(solvers.euler()), 1, 200),
    "reverse diffusion": (sde.reverse_diffusion(), 1, 200),
    "euler-maruyama": (None, 1, 200), "euler-maruyama by SNR": (sde.euler_maruyama(None, "vp"), 1, 200),
    "sde-dpm-solver++1": (multistep.dpm_solver_pp(1, eta=1.0), 1, 200),
    "sde-dpm-solver++2M": (multistep.dpm_solver_pp(2, eta=1.0, lower_last=False), 2, 200),
    "sde-dpm-solver++2M heun": (multistep.dpm_solver_pp(2, "heun", eta=1.0, lower_last=False), 2, 200),
    "sde-dpm-solver++3M": (multistep.dpm_solver_pp(3, eta=1.0, lower_last=False), 2, 800),  # 3, but for its start
    "sde-2S": (solvers.dpm_solver_pp_2s("vp", eta=1.0), 1, 200), "churn": (solvers.heun(churn=4.0), 2, 200),
}


@pytest.mark.parametrize("name", STOCHASTIC)
def test_exact_moments(name):
    """The mean is the data's, and the variance's error falls with the order of the sampler in the number of steps."""
    rule, expected, most = STOCHASTIC[name]
    mean, variance, errors = 0.7, 0.5, []
    for n in (most // 2, most):
        levels = levels_between("vp", n)
        signal, noise = levels[-1]
        found_mean, found_variance = moments(rule or sde.euler_maruyama(times(n), "vp"), levels, mean, variance)
        errors.append((abs(found_mean - signal * mean), abs(found_variance - signal**2 * variance - noise**2)))
    assert errors[1][0] < 1e-2 and errors[1][1] < {1: 1e-2, 2: 2e-4}[expected]
    assert np.log2(errors[0][1] / errors[1][1]) == pytest.approx(expected, abs=0.15)


@pytest.mark.parametrize("snr", [0.1, 0.3])
def test_correctors_correct(snr):
    """Langevin steps after each ancestral step bring the variance nearer to the truth; more of them, nearer still."""
    levels = levels_between("vp", 20)
    truth = levels[-1, 0] ** 2 * 0.5 + levels[-1, 1] ** 2
    errors = [abs(moments(rule, levels, 0.7, 0.5)[1] - truth) for rule in (
        samplers.ddpm(), *(sde.predictor_corrector(samplers.ddpm(), snr, n, by_norms=False) for n in (1, 5)))]
    assert errors[0] > 1.05 * errors[1] > 1.05**2 * errors[2]


@pytest.mark.parametrize("levels", [[[1.0, 2.0], [1.0, 1.5]], [[0.6, 0.8], [0.8, 0.6]]])
def test_corrector_sized_by_norms(levels):
    """The paper's step size from the norms of noise and score, by hand; alpha is 1 where the signal is constant."""
    levels, x, z = np.array(levels), np.array([[3.0, 4.0], [6.0, 8.0]]), np.array([[0.3, 0.4], [0.0, 1.0]])
    y = samplers.sample(lambda x, signal, noise: x, x, levels, sde.predictor_corrector(samplers.ddim(), 0.2), ops=ops,
                        noise=lambda draw: z)
    moved = samplers.sample(lambda x, signal, noise: x, x, levels, samplers.ddim(), ops=ops)
    score = -moved / levels[1, 1]
    alpha = (levels[0, 0] / levels[1, 0]) ** 2
    eta = 2 * alpha * (0.2 * np.mean([0.5, 1.0]) / np.mean(np.linalg.norm(score, axis=1))) ** 2
    np.testing.assert_allclose(y, moved + eta * score + (2 * eta) ** 0.5 * z, rtol=1e-12)


def test_annealed_langevin_ends_at_its_own_variance():
    """Enough steps at the last level leave 1/(1 - a/4) times its variance; the final denoising gives x0_hat of that."""
    levels = np.array([[1.0, 1.0], [1.0, 0.4], [1.0, 0.0]])
    variance, step = 0.84, 0.2  # with noise .4 the noised variance is 1, so the score is -x
    found = moments(sde.langevin(step, 400), levels, 0.0, variance)[1]
    assert found == pytest.approx(variance**2 / (1 - step / 4), rel=1e-9)


def test_cold_diffusion_with_blur_is_not_exact():
    """Where the degradation is no straight line in s, algorithm 2 only comes nearer than algorithm 1."""
    a = np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.25, 0.25, 0.5]])
    x0 = np.array([[1.0, -0.5, 0.3]])

    def degrade(x, s):
        return x @ np.linalg.matrix_power(a, s)

    def restore(x, s):
        return 1.1 * x @ np.linalg.matrix_power(np.linalg.inv(a), s)

    errors = []
    for improved in (True, False):
        x = samplers.sample(cold.cold_prediction(restore, degrade, improved), degrade(x0, 3), cold.cold_levels(3),
                            cold.cold(improved), ops=ops, prediction="x0")
        errors.append(np.max(abs(x - x0)))
    assert 1e-3 < errors[0] < 0.6 * errors[1]


def test_inversion_approaches_the_image(truth):
    """DDIM there and back on the mixture: the error falls with the number of steps."""
    errors = []
    for n in (50, 100):
        levels = levels_between("vp", n)
        x = truth(np.log(LAST)) * levels[-1, 0]
        up = samplers.sample(eps, x, levels[::-1], solvers.ddim_inversion(), ops=ops)
        errors.append(np.max(abs(samplers.sample(eps, up, levels, samplers.ddim(), ops=ops) - x)))
    assert errors[1] < 0.6 * errors[0]


@pytest.mark.parametrize("path", ["vp", "ve", "flow"])
def test_every_sampler_runs_where_formulas_degenerate(path):
    """The first level without signal where the path has one, the last without noise, one step and many: never NaN."""
    point = np.array([0.3, -1.0])
    for steps in (1, 2, 3, 5):
        if path == "flow":
            levels = continuous.flow_levels(steps)
        elif path == "ve":
            levels = continuous.exponential_levels(steps)
        else:
            levels = continuous.with_end(*continuous.shifted_cosine_level(1 - np.arange(steps) / steps, 64))
            levels[0] = (0.0, 1.0)
        x = np.random.default_rng(0).standard_normal((4, 2)) * levels[0, 1]
        for name, rule in (all_rules(path) | stochastic_rules(path)).items():
            if levels[0, 0] == 0 and name.strip() in ("plms", "edm", "euler-maruyama"):
                continue  # these say that they cannot: test_solvers_inputs.py
            y = samplers.sample(lambda x, *level: diffusion.convert(point + 0 * x, x, *level, "x0", "v"), x, levels,
                                rule, ops=ops, prediction="v", key=1)
            np.testing.assert_allclose(y, np.broadcast_to(point, y.shape), atol=1e-9, err_msg=f"{name}, {steps} steps")


def test_samplers_on_device_arrays():
    """Every sampler on an array that refuses conversion to NumPy gives what it gives on the host."""
    levels = continuous.karras_levels(5, 0.1, 3.0)
    x = np.random.default_rng(0).standard_normal((2, 3)) * 3
    for name, rule in (all_rules("ve") | stochastic_rules("ve")).items():
        def run(x, rule=rule):
            return samplers.sample(lambda x, signal, noise: (x / (1 + noise), 0 * x), x, levels, rule, ops=ops, key=1,
                                   guidance=1.5, clip=(-2.0, 2.0), rederive_eps=True)

        np.testing.assert_array_equal(to_host(run(to_device(x))), run(x), err_msg=name)
