"""One module per command. Settings that must stand before torch is loaded stand here."""

import os

# Waiting OpenMP threads spin for microseconds, then sleep. By default they spin for milliseconds, which makes a step
# of training on two cores six times as long once another process wants one of them; without any spinning, a step on a
# quiet machine takes half as long again. A thousand turns cost neither much.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# Nothing is fetched behind the user's back: weights come from files or from an explicit download.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# PyTorch's profiler, from which benchmarks take memory on a CPU, announces itself on stderr otherwise.
os.environ.setdefault("KINETO_LOG_LEVEL", "6")
