"""The known-answer vectors: read back from their files, every function still gives what they say."""
import importlib
import inspect
import json
import math
import pkgutil

import numpy as np
import pytest

from refimpl import equations, ops, vectors
from refimpl.equations import catalogue, samplers

FILES = sorted(vectors.FOLDER.rglob("*.json"))
# These take or return functions: whole runs of the samplers (samplers.sample.*.json) stand for those that are rules.
FUNCTIONS = {"ops._special", "ops._window", "ops.tangent", "equations.blending", "equations.catalogue",
             "equations.cold", "equations.editing", "equations.guidance", "equations.likelihood", "equations.multistep",
             "equations.penalty", "equations.samplers", "equations.sde", "equations.solvers"}
ALONE = {"equations.continuous.path_levels", "equations.metrics.redrawn", "equations.metrics.interval",
         "equations.mixture.sample_mixture",
         "equations.objectives.sliced_score_matching", "equations.translation.restyle",
         "equations.variants.denoising_gan_pairs"}


def tuples():
    """Named tuples by name, from everywhere that arguments are made of."""
    found = {}
    for module in pkgutil.iter_modules(equations.__path__):
        for value in vars(importlib.import_module(f"refimpl.equations.{module.name}")).values():
            if isinstance(value, type) and issubclass(value, tuple) and hasattr(value, "_fields"):
                found[value.__name__] = value
    return found


TUPLES = tuples()


def value(plain):
    """A Python value from a plain one."""
    if isinstance(plain, dict) and plain.keys() == {"shape", "dtype", "values"}:
        values = [complex(*v) for v in plain["values"]] if "complex" in plain["dtype"] else [
            float(v) if isinstance(v, str) else v for v in plain["values"]]
        return np.array(values, dtype=plain["dtype"]).reshape(plain["shape"])
    if isinstance(plain, dict) and "fields" in plain:
        return TUPLES[plain["type"]](**{k: value(v) for k, v in plain["fields"].items()})
    if isinstance(plain, dict):
        return {k: value(v) for k, v in plain["items"].items()}
    if isinstance(plain, list):
        return tuple(value(v) for v in plain)
    if isinstance(plain, str) and plain.lstrip("-").isdigit():
        return int(plain)
    return float(plain) if plain in ("inf", "-inf", "nan") else plain


def agree(got, want, scale=None):
    """Integers, text and shapes exactly; floats to a few roundings of the largest in their array."""
    if isinstance(want, dict) and want.keys() == {"shape", "dtype", "values"}:
        got, want = np.asarray(got), value(want)
        assert got.shape == want.shape
        if want.dtype.kind in "iub":
            np.testing.assert_array_equal(got, want)
        else:
            size = np.max(np.abs(want), where=np.isfinite(want), initial=0)
            np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-11 * size)
    elif isinstance(want, dict):
        for k, v in (want.get("fields") or want.get("items")).items():
            agree(getattr(got, k) if "fields" in want else got[k], v)
    elif isinstance(want, list):
        assert len(got) == len(want)
        for g, v in zip(got, want):
            agree(g, v)
    elif isinstance(want, float) or want in ("inf", "-inf", "nan"):
        assert math.isclose(got, float(want), rel_tol=1e-10, abs_tol=1e-12) or (
            math.isnan(float(want)) and math.isnan(got))
    else:
        assert got == value(want)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_function_gives_what_its_vector_says(path):
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["format"] == vectors.FORMAT and document["version"] == vectors.VERSION and document["cases"]
    module, _, name = document["function"].rpartition(".")
    f = getattr(importlib.import_module(module), name)
    for case in document["cases"]:
        arguments = {k: value(v) for k, v in case["arguments"].items()}
        if path.stem.startswith("samplers.sample."):
            rule = catalogue.sampler(arguments.pop("sampler"), arguments.pop("path"))
            agree(samplers.sample(vectors.predict, arguments["x"], arguments["levels"], rule, ops=ops,
                                  key=arguments["key"]), case["result"])
        else:
            agree(called(f, arguments), case["result"])
    if document["vjp"]:
        vjp = getattr(importlib.import_module(module), name + "_vjp")
        for case in document["vjp"]:
            agree(called(vjp, {k: value(v) for k, v in case["arguments"].items()}), case["result"])


def called(f, arguments):
    """f with arguments by name, those of *arguments and **options in their places."""
    args, kwargs = [], {}
    for name, parameter in inspect.signature(f).parameters.items():
        if name not in arguments:
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            args += arguments[name]
        elif parameter.kind is parameter.VAR_KEYWORD:
            kwargs |= arguments[name]
        elif parameter.kind is parameter.KEYWORD_ONLY:
            kwargs[name] = arguments[name]
        elif len(args) == list(inspect.signature(f).parameters).index(name):
            args.append(arguments[name])
        else:
            kwargs[name] = arguments[name]
    return f(*args, **kwargs)


def test_every_operation_and_equation_has_a_vector():
    """A new function gets its file by python -m refimpl.vectors, from its pair or from the facts that call it."""
    have = {p.relative_to(vectors.FOLDER).as_posix() for p in FILES}
    missing = [".".join(t) for t in vectors.targets() if f"{t[0]}/{t[1]}.{t[2]}.json" not in have]
    unexplained = [m for m in missing if m.rpartition(".")[0] not in FUNCTIONS and m not in ALONE]
    assert not unexplained, "run python -m refimpl.vectors"


def test_files_are_small_and_hold_every_digit():
    assert all(p.stat().st_size < 60_000 for p in FILES)
    for number in (0.1, 1 / 3, 2.0**-1074, 1.7976931348623157e308):
        assert float(json.loads(json.dumps(vectors.plain(number)))) == number
    assert vectors.plain(2**64 - 1) == str(2**64 - 1) and vectors.plain(float("-inf")) == "-inf"


def test_an_error_in_the_twelfth_digit_is_found():
    want = vectors.plain(np.array([1.0, 2.0]))
    agree(np.array([1.0, 2.0 + 1e-12]), want)
    with pytest.raises(AssertionError):
        agree(np.array([1.0, 2.0 + 1e-9]), want)
    with pytest.raises(AssertionError):
        agree(np.array([1, 3]), vectors.plain(np.array([1, 2])))


def test_help_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        vectors.main(["--help"])
    assert stop.value.code == 0 and "where the files go" in capsys.readouterr().out and not list(tmp_path.iterdir())
