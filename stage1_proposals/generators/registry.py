"""Proposal generators by name; a user's own is named `package.module:Class`."""

import importlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from stage1_proposals.common.errors import UserError
from stage1_proposals.generators.base import ProposalGenerator
from stage1_proposals.generators.coco_import import ImportGenerator
from stage1_proposals.generators.random_shapes import RandomGenerator
from stage1_proposals.generators.saliency import FreeMaskGenerator, SaliencyGenerator

__all__ = ["GENERATORS", "ProposalGenerator", "build_generator"]

GENERATORS: dict[str, type] = {
    generator.NAME: generator for generator in (SaliencyGenerator, FreeMaskGenerator, RandomGenerator, ImportGenerator)
}


def _find(name: str) -> type:
    if name in GENERATORS:
        return GENERATORS[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise UserError(
            f"no generator {name!r}; there are {', '.join(GENERATORS)}, and your own as package.module:Class"
        )
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise UserError(f"generator {name}: cannot be imported ({error})") from error
    if not is_dataclass(found):
        raise UserError(f"generator {name}: is no dataclass, whose fields would be its settings")
    return found  # type: ignore[return-value]


def build_generator(settings: Mapping[str, Any]) -> ProposalGenerator:
    """A generator from its `name` and settings.

    Raises:
        UserError: unknown name, unknown setting, or a value out of range.
    """
    name = str(settings.get("name", SaliencyGenerator.NAME))
    generator = _find(name)
    values = {
        key: tuple(value) if isinstance(value, list) else value for key, value in settings.items() if key != "name"
    }
    known = [field.name for field in fields(generator)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise UserError(f"generator {name} has no setting {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    try:
        return generator(**values)
    except TypeError as error:
        raise UserError(f"generator {name}: a setting has the wrong type ({error})") from error
