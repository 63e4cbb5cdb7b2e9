"""What is timed: calls of each operation at sizes that networks have, as cases of its contract."""
from typing import NamedTuple

import numpy as np

from kernels.cases import Case


class Workload(NamedTuple):
    """A call: operation, a label that says its sizes, the case, and how much noise it forms inside."""

    operation: str
    label: str
    case: Case
    noise: int = 0


CONVOLUTIONS = {  # samples, channels in and out, side, kernel, stride: the U-Nets of digits, CIFAR-10 and larger
    "small": [(128, 32, 32, 8, 3, 1), (128, 64, 64, 4, 3, 1)],
    "medium": [(8, 64, 64, 32, 3, 1), (8, 128, 128, 16, 3, 1), (8, 64, 128, 32, 1, 1), (8, 64, 64, 32, 3, 2)],
    "large": [(8, 128, 128, 64, 3, 1), (8, 256, 256, 32, 3, 1)]}
ATTENTIONS = {"small": [(8, 8, 64, 32)], "medium": [(8, 4, 256, 64), (2, 8, 1024, 64)], "large": [(1, 8, 4096, 64)]}
NORMS = {"small": [(128, 32, 8, 8)], "medium": [(8, 64, 32, 8)], "large": [(8, 128, 64, 32)]}
BATCH_NORMS = {  # samples, channels, side: DCGAN's on the digits, and in the middle of its 64 x 64 networks
    "small": [(128, 64, 4)], "medium": [(64, 128, 16)], "large": [(128, 128, 32)]}
STYLED = {  # samples, channels in and out, side: StyleGAN2's
    "small": [(32, 32, 32, 8)], "medium": [(8, 64, 64, 32)], "large": [(4, 256, 256, 32)]}
STEPS = {"small": [(64, 1, 8)], "medium": [(8, 3, 256)], "large": [(32, 3, 512)]}
PRESETS = tuple(CONVOLUTIONS)


def last(*shape, rng):
    """Normal float32 values shaped (N, C, H, W), channels last in memory, as they travel inside a network."""
    n, c, h, w = shape
    return np.moveaxis(rng.standard_normal((n, h, w, c), dtype=np.float32), -1, 1)


def workloads(operations, preset):
    """All workloads of the operations in a preset."""
    rng = np.random.default_rng(0)
    plain = lambda *shape: rng.standard_normal(shape, dtype=np.float32)
    case = lambda args, **options: Case(args, options, "normal", "float32")
    for n, i, o, side, k, stride in CONVOLUTIONS[preset]:
        label, out = f"{n}x{i}x{side}x{side} to {o}, {k}x{k}/{stride}", -(-side // stride)
        x, w, b = last(n, i, side, side, rng=rng), plain(o, i, k, k) / np.float32(k * i**0.5), plain(o)
        how = {"stride": stride, "padding": k // 2, "dilation": 1, "groups": 1}
        yield Workload("conv2d", label, case((x, w, b), **how))
        dy = last(n, o, out, out, rng=rng)
        yield Workload("conv2d_vjp", label, case((dy, x, w, b), **how))
        if stride == 2:
            transposed = how | {"output_padding": 1}
            yield Workload("conv_transpose2d", f"{n}x{o}x{out}x{out} to {i}, {k}x{k}/{stride}",
                           case((dy, w, None), **transposed))
    for n, h, length, d in ATTENTIONS[preset]:
        q, k, v, dy = (plain(n, h, length, d) for _ in range(4))
        options = {"causal": False, "scale": None}
        yield Workload("attention", f"{n}x{h}x{length}x{d}", case((q, k, v, None), **options))
        yield Workload("attention_vjp", f"{n}x{h}x{length}x{d}", case((dy, q, k, v, None), **options))
    for n, c, side, groups in NORMS[preset]:
        x, gamma, beta = last(n, c, side, side, rng=rng), plain(c), plain(c)
        options = {"stabiliser": 1e-5, "silu": True}
        label = f"{n}x{c}x{side}x{side}, {groups} groups, SiLU"
        yield Workload("group_norm", label, case((x, gamma, beta, groups), **options))
        dy = last(n, c, side, side, rng=rng)
        yield Workload("group_norm_vjp", label, case((dy, x, gamma, beta, groups), **options))
    for n, c, side in BATCH_NORMS[preset]:
        x, dy = (last(n, c, side, side, rng=rng) for _ in range(2))
        args, options = (plain(c), plain(c), plain(c), plain(c) ** 2, True), {"momentum": 0.1, "stabiliser": 1e-5}
        yield Workload("batch_norm", f"{n}x{c}x{side}x{side}, training", case((x, *args), **options))
        yield Workload("batch_norm_vjp", f"{n}x{c}x{side}x{side}, training", case((dy, x, *args), **options))
    for n, i, o, side in STYLED[preset]:
        x, dy, style = last(n, i, side, side, rng=rng), last(n, o, side, side, rng=rng), 1 + plain(n, i) / np.float32(4)
        w, options = plain(o, i, 3, 3), {"padding": 1, "demodulate": True, "stabiliser": 1e-8}
        label = f"{n}x{i}x{side}x{side} to {o}, 3x3, demodulated"
        yield Workload("modulated_conv2d", label, case((x, w, style), **options))
        yield Workload("modulated_conv2d_vjp", label, case((dy, x, w, style), **options))
    for n, c, side in STEPS[preset]:
        (x, e, z), label = (plain(n, c, side, side) for _ in range(3)), f"{n}x{c}x{side}x{side}"
        inside = (7, np.arange(n), 3)
        levels = np.full(n, 0.8), np.full(n, 0.6)
        yield Workload("q_sample", f"{label}, noise inside", case((x, *levels, inside)), x.size)
        step = {"a": 1.25, "b": -0.75, "lo": -1.0, "hi": 1.0, "c_x": 0.3, "c_0": 0.7, "c_e": 0.0, "history": (),
                "c_h": ()}
        for what, how, drawn in (("no noise", {"z": None, "sigma": 0.0}, 0), ("noise given", {"z": z, "sigma": 0.1}, 0),
                                 ("noise inside", {"z": inside, "sigma": 0.1}, x.size)):
            yield Workload("sampler_step", f"{label}, {what}", case((x, e, None, 1.0), **step, **how), drawn)


def selected(operations, preset):
    """The workloads of the operations named, or of all. Raises: ValueError for a name that has none."""
    found = list(workloads(operations, preset))
    known = sorted({w.operation for w in found})
    for name in operations:
        if name not in known:
            raise ValueError(f"no benchmark of {name!r} in preset {preset}; there are {', '.join(known)}")
    return [w for w in found if not operations or w.operation in operations]
