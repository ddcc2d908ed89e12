"""What the config fragments of a run say, read without MMEngine, whose import takes seconds."""

import ast
import hashlib
import json
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def digest(fragment: str) -> str:
    """SHA-256, in hex, of what a fragment and its bases say: comments, docstrings and layout do not count.

    Args:
        fragment: path under `configs`.
    """
    return _digest(CONFIGS / fragment)


def of_training(model: str, dataset: str, schedule: str | None) -> tuple[str, ...]:
    """Paths under `configs` of what a training run is composed of.

    Args:
        model, dataset: names of fragments.
        schedule: likewise; None: the dataset's, as `stage2_training.config.compose` chooses it.
    """
    schedule = schedule or _inherited(CONFIGS / f"datasets/{dataset}.py", "default_schedule") or "finetune"
    return ("runtime.py", f"models/{model}.py", f"datasets/{dataset}.py", f"schedules/{schedule}.py")


@cache
def _digest(path: Path) -> str:
    if path.suffix == ".toml":
        said = json.dumps(tomllib.loads(path.read_text(encoding="utf-8")), sort_keys=True)
    else:
        said = "\n".join([*map(ast.unparse, _statements(path)), *map(_digest, _bases(path))])
    return hashlib.sha256(said.encode()).hexdigest()


def _statements(path: Path) -> list[ast.stmt]:
    """A fragment's, but for its docstring."""
    module = ast.parse(path.read_text(encoding="utf-8"))
    return module.body[1:] if ast.get_docstring(module) is not None else module.body


def _bases(path: Path) -> list[Path]:
    bases = _constant(path, "_base_") or []
    return [(path.parent / base).resolve() for base in ([bases] if isinstance(bases, str) else bases)]


def _inherited(path: Path, name: str) -> Any:
    """What a fragment or the nearest of its bases assigns to a name; None: nothing."""
    own = _constant(path, name)
    return own if own is not None else next(filter(None, (_inherited(base, name) for base in _bases(path))), None)


def _constant(path: Path, name: str) -> Any:
    """What a file itself assigns to a name, last; None: nothing."""
    for node in reversed(_statements(path)):
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == name for to in node.targets):
            return ast.literal_eval(node.value)
    return None
