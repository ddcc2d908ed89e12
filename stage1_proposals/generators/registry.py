"""Proposal generators by name; a user's own is named `package.module:Class`."""

import importlib
from collections.abc import Mapping
from dataclasses import is_dataclass
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
}
DEFAULT_GENERATOR = "saliency"


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
