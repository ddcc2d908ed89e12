"""One module per command. Settings that must stand before torch is loaded stand here."""

import os

# Waiting OpenMP threads sleep instead of spinning: where loaders and trainer share two cores, a training step was
# seen to take three times as long without.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Nothing is fetched behind the user's back: weights come from files or from an explicit download.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
