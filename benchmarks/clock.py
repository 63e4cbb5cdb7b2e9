"""Times in interleaved rounds, and what can be said of them: a median with a bootstrap interval."""
import time

import numpy as np

LEAST = 2e-3  # seconds a sample lasts at least: shorter calls are repeated
REST = 1e-2  # seconds before a sample: another library's idle threads spin for a while and would share the cores
WAKE = 1e-2  # seconds of calls before a sample: the own threads wake on one core and take a while to spread


def interleaved(functions, rounds, watch=None):
    """{name: seconds a call, one sample a round}. Rounds take the functions in turn, each time from another start.

    So a machine that changes its speed changes it for all, and ratios within a round stand.
    """
    names, repeats = list(functions), {}
    for name in names:
        functions[name]()  # compiles
        time.sleep(REST)
        functions[name]()
        started = time.perf_counter()
        functions[name]()
        repeats[name] = max(1, int(np.ceil(LEAST / max(time.perf_counter() - started, 1e-9))))
    samples = {name: [] for name in names}
    for k in range(rounds):
        for name in names[k % len(names):] + names[:k % len(names)]:
            f, n = functions[name], repeats[name]
            time.sleep(REST)
            started = time.perf_counter()
            while time.perf_counter() - started < WAKE:
                f()
            started = time.perf_counter()
            for _ in range(n):
                f()
            samples[name].append((time.perf_counter() - started) / n)
        if watch:
            watch()
    return {name: np.array(s) for name, s in samples.items()}


def medians(samples, rng):
    """The medians of 500 sets of samples drawn from these with replacement: the bootstrap."""
    return np.median(rng.choice(samples, (500, len(samples))), axis=1)


def median(samples):
    """The median, and the bootstrap's interval of 95 % around it."""
    low, high = np.quantile(medians(samples, np.random.default_rng(0)), [0.025, 0.975])
    return float(np.median(samples)), float(low), float(high)


def ratio(a, b):
    """median(a/b) round by round, with its interval: above 1, a takes longer."""
    return median(np.asarray(a) / np.asarray(b))
