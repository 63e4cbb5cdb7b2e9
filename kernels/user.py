"""A user's own function under the verdict: found by name, run in a process of its own, stopped when it hangs."""
import importlib
import multiprocessing
import os
import signal
import sys

from .contract import Kernel, contracts
from .frameworks import FRAMEWORKS, accepted, adapt, guess
from .judge import Misuse, in_short
from .report import entry
from .script import script
from .verify import Failure, verify


def find(name):
    """The function called module:function; Misuse says what is missing."""
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise Misuse(f"a function is named module:function, got {name!r}")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and module.startswith(error.name):
            raise Misuse(f"there is no module {module!r} here (looked in {os.getcwd()} and the Python path)") from None
        raise Misuse(f"{module} cannot be imported: {error}") from None
    except (Exception, SystemExit) as error:
        raise Misuse(f"{module} cannot be imported: {type(error).__name__}: {in_short(error)}") from None
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise Misuse(f"module {module} has no {attribute!r}")
        found = getattr(found, part)
    if not callable(found):
        raise Misuse(f"{name} is not a function but {type(found).__name__}")
    return found


def as_kernel(operation, function, algorithm="direct", dtype="float32", arithmetic=None, arrays=None, device=None,
              raw=False, where=None, name="user"):
    """A function in the operation's own form (or raw: out first) as a Kernel that the verdict can judge.

    arrays: the framework of its arrays, else the one its module has imported. arithmetic: the type it sums in, float32
    for half precision unless it says otherwise. where: pins of the contract's cases.
    """
    every = contracts()
    if operation not in every:
        raise Misuse(f"operation must be one of {', '.join(every)}, got {operation!r}")
    contract = every[operation]
    if algorithm not in contract.bounds:
        raise Misuse(f"{operation}: algorithm must be one of {', '.join(contract.bounds)}, got {algorithm!r}")
    arrays = arrays or (guess(function) if hasattr(function, "__module__") else "numpy")
    if arrays not in FRAMEWORKS:
        raise Misuse(f"arrays must be one of {', '.join(FRAMEWORKS)}, got {arrays!r}")
    if arrays != "numpy":
        try:
            importlib.import_module(arrays)
        except ImportError as error:
            raise Misuse(f"{arrays} arrays cannot be made here: {error}") from None
    known = accepted(contract.cases)
    base = accepted(contracts()[operation.removesuffix("_vjp")].cases)
    for pin in where or {}:
        if not (known(pin) and base(pin)) or pin in ("d", "family"):
            raise Misuse(f"{operation}: its cases have no {pin!r} to pin")
    if arithmetic is None:
        arithmetic = "float64" if dtype == "float64" else "float32"
    adapted = adapt(function, operation, arrays, dtype, device, raw)
    return Kernel(operation, name, algorithm, adapted, arithmetic, dtype, raw=raw, where=where or {}), arrays


def load_lines(name, arrays, dtype):
    """What a failing case's script needs: import lines, and functions to and from the user's arrays."""
    module, _, attribute = name.partition(":")
    load = f"from {module} import {attribute.split('.')[0]}\n\nkernel = {attribute}"
    if arrays == "numpy":
        return load, "", ""
    if arrays == "torch":
        floats = ".to(torch.bfloat16 if a.dtype.kind == 'f' else None)" if dtype == "bfloat16" else ""
        cast = f"(lambda a: torch.from_numpy(a.copy()){floats})"
        return "import torch\n" + load, cast, "(lambda a: a.float().numpy())" if dtype == "bfloat16" else "np.asarray"
    floats = "jax.numpy.bfloat16 if a.dtype.kind == 'f' else None"
    maker = ("cupy.asarray" if arrays == "cupy" else f"(lambda a: jax.numpy.asarray(a, {floats}))" if dtype == "bfloat16"
             else "jax.numpy.asarray")
    return f"import {arrays}\n" + load, maker, "(lambda a: a.get())" if arrays == "cupy" else "np.asarray"


def _work(channel, path, name, operation, options, examples, seed):
    """In the spawned process: judge, telling the parent every case before it runs."""
    sys.path[:] = path
    os.dup2(2, 1)  # what the function prints, from C too, is no part of the report
    sys.stdout = sys.stderr  # and is not lost in a buffer when the process is stopped
    try:
        function = find(name)
        kernel, arrays = as_kernel(operation, function, name=name, **options)
        channel.send(("start", arrays))
        verdict = verify(kernel, examples, seed, lambda case, layout: channel.send(("case", case, layout)))
        load, convert, back = load_lines(name, arrays, kernel.data)
        channel.send(("end", entry(verdict, load, convert, back)))
    except Misuse as error:
        channel.send(("misuse", str(error)))


def judge_apart(name, operation, options, examples, seed, limit):
    """The entry of a user's function, judged in a spawned process that is stopped when a case takes over `limit` s.

    A function that never returns, or takes its process down, fails on the case it was given.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(theirs, list(sys.path), name, operation, options, examples, seed),
                              daemon=True)
    process.start()
    theirs.close()
    cases, last, arrays = 0, None, "numpy"
    try:
        while True:
            patience = max(limit, 60) if last is None else limit
            if not ours.poll(patience):
                return stopped(name, operation, options, examples, seed, cases, last, arrays,
                               f"{'was not imported' if last is None else 'did not return'} within {patience:g} s")
            kind, *content = ours.recv()
            if kind == "end":
                return content[0]
            if kind == "misuse":
                raise Misuse(content[0])
            if kind == "start":
                arrays = content[0]
            else:
                cases, last = cases + 1, content
    except EOFError:
        process.join(5)
        code = process.exitcode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended its process with status {code}"
        return stopped(name, operation, options, examples, seed, cases, last, arrays, how)
    finally:
        if process.is_alive():
            process.kill()
        process.join(5)


def stopped(name, operation, options, examples, seed, cases, last, arrays, how):
    """The entry of a function that did not come back."""
    contract, dtype = contracts()[operation], options.get("dtype", "float32")
    failure, text = {"kind": "no return", "says": f"{name} {how}", "family": "no", "layout": "plain", "argument": None,
                     "guesses": [], "elements": []}, ""
    if last is not None:
        case, layout = last
        failure |= {"family": case.family, "layout": layout}
        load, convert, back = load_lines(name, arrays, dtype)
        text = script(contract, Failure(case, None, layout, None, case), load, convert, back, options.get("raw", False))
    arithmetic = options.get("arithmetic") or ("float64" if dtype == "float64" else "float32")
    return {"operation": operation, "backend": name, "algorithm": options.get("algorithm", "direct"), "dtype": dtype,
            "arithmetic": arithmetic, "where": options.get("where") or {}, "seed": seed, "examples": examples,
            "cases": cases, "refused": [], "worst_share": None, "inputs": None, "seconds": None, "verdict": "fails",
            "failure": failure | {"script": text}}
