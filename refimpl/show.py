"""`python -m refimpl show NAME`: a function's formula, code, gradient, source and facts, on one screen."""
import difflib
import importlib
import inspect
import io
import pkgutil
import re
import tokenize
import warnings

import numpy as np
from rich.console import Console
from rich.padding import Padding
from rich.syntax import Syntax
from rich.text import Text

from .facts import Draw, load

ROOMS = ("ops", "equations", "nets", "systems")
DRAWS = 20
NAMES = "log|ln|exp|sin|cos|tan|tanh|cosh|sinh|arctan|max|min|sup|inf|arg|argmax|argmin|det|Pr|sign|lim"
SYMBOLS = {r"\|": "‖", r"\lVert": "‖", r"\rVert": "‖", r"\Vert": "‖", r"\lvert": "|", r"\rvert": "|", r"\vert": "|",
           r"\mid": "|", r"\lfloor": "⌊", r"\rfloor": "⌋", r"\lceil": "⌈", r"\rceil": "⌉", r"\tfrac": r"\\frac",
           r"\dfrac": r"\\frac", r"\;": r"\\ ", r"\:": r"\\ ", r"\ldots": "…", r"\dots": "…", r"\top": "ᵀ",
           r"\lbrace": "❴", r"\rbrace": "❵", r"\{": "❴", r"\}": "❵", r"\%": "%", r"\odot": "⊙", r"\star": "⋆",
           r"\leq": "≤", r"\le": "≤", r"\geq": "≥", r"\ge": "≥", r"\neq": "≠", r"\ne": "≠",
           r"\langle": "⟨", r"\rangle": "⟩", r"\to": "→", r"\bmod": r"\\ mod\\ ", r"\underbrace": "",
           r"\overbrace": "", r"\gets": "←", r"\perp": "⊥"}


def functions():
    """All public functions of the reference: {name: function, and module.name: function}."""
    found = {}
    for room in ROOMS:
        package = importlib.import_module(f"refimpl.{room}")
        for info in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            module = importlib.import_module(info.name)
            for name, f in vars(module).items():
                if inspect.isfunction(f) and f.__module__ == info.name and not name.startswith("_"):
                    found.setdefault(name, f)
                    found[f"{info.name.rsplit('.', 1)[1]}.{name}"] = f
    return found


def find(name):
    """The function of that name. Raises LookupError with the nearest names when there is none."""
    known = functions()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or [n for n in known if name in n][:3]
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise LookupError(f"no function {name!r} in the reference{hint}")
    return known[name]


def plain(formula):
    """LaTeX as plain Unicode text, one line of text for each line of the formula."""
    import flatlatex

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the parser's own deprecations are not the reader's business
        convert = flatlatex.converter()
    # what only lays a formula out is removed; names of functions and words become their letters
    formula = re.sub(r"\\(?:left|right|[bB]igg?[lr]?)(?![a-zA-Z])\s*\.?", "", formula)
    formula = re.sub(r"\\(?:begin|end)\{[a-z]+\*?\}(?:\{[a-z]+\})?|&|\\!|\\(?:display|text)style", " ", formula)
    formula = re.sub(r"\\(?:math(?:rm|bf|it|sf|cal)|operatorname|text|boldsymbol)\*?\s*\{([^{}]*)\}",
                     lambda m: " {" + m[1].replace(" ", "\\ ") + "}", formula)
    formula = re.sub(rf"\\({NAMES})(?![a-zA-Z])", r" \1\\ ", formula)
    for macro, text in SYMBOLS.items():
        formula = re.sub(re.escape(macro) + ("(?![a-zA-Z])" if macro[-1].isalpha() else ""), " " + text, formula)
    lines = [" ".join(part.split()) for part in re.split(r"\\\\(?:\[[^\]]*\])?", formula)]
    text = [re.sub(r" +", " ", convert.convert(line)).strip() for line in lines if line.strip()]
    text = [re.sub(rf"\b({NAMES}) \(", r"\1(", line).replace("❴", "{").replace("❵", "}") for line in text]
    return [re.sub(r"\s*(:=|[=≈≤≥≠∼←→])\s*", r" \1 ", line).strip() for line in text]


def parts(f):
    """The docstring taken apart: (first sentence, formulas, remaining lines) and the code without it."""
    doc = inspect.getdoc(f) or ""
    formulas = re.findall(r"\$\$(.*?)\$\$", doc, re.DOTALL)
    rest = re.sub(r"\$\$.*?\$\$", "", doc, flags=re.DOTALL).strip().split("\n")
    return rest[0], formulas, [line for line in rest[1:] if line.strip()], code(f)


def code(f):
    """Source of a function without its docstring."""
    source = inspect.getsource(f)
    strings = [t for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type == tokenize.STRING]
    if f.__doc__ and strings:
        lines, (top, bottom) = source.split("\n"), (strings[0].start[0], strings[0].end[0])
        return "\n".join(lines[: top - 1] + lines[bottom:]).rstrip()
    return source.rstrip()


def gradient(f):
    """The function that follows f in its file and is its gradient: f_vjp or f_grad, or None."""
    names = vars(inspect.getmodule(f))
    return next((names[f.__name__ + end] for end in ("_vjp", "_grad") if f.__name__ + end in names), None)


def measured(f):
    """[(fact, largest error over a few draws)] for the facts that name f."""
    return [(k, float(np.max([k.measure(Draw(seed)) for seed in range(DRAWS)]))) for k in load() if f in k.functions]


def show(name, console=None):
    """Print a function of the reference. Returns its facts with the errors measured now."""
    f = find(name)
    console = console or Console(width=100, highlight=False)
    title, formulas, notes, body = parts(f)
    file = inspect.getsourcefile(f).replace("\\", "/").rsplit("/refimpl/", 1)[1]
    console.print(f"[bold]{f.__name__}[/bold]  refimpl/{file}:{inspect.getsourcelines(f)[1]}")
    console.print(title, markup=False)
    for formula in formulas:
        for line in plain(formula):
            console.print(Padding(Text(line, style="bold cyan"), (0, 0, 0, 4)))
    for line in notes:
        console.print(line, markup=False)
    console.print(Syntax(body, "python", background_color="default", word_wrap=True))
    if g := gradient(f):
        console.print(f"[bold]gradient[/bold]  {g.__doc__.strip().splitlines()[0] if g.__doc__ else ''}")
        console.print(Syntax(code(g), "python", background_color="default", word_wrap=True))
    rows = measured(f)
    console.print("[bold]facts[/bold]  " + (f"largest error over {DRAWS} draws, measured now" if rows else "none yet"))
    for k, error in rows:
        verdict = "holds" if error <= k.tolerance else "[bold red]FAILS[/bold red]"
        console.print(f"  {k.id:6} {verdict}  {error:.1e} <= {k.tolerance:.0e}  ", end="")
        console.print(k.statement, markup=False)
    return rows


def add_parser(subparsers):
    """The `show` command."""
    parser = subparsers.add_parser("show", help="formula, code, gradient, source and facts of one function",
                                   description="Show one function of the reference on one screen: its formula, "
                                   "code and gradient, where it comes from, and the facts that test it with the error "
                                   "measured now.")
    parser.add_argument("name", nargs="?", help="e.g. posterior, silu, group_norm; without a name: list them all")
    parser.set_defaults(run=run)


def run(args):
    """Entry of the command: 0 when every fact holds."""
    if args.name is None:
        names = sorted(n for n in functions() if "." in n and not n.endswith("_vjp"))
        Console(width=100).print("  ".join(names))
        return 0
    return 0 if all(error <= k.tolerance for k, error in show(args.name)) else 1
