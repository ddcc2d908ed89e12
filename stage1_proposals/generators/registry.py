"""Proposal generators by name, with the configs that have their settings; a user's is named `package.module:Class`."""

import importlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stage1_proposals.common.errors import UserError
from stage1_proposals.common.settings import build_settings

if TYPE_CHECKING:
    from stage1_proposals.generators.base import ProposalGenerator

_PACKAGE = "stage1_proposals.generators"
GENERATORS = {
    "saliency": f"{_PACKAGE}.saliency:SaliencyGenerator",
    "merging": f"{_PACKAGE}.merging:MergingGenerator",
    "random": f"{_PACKAGE}.random_shapes:RandomGenerator",
    "import": f"{_PACKAGE}.coco_import:ImportGenerator",
    # Stage 2's, which is named here as a user's own would be: stage 1 does not import it unless asked to.
    "checkpoint": "stage2_training.inference.pseudo_masks:CheckpointGenerator",
}
DEFAULT_GENERATOR = "saliency"
DEFAULT_FOR_OBJECTS = {"any": DEFAULT_GENERATOR, "small": "merging"}  # saliency finds large objects only
_PARTS_SHOWN = {"file": 1, "checkpoint": 2}  # of settings that are paths; checkpoints of all runs have the same names
CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "proposals"


def config_names() -> str:
    """The configs of `CONFIGS`, for help texts and messages."""
    return ", ".join(sorted(path.stem for path in CONFIGS.glob("*.toml")))


def find_generator(name: str) -> type:
    """The generator class of a name; its module is imported now.

    Raises:
        UserError: no such generator, or one of the user's that cannot be imported or is not a dataclass.
    """
    module, colon, attribute = GENERATORS.get(name, name).partition(":")
    if not colon:
        raise UserError(
            f"no generator {name!r}; there are {', '.join(GENERATORS)}, and your own as package.module:Class"
        )
    try:
        generator = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise UserError(f"generator {name}: cannot be imported ({error})") from error
    if not is_dataclass(generator):
        raise UserError(f"generator {name}: must be a dataclass, whose fields are its settings")
    return generator  # type: ignore[return-value]


def build_generator(settings: Mapping[str, Any]) -> "ProposalGenerator":
    """Build a generator from its `name` (by default `DEFAULT_GENERATOR`) and settings.

    Raises:
        UserError: unknown name, unknown setting, or a bad value.
    """
    name = str(settings.get("name", DEFAULT_GENERATOR))
    values = {key: value for key, value in settings.items() if key != "name"}
    return build_settings(find_generator(name), values, f"generator {name}")


def describe_generator(parameters: Mapping[str, Any]) -> str:
    """A generator's name and those of its settings that are not its defaults, as a shard set's request has them."""
    name = parameters["name"]
    defaults = {field.name: field.default for field in fields(find_generator(name))} if name in GENERATORS else {}
    defaults = json.loads(json.dumps(defaults, default=str))  # tuples become lists, as in the manifest
    shown = {
        key: "/".join(Path(value).parts[-_PARTS_SHOWN[key] :]) if key in _PARTS_SHOWN else value
        for key, value in parameters.items()
        if key not in ("name", "short_side", "long_side", "sha256", "config_sha256")
        and (key not in defaults or value != defaults[key])
    }
    return " ".join([name, *(f"{key}={value}" for key, value in shown.items())])


def default_config(name: str | None) -> Path:
    """The config of a generator, by default of the default one; of your own class there is none."""
    return CONFIGS / f"{name or DEFAULT_GENERATOR}.toml"


def read_settings(
    path: Path | None, name: str | None, overrides: Sequence[str], objects: str = "any"
) -> dict[str, Any]:
    """A config's settings, with KEY=VALUE overrides of its `[generator]`; values are TOML, bare words are text.

    Args:
        path: the config; None: that called `name`, or none if `name` is your own class.
        name: of a config or generator; None: the config's generator.
        overrides: KEY=VALUE.
        objects: a key of `DEFAULT_FOR_OBJECTS`; for `small`, the config's table `small` goes over its other settings.

    Raises:
        UserError: no such file, not TOML, of another generator, or without settings for small objects.
    """
    if path is None and name is None:
        name = DEFAULT_FOR_OBJECTS[objects]
    if path is None and name is not None and ":" in name:
        settings: dict[str, Any] = {"generator": {"name": name}}
    else:
        settings = _read_config(path or default_config(name))
    generator = settings.setdefault("generator", {})
    if not isinstance(generator, dict):
        raise UserError(f"config {path}: [generator] must be a table")
    small = settings.pop("small", {})
    if objects == "small":
        if not isinstance(small, dict) or not isinstance(small.get("generator", {}), dict) or not small:
            raise UserError(
                f"--objects small: {path or name or DEFAULT_GENERATOR} has no settings for small objects, a table "
                f"[small] in its config; GENERATOR=merging has them"
            )
        generator |= small.pop("generator", {})
        settings |= small
    if path is not None and name is not None and generator.setdefault("name", name) != name:
        raise UserError(f"config {path}: is for the generator {generator['name']}, not {name}")
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise UserError(f"--set {override}: write KEY=VALUE")
        try:
            generator[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            generator[key] = value
    return settings


def _read_config(path: Path) -> dict[str, Any]:
    if path.parent == CONFIGS and not path.exists():
        raise UserError(f"no generator {path.stem!r}; there are {config_names()}, and your own as package.module:Class")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"config {path}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise UserError(f"config {path}: {error}") from error
