"""The GPU's benchmark without one: what it says then, and its way through a run on a stand-in of CuPy."""
import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
from real_gpu import no_gpu

from benchmarks import gpu, run
from benchmarks.__main__ import main
from kernels import budgets, cuda
from kernels.hostcuda import HostCudaError, compiled


@pytest.mark.skipif(no_gpu() is None, reason="there is a GPU")
def test_without_a_gpu_rows_say_so_and_show_what_is_known(tmp_path, capsys):
    path = tmp_path / "a.json"
    assert main(["run", "conv2d", "group_norm", "--backends", "cupy,numba_cuda", "--json", str(path)]) == 0
    printed = capsys.readouterr()
    assert "not measured: no GPU; compiled for sm_90" in printed.out and "80 % of cuDNN" in printed.out
    assert "not measured" in printed.err and max(map(len, printed.out.splitlines())) <= 100
    document = json.loads(path.read_text())
    assert document["rows"] == [] and {r["provider"] for r in document["not_measured"]} == {"cupy", "numba_cuda"}
    for row in document["not_measured"]:
        assert row["state"] == "not measured: no GPU" and row["target"] and "seconds" not in row
        assert all(n["registers"] > 0 and 0 < n["occupancy"] <= 1 for n in row["kernels"].values()), row


def test_facts_are_of_the_row_s_own_head_size_and_version():
    try:
        compiled.nvrtc(), compiled.cuobjdump()
    except HostCudaError as error:
        pytest.skip(str(error))
    best, naive = gpu.not_measured(["attention"], ["cupy", "cupy/naive"], "small")
    assert list(best["kernels"]) == ["attention_best<float, float, 32, 8, 4, 32>"]
    assert list(naive["kernels"]) == ["attention_naive<float, float, 32>"]
    assert 0 < best["kernels"]["attention_best<float, float, 32, 8, 4, 32>"]["registers"] < budgets.committed()["kernels"][
        "attention_best<float, float, 64, 8, 4, 32>"]["90"]["registers"]
    assert naive["kernels"]["attention_naive<float, float, 32>"]["registers"] > 0


def stand_in():
    """NumPy with the parts of CuPy that a benchmark needs; its clock counts calls, a cold one takes twice as long."""
    ticks, log = itertools.count(), []

    class Array(np.ndarray):
        def fill(self, value):
            log.append("flush")

    device = SimpleNamespace(attributes={"L2CacheSize": 64}, id=0, pci_bus_id="0:0:0", compute_capability="90")
    runtime = SimpleNamespace(getDeviceProperties=lambda i: {"name": b"none"}, driverGetVersion=lambda: 1,
                              runtimeGetVersion=lambda: 2)

    class Event:
        def record(self):
            self.at = next(ticks)
            log.append("record")

        def synchronize(self):
            log.append("synchronize")

    spin = lambda grid, block, args: log.append("spin")
    elapsed = lambda start, stop: 1e3 * (stop.at - start.at) * (2 if "flush" in log[-6:] else 1)
    xp = SimpleNamespace(
        RawKernel=lambda code, name: spin, zeros=lambda n, t: np.zeros(n, t).view(Array), ones=np.ones, uint8=np.uint8,
        ascontiguousarray=np.ascontiguousarray, copyto=np.copyto, matmul=np.matmul,
        cuda=SimpleNamespace(Device=lambda: device, Event=Event, runtime=runtime, get_elapsed_time=elapsed))
    return xp, log


def test_a_run_on_a_stand_in(monkeypatch):
    xp, log = stand_in()
    ceilings = gpu.ceilings
    monkeypatch.setattr(gpu, "ceilings", lambda xp: ceilings(xp, 32))
    monkeypatch.setattr(gpu, "beside", lambda work: None)
    for module in (gpu, run):
        monkeypatch.setattr(module, "algorithm", lambda provider, work: "direct")
    places = {p: cuda.host(checked=False) for p in ("cupy", "cupy/tiled")}
    rows = list(gpu.rows(["sampler_step", "group_norm"], places, "small", 3, xp))
    assert [(r["operation"], r["provider"]) for r in rows] == [("group_norm", p) for p in places] + [
        ("sampler_step", "cupy")] * 3
    for row in rows:
        assert len(row["samples"]) == 3 and row["seconds"] == 1.0 and row["cold"][0] == 2.0
        assert 0 < row["share_of_bound"] < 1 and row["ceiling"] > 0 and row["device"]["name"] == "none"
        assert "90 %" in row["target"] and row["device"]["clocks"] is None
    first = log.index("record")
    assert log[first - 2:first + 3] == ["flush", "spin", "record", "record", "synchronize"]


def test_a_wrong_kernel_on_the_gpu_is_not_timed(monkeypatch):
    xp, _ = stand_in()
    monkeypatch.setattr(gpu, "ceilings", lambda xp: {"copy": (lambda: None, 1), "product": (lambda: None, 1)})
    monkeypatch.setattr(gpu, "beside", lambda work: None)
    monkeypatch.setattr(run, "algorithm", lambda provider, work: "direct")
    idle = cuda.host()._replace(find=lambda path, name: lambda *_, **__: None)
    with pytest.raises(run.Refused, match="group_norm of cupy is wrong"):
        list(gpu.rows(["group_norm"], {"cupy": idle}, "small", 3, xp))


def test_versions_by_name(capsys):
    assert gpu.launcher("cupy/naive", "conv2d").keywords == {"version": "naive"}
    assert gpu.launcher("numba_cuda", "conv2d").keywords == {"version": "tiled"}
    assert gpu.launcher("cupy", "conv2d").keywords == {"version": None}
    assert gpu.launcher("cupy/partial", "conv2d") is None and gpu.launcher("cupy", "silu") is None
    assert main(["run", "conv2d", "--backends", "cupy/nothing", "--preset", "small"]) == 1
    assert "cupy/nothing: versions are best, naive" in capsys.readouterr().err
