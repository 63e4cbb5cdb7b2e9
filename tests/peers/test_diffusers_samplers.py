"""Whole trajectories beside diffusers' schedulers that name levels by t; RePaint's too."""
import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from beside_diffusers import (  # noqa: E402
    NAMES,
    SHAPE,
    START,
    agree,
    array,
    ours,
    peer_noise,
    predict,
    table,
    tensor,
    theirs,
)

from refimpl import ops  # noqa: E402
from refimpl.equations import (  # noqa: E402
    editing,
    guidance,
    multistep,
    samplers,
    schedules,
    solvers,
)

BETAS = {"linear": dict(beta_schedule="linear"), "scaled": dict(beta_schedule="scaled_linear", beta_start=0.00085,
         beta_end=0.012), "cosine": dict(beta_schedule="squaredcos_cap_v2")}


def levels_at(scheduler, steps, spacing, offset=0):
    levels = schedules.levels(table(scheduler), schedules.timesteps(1000, steps, spacing, offset))
    assert list(scheduler.timesteps + 1) == list(schedules.timesteps(1000, steps, spacing, offset))
    return levels


@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize("prediction", NAMES)
@pytest.mark.parametrize("variance", ["small", "large"])
def test_ddpm(betas, prediction, variance):
    scheduler = diffusers.DDPMScheduler(**BETAS[betas], prediction_type=NAMES[prediction], clip_sample=False,
                                        variance_type=f"fixed_{variance}")
    scheduler.set_timesteps(50)
    levels = levels_at(scheduler, 50, "leading")
    agree(theirs(scheduler, START, predict(prediction), lambda k: levels[k]),
          ours(levels, samplers.ddpm(variance), START, prediction))


def test_ddpm_learned_range():
    scheduler = diffusers.DDPMScheduler(clip_sample=False, variance_type="learned_range")
    scheduler.set_timesteps(50)
    levels = levels_at(scheduler, 50, "leading")

    def network(x, signal, noise):
        e = predict("eps")(x.reshape(START.shape), signal, noise).reshape(SHAPE)
        return np.concatenate([e, np.tanh(e)], axis=1)

    states, noise = [], peer_noise()
    samplers.sample(network, array(tensor(START)).reshape(SHAPE), levels, samplers.ddpm("learned"), ops=ops,
                    noise=lambda draw: noise(draw).reshape(SHAPE),
                    after=lambda i, x, _: states.append(x.reshape(START.shape)))
    agree(theirs(scheduler, START, network, lambda k: levels[k]), states)


@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize("prediction", NAMES)
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim(betas, prediction, eta):
    scheduler = diffusers.DDIMScheduler(**BETAS[betas], prediction_type=NAMES[prediction], clip_sample=False)
    scheduler.set_timesteps(40)
    levels = levels_at(scheduler, 40, "leading")
    agree(theirs(scheduler, START, predict(prediction), lambda k: levels[k], eta=eta),
          ours(levels, samplers.ddim(eta), START, prediction))


@pytest.mark.parametrize("rederive", [False, True])
def test_ddim_clipped(rederive):
    """With clip_sample the peer keeps the raw eps, unless use_clipped_model_output re-derives it."""
    scheduler = diffusers.DDIMScheduler(clip_sample=True, clip_sample_range=0.5)
    scheduler.set_timesteps(40)
    levels = levels_at(scheduler, 40, "leading")
    agree(theirs(scheduler, START, predict("eps"), lambda k: levels[k], use_clipped_model_output=rederive),
          ours(levels, samplers.ddim(), START, clip=(-0.5, 0.5), rederive_eps=rederive))


def test_ddim_thresholded():
    """Thresholding in the peer bounds s by sample_max_value, 1 unless it is set: then it is a plain clip to [-1, 1]."""
    scheduler = diffusers.DDIMScheduler(clip_sample=False, thresholding=True, dynamic_thresholding_ratio=0.7,
                                        sample_max_value=100.0)
    scheduler.set_timesteps(40)
    levels = levels_at(scheduler, 40, "leading")
    network = guidance.thresholded(predict("eps"), 0.7)
    agree(theirs(scheduler, START, predict("eps"), lambda k: levels[k], use_clipped_model_output=True),
          ours(levels, samplers.ddim(), START, "x0", network=network))


@pytest.mark.parametrize("options, steps, spacing, offset", [
    (dict(timestep_spacing="trailing"), 25, "trailing", 0), (dict(timestep_spacing="linspace"), 37, "linspace", 0),
    (dict(steps_offset=1), 20, "leading", 1)])
def test_ddim_spacings(options, steps, spacing, offset):
    """The peer steps from t to t - 1000 // steps, whatever the next timestep is; below 0 that is alpha_bar = 1."""
    scheduler = diffusers.DDIMScheduler(clip_sample=False, **options)
    scheduler.set_timesteps(steps)
    levels, ab = levels_at(scheduler, steps, spacing, offset), table(scheduler).alpha_bar
    t = schedules.timesteps(1000, steps, spacing, offset)

    def rule(levels, i):
        before = ab[max(t[i] - 1000 // steps, 0)]
        return samplers.ddim()(np.array([levels[i], [before**0.5, (1 - before) ** 0.5]]), 0)

    agree(theirs(scheduler, START, predict("eps"), lambda k: levels[k]), ours(levels, rule, START))


def test_ddim_last_alpha():
    """set_alpha_to_one=False, Stable Diffusion's setting, ends at the level t = 1 instead of the clean image."""
    scheduler = diffusers.DDIMScheduler(clip_sample=False, set_alpha_to_one=False)
    scheduler.set_timesteps(20)
    levels = levels_at(scheduler, 20, "leading")
    levels[-1] = schedules.level_at(table(scheduler), 1)
    rule = samplers.ddim()

    def last_is_itself(levels, i):  # the leading rule visits t = 1, so its last step goes nowhere
        return rule(levels, i) if i + 2 < len(levels) else (samplers.Stage(tuple(levels[i]), c_x=1.0),)

    agree(theirs(scheduler, START, predict("eps"), lambda k: levels[k]), ours(levels, last_is_itself, START))


def test_zero_terminal_snr():
    scheduler = diffusers.DDIMScheduler(clip_sample=False, rescale_betas_zero_snr=True, timestep_spacing="trailing",
                                        prediction_type="v_prediction")
    scheduler.set_timesteps(20)
    mine = schedules.zero_terminal_snr(schedules.linear())
    np.testing.assert_allclose(scheduler.alphas_cumprod.numpy(), mine.alpha_bar[1:], rtol=2e-4, atol=1e-6)
    levels = levels_at(scheduler, 20, "trailing")
    agree(theirs(scheduler, START, predict("v"), lambda k: levels[k]), ours(levels, samplers.ddim(), START, "v"))


def test_ddim_inversion():
    """The peer evaluates at the level ahead, as ours does; at t - 1000 // steps < 0 it stands at alpha_bar = 1."""
    scheduler = diffusers.DDIMInverseScheduler(clip_sample=False, steps_offset=0)
    scheduler.set_timesteps(20)
    s, t = table(scheduler), scheduler.timesteps.numpy() + 1
    levels = np.stack(schedules.level_at(s, np.concatenate([[0], t])), axis=1)
    x = 0.5 * START
    agree(theirs(scheduler, x, predict("eps"), lambda k: levels[k + 1]), ours(levels, solvers.ddim_inversion(), x))


@pytest.mark.parametrize("betas", BETAS)
def test_plms(betas):
    """The peer lists the second timestep twice: its second evaluation redoes the first step with an average."""
    scheduler = diffusers.PNDMScheduler(**BETAS[betas], skip_prk_steps=True, set_alpha_to_one=True)
    scheduler.set_timesteps(40)
    t = scheduler.timesteps.numpy() + 1
    assert t[1] == t[2]
    s = table(scheduler)
    levels = schedules.levels(s, np.delete(t, 1))
    at = [schedules.level_at(s, int(k)) for k in t]
    states = theirs(scheduler, START, predict("eps"), lambda k: at[k])
    agree(states[1:], ours(levels, multistep.plms(), START))


def test_repaint():
    """One noise serves the known and the unknown part of a step (the paper draws two); jumps start at the clean image
    (the authors' one level above it); and with fewer steps than T the way up takes its betas from too late."""
    T = 20
    scheduler = diffusers.RePaintScheduler(num_train_timesteps=T, beta_start=0.01, beta_end=0.3, eta=1.0,
                                           clip_sample=False)
    scheduler.set_timesteps(T, jump_length=3, jump_n_sample=2)
    s, t = table(scheduler), np.concatenate([[T], scheduler.timesteps.numpy()])
    levels = np.stack(schedules.level_at(s, t), axis=1)
    known, mask = 0.3 * START, np.arange(12) % 2 == 0
    generator, x, states = torch.Generator().manual_seed(0), tensor(START), []
    for i in range(len(t) - 1):  # as the peer's pipeline does it
        if t[i + 1] < t[i]:
            e = predict("eps")(array(x), *levels[i])
            x = scheduler.step(tensor(e), int(t[i]) - 1, x, tensor(known), tensor(np.broadcast_to(mask, (3, 12))),
                               generator).prev_sample
        else:
            x = scheduler.undo_step(x, int(t[i]), generator)
        states.append(array(x))
    noise, drawn = peer_noise(), []

    def remembered(draw):
        drawn.append(noise(draw))
        return drawn[-1]

    def keep(i, x, x0_hat):
        if t[i + 1] > t[i]:
            return x
        z = remembered(None) if t[i + 1] == 0 else drawn[-1]  # the peer draws even where it adds none
        return np.where(mask, levels[i + 1, 0] * array(tensor(known)) + levels[i + 1, 1] * z, x)

    mine = []
    samplers.sample(predict("eps"), array(tensor(START)), levels, editing.resampling(samplers.ddim(1.0)), ops=ops,
                    noise=remembered, after=lambda i, x, x0_hat: mine.append(keep(i, x, x0_hat)) or mine[-1])
    agree(states, mine)
