"""Every sampler by name: what the command line offers, and what the tests and charts run through."""
from typing import NamedTuple

from ..ops._check import require
from . import multistep, samplers, sde, solvers


class Sampler(NamedTuple):
    """make(path, **options) -> rule; order of convergence (weak if it adds noise, 0 where steps are no discretisation of
    one equation); if it adds noise; its options."""

    make: object
    order: int
    noise: bool = False
    options: tuple = ()


OPTIONS = {  # kinds of the options' values
    "eta": (int, float), "churn": (int, float), "snr": (int, float), "step": (int, float), "inner": int,
    "variance": str, "kind": str, "lower_last": bool, "halved": bool, "by_norms": bool}


def _multistep(order, **defaults):
    return lambda path, **options: multistep.dpm_solver_pp(order, **defaults | options)


SAMPLERS = {
    "ddpm": Sampler(lambda path, variance="small": samplers.ddpm(variance), 1, True, ("variance",)),
    "ddim": Sampler(lambda path, eta=0.0: samplers.ddim(eta), 1, False, ("eta",)),
    "euler": Sampler(lambda path: solvers.euler(), 1),
    "euler-ancestral": Sampler(lambda path, eta=1.0: solvers.ancestral(solvers.euler(), eta), 1, True, ("eta",)),
    "heun": Sampler(lambda path: solvers.heun(), 2),
    "edm": Sampler(lambda path, churn=2.0: solvers.heun(churn, within=True), 2, True, ("churn",)),
    "flow-heun": Sampler(lambda path: solvers.flow_heun(), 2),
    "dpm-solver-1": Sampler(lambda path: solvers.dpm_solver(1, path), 1),
    "dpm-solver-2": Sampler(lambda path: solvers.dpm_solver(2, path), 2),
    "dpm-solver-3": Sampler(lambda path: solvers.dpm_solver(3, path), 3),
    "dpm++-2s": Sampler(lambda path: solvers.dpm_solver_pp_2s(path), 2),
    "dpm++-2s-sde": Sampler(lambda path, eta=1.0: solvers.dpm_solver_pp_2s(path, eta), 1, True, ("eta",)),
    "dpm++-1": Sampler(lambda path: multistep.dpm_solver_pp(1), 1),
    "dpm++-2m": Sampler(_multistep(2), 2, False, ("kind", "lower_last")),
    "dpm++-3m": Sampler(_multistep(3), 3, False, ("lower_last", "halved")),
    "dpm++-1-sde": Sampler(lambda path, eta=1.0: multistep.dpm_solver_pp(1, eta=eta), 1, True, ("eta",)),
    "dpm++-2m-sde": Sampler(_multistep(2, eta=1.0), 2, True, ("kind", "eta", "lower_last")),
    "dpm++-3m-sde": Sampler(_multistep(3, eta=1.0), 2, True, ("eta", "lower_last", "halved")),
    "plms": Sampler(lambda path: multistep.plms(), 2),
    "unipc-1": Sampler(lambda path, **options: multistep.unipc(1, **options), 2, False, ("kind",)),
    "unipc-2": Sampler(lambda path, **options: multistep.unipc(2, **options), 3, False, ("kind", "lower_last")),
    "unipc-3": Sampler(lambda path, **options: multistep.unipc(3, **options), 4, False, ("kind", "lower_last")),
    "reverse-diffusion": Sampler(lambda path: sde.reverse_diffusion(), 1, True),
    "predictor-corrector": Sampler(
        lambda path, snr=0.16, inner=1, by_norms=False: sde.predictor_corrector(
            sde.reverse_diffusion(), snr, inner, by_norms), 1, True, ("snr", "inner", "by_norms")),
    "euler-maruyama": Sampler(lambda path: sde.euler_maruyama(None, path), 1, True),
    "langevin": Sampler(lambda path, step=2e-5, inner=100: sde.langevin(step, inner), 0, True, ("step", "inner")),
}


def sampler(name, path="vp", **options):
    r"""The rule of a sampler by its name, for levels on a path.

    $$\mathrm{name} \mapsto \mathrm{rule}(\mathrm{levels}, i)$$

    Shapes: name a key of SAMPLERS; path 'vp', 've', 'subvp' or 'flow'; options, those of that sampler: eta, variance,
    kind, churn, snr, inner, by_norms, step, lower_last, halved. Returns a rule for the sampler loop.
    Raises: ValueError for a name, path or option that there is not, and for a sampler that needs another path.
    Source: the papers of the rules.
    """
    require(name in SAMPLERS, f"sampler must be one of {', '.join(SAMPLERS)}, got {name!r}")
    require(path in ("vp", "ve", "subvp", "flow"), f"path must be 'vp', 've', 'subvp' or 'flow', got {path!r}")
    require(name != "flow-heun" or path == "flow", f"flow-heun solves the straight path's ODE, not that of '{path}'")
    require(name != "langevin" or path == "ve", f"langevin keeps the signal at 1, and on the path '{path}' it changes")
    known = SAMPLERS[name].options
    for option, value in options.items():
        require(option in known, f"sampler '{name}' has no option '{option}'"
                                 + (f", only {', '.join(known)}" if known else ""))
        kind = OPTIONS[option]
        require(isinstance(value, kind) and (kind is bool or not isinstance(value, bool)),
                f"{option} must be {'a number' if kind == (int, float) else f'of type {kind.__name__}'}, got {value!r}")
    return SAMPLERS[name].make(path, **options)
