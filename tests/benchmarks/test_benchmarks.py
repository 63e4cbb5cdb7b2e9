"""Nothing is timed that is wrong or faster than the machine, and two runs are told apart only when they differ."""
import json

import numpy as np
import pytest

from benchmarks import ceilings, clock, compare, run
from benchmarks.__main__ import main, markdown
from benchmarks.workloads import selected
from refimpl import ops


def test_a_run_from_the_command_line(tmp_path, capsys):
    """Figures depend on the machine and its load; the file, the table and the rows do not."""
    path = tmp_path / "a.json"
    main(["run", "q_sample", "--backends", "reference,cupy", "--preset", "small", "--rounds", "3", "--json", str(path)])
    row, = compare.load(path)["rows"]
    assert (row["operation"], row["provider"], len(row["samples"])) == ("q_sample", "reference", 3)
    assert row["low"] <= row["seconds"] <= row["high"] and row["share_of_bound"] <= 1
    printed = capsys.readouterr()
    assert "q_sample" in printed.out and max(map(len, printed.out.splitlines())) <= 100


def test_outputs_that_are_given(tmp_path, capsys):
    """Rows only where one kernel takes its outputs; each says its rate beside the triad's."""
    path = tmp_path / "a.json"
    main(["run", "q_sample", "sampler_step", "conv2d", "--backends", "cpu/out", "--preset", "small", "--rounds", "3",
          "--json", str(path)])
    rows = compare.load(path)["rows"]
    assert [r["operation"] for r in rows] == ["q_sample", *["sampler_step"] * 3]
    assert all(r["vs_triad"][1] <= r["vs_triad"][0] <= r["vs_triad"][2] for r in rows)
    words = markdown(compare.load(path))
    for r in rows:
        row = f"| {r['operation']} | {r['sizes']} | {1e3 * r['seconds']:.3g} | {r['vs_triad'][0]:.2f} ("
        assert (row in words) == (r["bound_by"] == "memory")


def test_ceilings_do_the_work_they_count():
    a, d = (ceilings._aligned(1024) for _ in range(2))
    b, c = np.arange(2048, dtype=np.float32).reshape(2, -1)
    for move in (lambda: ceilings._triad(a, b, c, 2), lambda: ceilings._streamed(a, b, c, d, 2)):
        a[:] = d[:] = np.nan
        move()
        np.testing.assert_array_equal(a, b + c / 2)
    np.testing.assert_array_equal(d, c)


def test_a_wrong_kernel_is_not_timed():
    work = next(w for w in selected(["sampler_step"], "small") if "no noise" in w.label)
    right = ops.sampler_step(*work.case.args, **work.case.options)
    assert run.verified("reference", work, lambda: right) <= 1
    with pytest.raises(run.Refused, match=r"sampler_step of cpu is wrong.*not timed"):
        run.verified("cpu", work, lambda: (right[0] * np.float32(1.001), right[1]))


def test_above_the_ceiling_is_an_error():
    row = {"operation": "conv2d", "provider": "x", "sizes": "s", "bound_by": "memory", "seconds": 1.0, "high": 1.1}
    assert run.above_ceiling(row | {"ceiling": 1.05}) is None  # the interval reaches below
    assert "105" not in (run.above_ceiling(row | {"ceiling": 1.05}) or "")
    assert "150 %" in run.above_ceiling(row | {"ceiling": 1.5})


def document(samples, machine="m"):
    row = {"operation": "conv2d", "sizes": "s", "provider": "cpu", "samples": list(samples), "machine_samples": [1.0]}
    return {"format": "benchmarks", "version": 1, "machine": {"processor": machine}, "rows": [row]}


@pytest.mark.parametrize("factor, noise, word", [(1.0, 0.001, "same"), (1.3, 0.001, "slower"), (0.7, 0.001, "faster"),
                                                 (1.05, 0.4, "can't tell")])
def test_compare(factor, noise, word):
    rng = np.random.default_rng(1)
    a, b = (1 + noise * rng.standard_normal((2, 15)))
    (_, _, _, said), = compare.compared(document(a), document(factor * b))
    assert said == word


def test_compare_exit_status(tmp_path, capsys):
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    a.write_text(json.dumps(document([1.0] * 9)))
    b.write_text(json.dumps(document([1.5] * 9)))
    assert main(["compare", str(a), str(b)]) == 1
    assert main(["compare", str(a), str(a)]) == 0
    assert "slower" in capsys.readouterr().out


@pytest.mark.parametrize("text, words", [("{", "not JSON"), ('{"format": "x"}', "is not a document of"),
                                         ('{"format": "benchmarks", "version": 9}', "of version 9")])
def test_foreign_files(tmp_path, capsys, text, words):
    path = tmp_path / "x.json"
    path.write_text(text)
    assert main(["compare", str(path), str(path)]) == 1
    assert words in capsys.readouterr().err


def test_two_machines(tmp_path, capsys):
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    a.write_text(json.dumps(document([1.0] * 5)))
    b.write_text(json.dumps(document([1.0] * 5, "another")))
    assert main(["compare", str(a), str(b)]) == 1
    assert "different machines" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize("words, said", [(["conv9d"], "no benchmark of 'conv9d'"), (["--backends", "abacus"], "abacus"),
                                         (["--rounds", "1"], "rounds must be at least 3"),
                                         (["--json", "/nowhere/at/all.json"], "does not exist")])
def test_bad_input(words, said, capsys):
    assert main(["run", "--preset", "small", *words]) == 1
    assert said in capsys.readouterr().err.replace("\n", " ")


def test_rounds_interleave():
    order = []
    clock.interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 4)
    late = "".join(order)
    assert late.rindex("a") > late.index("b") and late.rindex("b") > late.index("a")
