"""Whole trajectories beside diffusers' schedulers that keep noise/signal ratios, or times of an SDE or a flow."""
import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from beside_diffusers import (  # noqa: E402
    MIXTURE,
    NAMES,
    START,
    agree,
    array,
    ours,
    peer_noise,
    predict,
    rows,
    tensor,
    theirs,
)

from refimpl import ops  # noqa: E402
from refimpl.equations import (  # noqa: E402
    continuous,
    mixture,
    multistep,
    samplers,
    sde,
    solvers,
)

KINDS = [(order, kind) for order in (1, 2, 3) for kind in ("midpoint", "heun")]


@pytest.mark.parametrize("order, kind", KINDS)
@pytest.mark.parametrize("steps", [6, 30])
@pytest.mark.parametrize("prediction", NAMES)
def test_dpm_solver_pp_multistep(order, kind, steps, prediction):
    """Lower orders at the end only below 15 steps, but always one to noise 0; 3M halves the second difference."""
    scheduler = diffusers.DPMSolverMultistepScheduler(solver_order=order, solver_type=kind, final_sigmas_type="zero",
                                                      prediction_type=NAMES[prediction])
    scheduler.set_timesteps(steps)
    levels = rows(scheduler.sigmas)
    rule = multistep.dpm_solver_pp(order, kind, lower_last=steps < 15, halved=True)
    agree(theirs(scheduler, START, predict(prediction), lambda k: levels[k]), ours(levels, rule, START, prediction))


@pytest.mark.parametrize("order, kind", KINDS)
def test_sde_dpm_solver_pp_multistep(order, kind):
    """At order 3 the peer has -1/2 where the integral has +1/2: its second difference enters with a weight near -1."""
    scheduler = diffusers.DPMSolverMultistepScheduler(solver_order=order, solver_type=kind, final_sigmas_type="zero",
                                                      algorithm_type="sde-dpmsolver++")
    scheduler.set_timesteps(30)
    levels = rows(scheduler.sigmas)
    right = multistep.dpm_solver_pp(order, kind, 1.0, lower_last=False, halved=True)

    def rule(levels, i):
        (stage,) = right(levels, i)
        if len(stage.earlier) == 2:
            lam = [solvers.half_log_snr(level) for level in levels[i - 2:i + 2]]
            h = lam[3] - lam[2]
            r0, r1 = (lam[2] - lam[1]) / h, (lam[1] - lam[0]) / h
            d2 = np.array([1 / r0, -1 / r0 - 1 / r1, 1 / r1]) / (r0 + r1)
            c = stage.c_0 - levels[i + 1][0] * d2[0]
            earlier = {("x0", j): stage.earlier["x0", j] - levels[i + 1][0] * d2[j] for j in (1, 2)}
            return (stage._replace(c_0=c, earlier=earlier),)
        return (stage,)

    x = theirs(scheduler, START, predict("eps"), lambda k: levels[k])
    agree(x, ours(levels, rule, START))
    if order == 3:
        with pytest.raises(AssertionError):
            agree(x, ours(levels, right, START))


@pytest.mark.parametrize("algorithm, order", [("dpmsolver", 1), ("dpmsolver", 2), ("dpmsolver", 3),
                                              ("dpmsolver++", 1), ("dpmsolver++", 2)])
def test_dpm_solver_singlestep(algorithm, order):
    """The peer evaluates at neighbouring entries of its table, here the solver's own fractions of a step in lambda.

    Its second inner point at order 3 has the midpoint form, sigma (e^h - 1), where the paper has the integral of h.
    """
    scheduler = diffusers.DPMSolverSinglestepScheduler(solver_order=order, algorithm_type=algorithm,
                                                       final_sigmas_type="sigma_min", lower_order_final=False)
    scheduler.set_timesteps(12)
    sigmas = np.exp(np.linspace(np.log(20.0), np.log(0.05), 13))
    scheduler.sigmas = torch.tensor(sigmas.astype(np.float32))
    all_levels = rows(sigmas)
    rule = paper = solvers.dpm_solver(order) if algorithm == "dpmsolver" or order == 1 else solvers.dpm_solver_pp_2s()
    if order == 3:
        def rule(levels, i):
            first, second, third = paper(levels, i)
            noise, h = third.level[1], 2 / 3 * (solvers.half_log_snr(levels[i + 1]) - solvers.half_log_snr(levels[i]))
            return first, second._replace(c_eps=-noise * np.expm1(h), earlier={("x", 1): second.earlier["x", 1]}), third
    agree(theirs(scheduler, START, predict("eps"), lambda k: all_levels[k], every=order),
          ours(rows(sigmas[::order]), rule, START))


@pytest.mark.parametrize("kind", ["bh1", "bh2"])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("steps", [6, 30])
def test_unipc(kind, order, steps):
    """The peer lowers the order towards the end at any number of steps; its final sample is the last prediction."""
    scheduler = diffusers.UniPCMultistepScheduler(solver_order=order, solver_type=kind)
    scheduler.set_timesteps(steps)
    levels = rows(scheduler.sigmas)
    agree(theirs(scheduler, START, predict("eps"), lambda k: levels[k]),
          ours(levels, multistep.unipc(order, kind), START))


def scaled(network):
    """A network for levels (1, sigma) from one for signal^2 + noise^2 = 1: k-diffusion's scaling of the input."""
    def at(x, signal, noise):
        total = np.hypot(signal, noise)
        return network(x / total, signal / total, noise / total)

    return at


def test_euler():
    scheduler = diffusers.EulerDiscreteScheduler()
    scheduler.set_timesteps(30)
    levels, at, x = rows(scheduler.sigmas, "ve"), rows(scheduler.sigmas), START * float(scheduler.sigmas[0])
    agree(theirs(scheduler, x, predict("eps"), lambda k: at[k]),
          ours(levels, solvers.euler(), x, network=scaled(predict("eps"))))


def test_euler_churn():
    """The peer raises the noise of x but shows the network the label, and the scaling, of the level before."""
    scheduler = diffusers.EulerDiscreteScheduler()
    scheduler.set_timesteps(30)
    levels, x = rows(scheduler.sigmas, "ve"), START * float(scheduler.sigmas[0])
    at, network = rows(scheduler.sigmas), scaled(predict("eps"))
    seen = []

    def before(x, signal, noise):  # asked at x with its noise raised, it answers for x as it was
        return seen.pop()

    churned = solvers.heun(churn=10.0)

    def rule(levels, i):
        raise_noise, step, *_ = churned(levels, i)
        return (samplers.Stage(None, c_x=1.0, nudge=lambda x, past: seen.append(network(x, *levels[i])) or 0.0),
                raise_noise, step)

    agree(theirs(scheduler, x, predict("eps"), lambda k: at[k], s_churn=10.0), ours(levels, rule, x, network=before))


def test_euler_ancestral():
    """The peer draws noise at its last step too, and scales it by sigma_up = 0."""
    scheduler = diffusers.EulerAncestralDiscreteScheduler()
    scheduler.set_timesteps(30)
    levels, at, x = rows(scheduler.sigmas, "ve"), rows(scheduler.sigmas), START * float(scheduler.sigmas[0])
    agree(theirs(scheduler, x, predict("eps"), lambda k: at[k]),
          ours(levels, solvers.ancestral(solvers.euler()), x, network=scaled(predict("eps"))))


@pytest.mark.parametrize("karras", [False, True])
def test_heun(karras):
    """Its table repeats each inner sigma; with Karras sigmas its labels are fractions: no exact network hears them."""
    scheduler = diffusers.HeunDiscreteScheduler(use_karras_sigmas=karras)
    scheduler.set_timesteps(20)
    sigmas = scheduler.sigmas.numpy()
    levels, x = rows(np.concatenate([sigmas[:1], sigmas[1:-1:2], sigmas[-1:]]), "ve"), START * float(sigmas[0])
    if karras:
        np.testing.assert_allclose(levels[:-1], continuous.karras_levels(20, float(sigmas[-2]), float(sigmas[0]))[:-1],
                                   rtol=1e-5)
    at = rows(sigmas)
    states = theirs(scheduler, x, predict("eps"), lambda k: at[k])
    agree([*states[1::2], states[-1]], ours(levels, solvers.heun(), x, network=scaled(predict("eps"))))


@pytest.mark.parametrize("stochastic", [False, True])
def test_dpm_2(stochastic):
    """k-diffusion's DPM-2 is DPM-Solver-2 on sigmas, and ancestral by the same combination as Euler's; Euler to 0."""
    peer = diffusers.KDPM2AncestralDiscreteScheduler if stochastic else diffusers.KDPM2DiscreteScheduler
    scheduler = peer()
    scheduler.set_timesteps(20)
    sigmas, middles = scheduler.sigmas.numpy(), scheduler.sigmas_interpol.numpy()
    x, levels = START * float(sigmas[0]), rows(np.concatenate([sigmas[:1], sigmas[1:-1:2]]), "ve")
    shift = 1 if stochastic else 0  # the two count their table of middles differently
    at = rows([sigmas[k] if k % 2 == 0 else middles[k - shift] for k in range(len(scheduler.timesteps))])
    states = theirs(scheduler, x, predict("eps"), lambda k: at[k])
    rule = solvers.dpm_solver(2, "ve")
    agree([*states[1::2], states[-1]], ours(levels, solvers.ancestral(rule) if stochastic else rule, x,
                                            network=scaled(predict("eps"))))


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("schedule", ["karras", "exponential"])
def test_edm(order, schedule):
    """EDM's network is F: the peer applies c_in, c_skip and c_out itself."""
    if order == 1:
        scheduler = diffusers.EDMEulerScheduler(sigma_schedule=schedule)
    else:
        scheduler = diffusers.EDMDPMSolverMultistepScheduler(sigma_schedule=schedule)
    scheduler.set_timesteps(20)
    sigmas, data = scheduler.sigmas.numpy().astype(np.float64), 0.5
    mine = {"karras": continuous.karras_levels, "exponential": continuous.exponential_levels}[schedule]
    np.testing.assert_allclose(sigmas, mine(20)[:, 1], rtol=1e-5)
    levels, x = rows(sigmas, "ve"), START * sigmas[0]

    def f(x, _, sigma):  # x is c_in times the noisy image
        noisy = x * (sigma**2 + data**2) ** 0.5
        denoised = mixture.mixture_denoiser(noisy, MIXTURE, 1.0, sigma)
        return (denoised - data**2 / (sigma**2 + data**2) * noisy) / (sigma * data / (sigma**2 + data**2) ** 0.5)

    rule = solvers.euler() if order == 1 else multistep.dpm_solver_pp(2, lower_last=False)
    agree(theirs(scheduler, x, f, lambda k: levels[k]), ours(levels, rule, x, "x0"))


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_euler(shift):
    """Left to itself the peer goes down to t = 1/1000 and only then to 0; its pipelines hand it t = 1 .. 1/steps."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 20, 20))
    levels = np.stack([1 - scheduler.sigmas.numpy().astype(np.float64), scheduler.sigmas.numpy()], axis=1)
    np.testing.assert_allclose(levels, continuous.flow_levels(20, shift), atol=1e-6)
    agree(theirs(scheduler_without_scaling(scheduler), START, predict("flow"), lambda k: levels[k]),
          ours(levels, solvers.euler(), START, "flow"))


def scheduler_without_scaling(scheduler):
    """Flow matching schedulers have no scale_model_input: nothing is scaled."""
    scheduler.scale_model_input = lambda x, t: x
    return scheduler


def test_flow_heun():
    """Its last step, to t = 0, is Euler's, as here."""
    scheduler = scheduler_without_scaling(diffusers.FlowMatchHeunDiscreteScheduler())
    scheduler.set_timesteps(20)
    sigmas = scheduler.sigmas.numpy().astype(np.float64)
    t = np.concatenate([sigmas[:1], sigmas[1:-1:2], sigmas[-1:]])
    levels = np.stack([1 - t, t], axis=1)
    at = np.stack([1 - sigmas, sigmas], axis=1)
    states = theirs(scheduler, START, predict("flow"), lambda k: at[k])
    agree([*states[1::2], states[-1]], ours(levels, solvers.flow_heun(), START, "flow"))


def test_score_sde_ve():
    """The peer's pipeline corrects before it predicts, adds noise at its last step too, and then returns the mean."""
    scheduler, n = diffusers.ScoreSdeVeScheduler(sigma_max=10.0, snr=0.15), 15
    scheduler.set_timesteps(n)
    scheduler.set_sigmas(n)
    t = (scheduler.timesteps * (n - 1)).long().numpy()  # the peer rounds its times down to entries of its table
    all_sigmas = scheduler.discrete_sigmas.numpy().astype(np.float64)
    generator, x, states = torch.Generator().manual_seed(0), tensor(START * 10), []
    noise, y, mine = peer_noise(), array(x), []
    for k in range(n):
        sigma, after = all_sigmas[t[k]], all_sigmas[t[k] - 1] if t[k] > 0 else 0.0
        score = tensor(predict("score")(array(x), 1.0, sigma))
        x = scheduler.step_correct(score, x, generator=generator).prev_sample
        score = tensor(predict("score")(array(x), 1.0, sigma))
        out = scheduler.step_pred(score, scheduler.timesteps[k], x, generator=generator)
        x = out.prev_sample
        states.append(array(x if after > 0 else out.prev_sample_mean))
        for levels, rule in (((2 * sigma, sigma), sde.predictor_corrector(lambda levels, i: (), 0.15)),
                             ((sigma, after), sde.reverse_diffusion())):
            levels = np.stack([np.ones(2), levels], axis=1)
            y = samplers.sample(predict("score"), y, levels, rule, ops=ops, prediction="score", noise=noise)
        mine.append(y)
    agree(states, mine)


def test_score_sde_vp():
    """The peer steps by 1/steps between times (1 - eps)/(steps - 1) apart; what it calls score is eps."""
    from diffusers.schedulers.deprecated.scheduling_sde_vp import ScoreSdeVpScheduler
    scheduler, n = ScoreSdeVpScheduler(), 200
    scheduler.set_timesteps(n)
    times, x = scheduler.timesteps.numpy().astype(np.float64), tensor(START)
    generator = torch.Generator().manual_seed(0)
    levels, states = np.stack(continuous.vp_level(np.append(times, 0.0)), axis=1), []
    for t, level in zip(scheduler.timesteps, levels):
        x, _ = scheduler.step_pred(tensor(predict("eps")(array(x), *level)), x, t, generator=generator)
        states.append(array(x))

    def rule(levels, i):
        maruyama = sde.euler_maruyama([times[i], times[i] - 1 / n, times[i] - 2], "vp")
        return maruyama(np.array([levels[i], levels[i], levels[i]]), 0)

    agree(states, ours(levels, rule, START))
