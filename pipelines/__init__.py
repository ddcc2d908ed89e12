"""One module per command. Settings that must stand before torch is loaded stand here."""

import os

# Waiting OpenMP threads sleep instead of spinning: loaders and trainer share the same few cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Nothing is fetched behind the user's back: weights come from files or from an explicit download.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
