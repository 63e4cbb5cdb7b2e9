"""The spacings of a path's levels; samplers and levels that do not fit are refused in one clear sentence."""
import numpy as np
import pytest
from conftest import refuses

from refimpl.equations import catalogue, cold, continuous, multistep, samplers, sde, solvers

LEVELS = np.stack(continuous.vp_level(np.linspace(0.6, 0.1, 5)), axis=1)


def test_spacings_of_a_path():
    """Even in t, in its root, or in log-SNR, between the same ends, the clean image last."""
    time = continuous.path_levels(continuous.vp_level, 5, 0.01)
    quadratic = continuous.path_levels(continuous.vp_level, 5, 0.01, "quadratic")
    log_snr = continuous.path_levels(continuous.vp_level, 5, 0.01, "log_snr", "vp")
    for levels in (time, quadratic, log_snr):
        np.testing.assert_allclose(levels[[0, -2]], np.stack(continuous.vp_level(np.array([1.0, 0.01])), axis=1))
        np.testing.assert_array_equal(levels[-1], [1.0, 0.0])
    ell = 2 * np.log(time[:-1, 0] / time[:-1, 1])
    np.testing.assert_allclose(np.diff(continuous.vp_time(ell), 2), 0, atol=1e-12)
    ell = 2 * np.log(quadratic[:-1, 0] / quadratic[:-1, 1])
    np.testing.assert_allclose(np.diff(np.sqrt(continuous.vp_time(ell)), 2), 0, atol=1e-12)
    np.testing.assert_allclose(np.diff(np.log(log_snr[:-1, 0] / log_snr[:-1, 1]), 2), 0, atol=1e-12)


@pytest.mark.parametrize("call, words", [
    (lambda: catalogue.sampler("dpm"), "must be one of ddpm, ddim"),
    (lambda: catalogue.sampler("ddim", order=2), "'ddim' has no option 'order', only eta"),
    (lambda: catalogue.sampler("plms", eta=1.0), "'plms' has no option 'eta'$"),
    (lambda: catalogue.sampler("flow-heun"), "straight path's ODE, not that of 'vp'"),
    (lambda: catalogue.sampler("ddim", "edm"), "path must be"),
    (lambda: solvers.dpm_solver(4), "orders 1, 2 and 3"),
    (lambda: multistep.dpm_solver_pp(0), "orders 1, 2 and 3"),
    (lambda: multistep.dpm_solver_pp(2, "trapezoid"), "midpoint"),
    (lambda: multistep.dpm_solver_pp(2, eta=1.5), r"eta must be in \[0, 1\]"),
    (lambda: solvers.dpm_solver_pp_2s(eta=-0.1), r"eta must be in \[0, 1\]"),
    (lambda: multistep.unipc(4), "orders 1, 2 and 3"),
    (lambda: multistep.unipc(2, "bh3"), "bh1"),
    (lambda: solvers.heun(churn=-1.0), "negative"),
    (lambda: solvers.ancestral(solvers.euler(), 2.0), r"eta must be in \[0, 1\]"),
    (lambda: solvers.dpm_solver(2, "ve")(LEVELS, 0), "not on the path 've'"),
    (lambda: solvers.dpm_solver(2)(1.001 * LEVELS, 0), "not on the path 'vp'"),
    (lambda: solvers.dpm_solver(2, "curved")(LEVELS, 0), "path must be"),
    (lambda: solvers.flow_heun()(LEVELS, 0), "not on the path 'flow'"),
    (lambda: solvers.ddim_inversion()(LEVELS, 0), "noisier"),
    (lambda: multistep.plms()(continuous.flow_levels(4), 0), "divides by the signal"),
    (lambda: solvers.heun(churn=1.0)(continuous.flow_levels(4), 0), "signal 0"),
    (lambda: samplers.ddpm()(LEVELS[::-1], 0), "cleaner"),
    (lambda: sde.langevin(0.0, 1), "step > 0"),
    (lambda: sde.langevin(0.1, 1)(LEVELS, 0), "signal at 1"),
    (lambda: sde.predictor_corrector(samplers.ddpm(), -1.0), "snr > 0"),
    (lambda: sde.euler_maruyama([1.0, 1.0], "vp"), "decrease"),
    (lambda: sde.euler_maruyama(None, "vp")(np.array([[0.0, 1.0], [0.6, 0.8]]), 0), "signal is 0"),
    (lambda: sde.euler_maruyama(None, "flow"), "a path 'flow' has none"),
    (lambda: catalogue.sampler("langevin", "vp"), "keeps the signal at 1"),
    (lambda: catalogue.sampler("ddim", eta="much"), "eta must be a number, got 'much'"),
    (lambda: catalogue.sampler("dpm++-2m", lower_last=1), "lower_last must be of type bool, got 1"),
    (lambda: sde.euler_maruyama([1.0, 0.5], "vp")(LEVELS, 0), "as many times"),
    (lambda: sde.drift_and_diffusion(0.5, "flow"), "kind must be"),
    (lambda: cold.cold_levels(0), "at least 1"),
    (lambda: continuous.vp_level(1.5), r"\[0, 1\]"),
    (lambda: continuous.karras_levels(0), "steps"),
    (lambda: continuous.karras_levels(5, 1.0, 0.5), "sigma_min < sigma_max"),
    (lambda: continuous.exponential_levels(5, 0.0), "sigma_min < sigma_max"),
    (lambda: continuous.flow_levels(5, -1.0), "shift"),
    (lambda: continuous.path_levels(continuous.vp_level, 5, 0.0), r"\(0, 1\)"),
    (lambda: continuous.path_levels(continuous.vp_level, 5, 0.1, "even"), "spacing"),
    (lambda: continuous.level_of_log_snr(0.0, "edm"), "path must be"),
    (lambda: continuous.with_end([1.0, 1.0], [1.0, 2.0]), "cleaner"),
    (lambda: continuous.shifted_cosine_level(0.5, 0), "positive"),
])
def test_one_clear_sentence(call, words):
    refuses(call, words)
