"""A failing case as a Python script that anyone can run: the inputs, the call, the reference and the difference."""
import base64
import zlib

import numpy as np

from .cases import on_case

LITERAL = 400  # elements; larger arrays are packed

VIEWS = {
    "channels-last view": "np.moveaxis(np.ascontiguousarray(np.moveaxis({0}, 1, -1)), -1, 1)",
    "Fortran-ordered array": "np.asfortranarray({0})",
    "strided view": "np.repeat(np.repeat({0}, 2, 0), 2, -1)[::2, ..., ::2]",
    "reversed view": "np.flip(np.flip({0}).copy())",
    "misaligned view": "np.append({0}.dtype.type(0), {0})[1:].reshape({0}.shape)",
    "broadcast view": "np.broadcast_to({0}[:1], {0}.shape)",
    "read-only array": "np.frombuffer({0}.tobytes(), {0}.dtype).reshape({0}.shape)",
    "far-strided view": "{0}  # its first axis strides over more than 2^31 elements, see kernels/conduct.py",
}


def literal(array):
    """An expression for an array."""
    dtype = f"np.{array.dtype}" if array.dtype != np.bool_ else "bool"
    if array.size > 1 and np.all(array == array.reshape(-1)[0]):
        return f"np.full({array.shape}, {array.reshape(-1)[0].item()!r}, {dtype})"
    places = np.flatnonzero(array)
    if array.size > LITERAL and places.size <= LITERAL // 8:
        values = [v.item() for v in array.reshape(-1)[places]]
        if np.all(np.isfinite(values)):
            return f"np.bincount({places.tolist()}, {values}, {array.size}).astype({dtype}).reshape({array.shape})"
    if array.size <= LITERAL:
        values = np.array2string(array.reshape(-1), separator=", ", threshold=LITERAL + 1, max_line_width=110,
                                 formatter={"float": repr_float}).replace("\n", "\n   ")
        return f"np.array({values}, dtype={dtype}).reshape({array.shape})"
    packed = base64.b85encode(zlib.compress(np.ascontiguousarray(array).tobytes())).decode()
    return (f"np.frombuffer(zlib.decompress(base64.b85decode({packed!r})), dtype={dtype})"
            f".reshape({array.shape}).copy()")


def repr_float(value):
    """A float as Python source, with all its digits."""
    text = repr(value.item()) if value.dtype != np.float32 else str(value)
    return {"nan": "np.nan", "inf": "np.inf", "-inf": "-np.inf"}.get(text, text)


def script(contract, failure, load, convert="", back="", raw=False):
    """The source of a script. load: lines that define `kernel`; convert, back: functions to and from its arrays."""
    case, lines, variables = failure.case, [], {}

    def name_of(array, path):
        name = path.replace("[", "_").replace("]", "")
        variables[name] = array
        return Name(name)

    named = on_case(name_of, case, contract.names)
    for name, array in variables.items():
        lines.append(f"{name} = {literal(array)}")
    if failure.layout == "overlapping":
        lines.append("# all arrays are windows of one buffer: see _overlapping in kernels/judge.py")
    elif failure.layout in VIEWS:
        least = {"channels-last view": 3, "strided view": 2}.get(failure.layout, 1)  # fewer axes are laid out plainly
        for name in variables if failure.only is None else [failure.only.replace("[", "_").replace("]", "")]:
            if variables[name].ndim >= least:
                lines.append(f"{name} = {VIEWS[failure.layout].format(name)}")
    data = {n for n, a in variables.items() if a.dtype.kind in "fb" and n not in contract.host}
    given = [expression(a, data) for a in named.args]
    given += [f"{k}={expression(v, data)}" for k, v in named.options.items()]
    floats = [n for n in variables if n in data and variables[n].dtype.kind == "f"]
    wide = "longdouble" if case.dtype == "float64" else "float64"
    header = "import base64\nimport zlib\n\n" if any("zlib" in line for line in lines) else ""
    text = f"{header}import numpy as np\n\nfrom refimpl import ops\n{load}\n\n" + "\n".join(lines) + f"""


def call(f, to):
    return f({', '.join(given)})


def wide(a):
    return np.asarray(a, np.{wide}) if np.asarray(a).dtype.kind == "f" else a


def outputs(y):
    return [a for a in (y if isinstance(y, tuple) else (y,)) if a is not None]


wanted = outputs(call(ops.{contract.operation}, wide))


def run(fill=np.nan):
"""
    if raw:
        text += f"""    outs = tuple(np.full(y.shape, fill, np.{case.dtype}) for y in wanted)
    call(lambda *args, **options: kernel(outs if len(outs) > 1 else outs[0], *args, **options), lambda a: a)
    return list(outs)
"""
    else:
        text += f"    return [{back or 'np.asarray'}(a) for a in outputs(call(kernel, {convert or 'lambda a: a'}))]\n"
    if failure.layout == "state":
        text += REMEMBERED.format(operation=contract.operation, floats="".join(f"{n}, " for n in floats))
    return text + """

for g, y in zip(run(), wanted):
    print("shape", g.shape, y.shape, "largest difference", np.max(np.abs(g - y), initial=0))
"""


REMEMBERED = """

first = run()  # then other values in the same memory, and the first ones again in outputs that hold something
kept, values = [g.copy() for g in first], [a.copy() for a in ({floats})]
for a in ({floats}):
    a[...] = np.append(a.flat[:a.size > 1], a.flat[::-1][a.size > 1:] / 2).reshape(a.shape)
others = run()
for g, k in zip(first, kept):
    print("the first result has changed by", np.max(np.abs(g - k), initial=0))
for g, y in zip(others, outputs(call(ops.{operation}, wide))):
    print("on other values: largest difference", np.max(np.abs(g - y), initial=0))
for a, v in zip(({floats}), values):
    a[...] = v
for g, y in zip(run(1e4), wanted):
    print("again: largest difference", np.max(np.abs(g - y), initial=0))
"""


class Name(str):
    """A variable's name, to stand for an array in an expression."""


def expression(value, data):
    """An argument as source: arrays of the data go through to(...), those of the host stay."""
    if isinstance(value, Name):
        return f"to({value})" if value in data else str(value)
    if isinstance(value, tuple):
        parts = [expression(v, data) for v in value]
        return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"
    return repr(value)
