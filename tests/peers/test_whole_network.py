"""The demo's U-Net, loss and every gradient, as the benchmark of whole networks holds it to PyTorch before it is timed."""
import numpy as np

from benchmarks import networks


def test_the_training_step_is_pytorchs():
    loss, grads = networks.theirs()[2]
    ours, mine = networks.ours("reference")[2]
    assert abs(loss - ours) <= networks.TOLERANCE * abs(ours)
    assert grads.keys() == mine.keys()
    scale = max(np.max(np.abs(g)) for g in mine.values())
    assert max(np.max(np.abs(grads[k] - mine[k])) for k in mine) <= networks.TOLERANCE * scale
