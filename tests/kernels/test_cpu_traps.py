"""What is known to go wrong with Numba kernels: kernels/jit.py has a rule for each, and these say whether it holds."""
import ast
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info

pytest.importorskip("numba")
import numba

from kernels import backend, jit

CPU = backend("cpu")
FOLDER = Path(jit.__file__).parent
ROOT = FOLDER.parent
TINY = np.float32(1e-40)  # a subnormal number

PRELUDE = """
import numpy as np
from kernels import backend
cpu = backend("cpu")
rng = np.random.default_rng(0)
x = rng.standard_normal((4, 16, 6, 6)).astype(np.float32)
w = rng.standard_normal((16, 16, 1, 1)).astype(np.float32)
"""


def in_process(source, tmp_path=None, **env):
    """Run Python source in a process of its own, with what it prints."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {k: v for k, v in os.environ.items() if k not in env} | {
        "PYTHONPATH": path} | {k: str(v) for k, v in env.items() if v is not None}
    script = [sys.executable, "-c", textwrap.dedent(source)]
    return subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)


def test_subnormal_numbers_survive_in_every_thread():
    x = np.full((64, 16, 4, 4), TINY)
    y = CPU.conv2d(x, np.eye(16, dtype=np.float32)[:, :, None, None])
    np.testing.assert_array_equal(y, x)
    assert TINY * np.float32(0.5) > 0
    x_s, _ = CPU.sampler_step(x, np.zeros_like(x), a=1.0, b=0.0, c_x=1.0)
    np.testing.assert_array_equal(x_s, x)


def test_no_kernel_calls_blas():
    """A product in a kernel's loop would bring a second pool of threads: two of them take turns at the same cores."""
    pools = threadpool_info()
    for path in jit.sources():
        for node in ast.walk(ast.parse(path.read_text())):
            assert not isinstance(node, ast.MatMult), path
            if isinstance(node, ast.Attribute):
                assert node.attr not in ("dot", "matmul", "tensordot", "einsum", "linalg", "blas"), (path, node.lineno)
    CPU.linear(np.ones((8, 64), np.float32), np.ones((64, 64), np.float32))
    assert [p for p in threadpool_info() if p["user_api"] == "blas"] == [p for p in pools if p["user_api"] == "blas"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_is_told_to_spawn_and_a_spawned_one_works(tmp_path):
    script = tmp_path / "helper.py"
    script.write_text(textwrap.dedent(PRELUDE) + textwrap.dedent("""
        import multiprocessing, os, sys
        def work(n):
            return float(np.sum(cpu.conv2d(x, w)))
        if __name__ == "__main__":
            expected = work(0)
            from kernels.jit import threading_layer
            if threading_layer() == "omp":
                child = os.fork()
                if child == 0:
                    try:
                        work(0)
                    except RuntimeError as error:
                        os._exit(7 if "spawn" in str(error) else 8)
                    os._exit(9)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                assert pool.map(work, [0]) == [expected]
            assert work(0) == expected
            print("well")
        """))
    done = subprocess.run([sys.executable, script], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True,
                          text=True, timeout=300)
    assert done.stdout == "well\n", done.stderr


@pytest.mark.parametrize("layer", ["workqueue", None])
def test_two_python_threads_may_call_kernels(layer):
    """Numba's workqueue layer aborts the process when two threads run parallel loops at once."""
    done = in_process(PRELUDE + """
        from concurrent.futures import ThreadPoolExecutor
        expected = cpu.conv2d(x, w)
        def work(n):
            return all(np.array_equal(cpu.conv2d(x, w), expected) for _ in range(300))
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(work, range(4)))
        print("well")
        """.replace("\n        ", "\n"), NUMBA_THREADING_LAYER=layer)
    assert done.stdout == "well\n", done.stderr


def copied(tmp_path):
    return Path(shutil.copytree(FOLDER, tmp_path / "kernels", ignore=shutil.ignore_patterns("__pycache__")))


def test_the_cache_key_changes_with_every_kernel_source(tmp_path):
    folder = copied(tmp_path)
    key, names = jit.sources_key(folder), [p.relative_to(folder) for p in jit.sources(folder)]
    assert key == jit.sources_key() and {Path("simd.py"), Path("conv2d/winograd.py"), Path("jit.py")} <= set(names)
    keys = {key}
    for name in names:
        with open(folder / name, "a") as file:
            file.write("# edited\n")
        keys.add(jit.sources_key(folder))
    assert len(keys) == 1 + len(names)
    (folder / "verify.py").write_text("no kernel\n")
    assert jit.sources_key(folder) in keys
    (folder / "new.py").write_text("from .jit import kernel\n")
    assert jit.sources_key(folder) not in keys


def test_kernels_use_nothing_of_this_package_that_the_key_leaves_out():
    """Constants of another module are compiled in: the modules that kernels import must be in the key themselves."""
    hashed = {p.relative_to(FOLDER) for p in jit.sources()}
    for name in hashed:
        for node in ast.walk(ast.parse((FOLDER / name).read_text())):
            if not isinstance(node, ast.ImportFrom) or not node.level:
                continue
            base = (FOLDER / name).parents[node.level - 1] / Path(*(node.module or "").split("."))
            imported = [base.with_suffix(".py")] if base.with_suffix(".py").exists() else [
                (base / a.name).with_suffix(".py") for a in node.names]
            left_out = {p.relative_to(FOLDER) for p in imported} - hashed
            # What cannot change compiled code: contract registers it, cache names the folder that it is kept in.
            assert left_out <= {Path("contract.py"), Path("cache.py")}, (name, node.lineno, left_out)


SMALL = PRELUDE + """
from kernels.arrays import _transpose, channels_last
channels_last(x)
print(sum(_transpose.dispatcher().stats.cache_hits.values()), sum(_transpose.dispatcher().stats.cache_misses.values()))
"""


def test_compiled_kernels_are_kept_in_the_users_cache_folder_and_found_again(tmp_path):
    env = dict(XDG_CACHE_HOME=tmp_path / "cache", LOCALAPPDATA=tmp_path / "cache", HOME=tmp_path, NUMBA_CACHE_DIR=None)
    assert in_process(SMALL, tmp_path, **env).stdout == "0 1\n"
    assert in_process(SMALL, tmp_path, **env).stdout == "1 0\n"
    files = [p for p in tmp_path.rglob("*.nbi")]
    assert files and all(jit.sources_key() in str(p) for p in files)


def test_a_cache_folder_that_cannot_be_written_is_done_without(tmp_path):
    (tmp_path / "file").write_text("")
    done = in_process(SMALL, tmp_path, XDG_CACHE_HOME=tmp_path / "file", LOCALAPPDATA=tmp_path / "file",
                      HOME=tmp_path / "file", NUMBA_CACHE_DIR=None)
    assert done.stdout == "0 1\n", done.stderr


def test_the_users_own_settings_of_numba_stay(monkeypatch):
    folder = numba.config.CACHE_DIR
    CPU.linear(np.ones((2, 3), np.float32), np.ones((4, 3), np.float32))
    assert folder == numba.config.CACHE_DIR
    monkeypatch.setattr(numba.config, "CPU_FEATURES", "+sse2")
    jit._processor()
    assert numba.config.CPU_FEATURES == "+sse2" and jit.features() == {"sse2"}


def test_wide_vectors_are_asked_for_where_there_are_any(monkeypatch):
    monkeypatch.setattr(numba.config, "CPU_FEATURES", None)
    monkeypatch.setattr(numba.config, "CPU_NAME", None)
    jit._processor()
    assert ("avx512f" in jit.features()) == str(numba.config.CPU_FEATURES).endswith(",-prefer-256-bit")


def test_no_kernel_promises_more_than_ieee_arithmetic():
    """fastmath=True makes NaN and infinity undefined; reassociation and reciprocal estimates undo the polynomials."""
    flags = re.findall(r"fastmath=([^,)]*)", (FOLDER / "jit.py").read_text())
    assert flags and set(flags) == {'{"contract"}'}
    for path in jit.sources():
        assert path.name == "jit.py" or "fastmath=" not in path.read_text(), path


def test_one_signature_a_kernel_whatever_it_is_given():
    from kernels.windows import _windows_product

    x = np.ones((2, 3, 5, 5), np.float32)
    w = np.ones((4, 3, 2, 2), np.float32)
    x_read_only, w_fortran = x.copy(), np.asfortranarray(w)
    x_read_only.flags.writeable = False
    for a, b in ((x, w), (x_read_only, w_fortran), (x[:, :, ::-1], w[::-1]), (x.transpose(0, 1, 3, 2), w)):
        np.testing.assert_array_equal(CPU.conv2d(a, b), np.full((2, 4, 4, 4), 12))
    assert len(_windows_product.dispatcher().signatures) == 1


def test_every_parallel_kernel_takes_the_lock():
    """Numba's own decorators appear in jit.py alone, so none is called without the lock and the check for forks."""
    for path in jit.sources():
        if path.name != "jit.py":
            assert not re.search(r"\bnjit\b|@jit|numba\.jit|vectorize|stencil", path.read_text()), path
