"""Settings as pydantic dataclasses, which own their defaults; a bad setting is a `UserError` of one line."""

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from pydantic import ConfigDict, ValidationError

from stage1_proposals.common.errors import UserError

# Configuration of every settings class: `@dataclass(frozen=True, config=SETTINGS)` of pydantic.dataclasses.
SETTINGS = ConfigDict(extra="forbid", strict=True)

T = TypeVar("T")


def build_settings(cls: type[T], values: Mapping[str, Any], owner: str) -> T:
    """Build a settings dataclass, pydantic's or a plain one.

    Args:
        values: settings by name; lists become tuples, since neither TOML nor JSON has tuples.
        owner: what the settings belong to, for error messages, such as `generator saliency`.

    Raises:
        UserError: an unknown setting, or a bad value.
    """
    known = sorted(field.name for field in fields(cls) if field.init)  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise UserError(f"{owner} has no setting {', '.join(unknown)}; it has {', '.join(known)}")
    try:
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
    except ValidationError as error:
        raise UserError(f"{owner}: {describe(error, values)}") from error
    except TypeError as error:  # of a plain dataclass
        raise UserError(f"{owner}: a setting has the wrong type ({error})") from error


def describe(error: ValidationError, values: Mapping[str, Any]) -> str:
    """One line that names each bad setting with its value and says what it must be."""
    faults: dict[str, str] = {}  # the first fault of each setting
    for detail in error.errors():
        if detail["type"] == "missing" and len(detail["loc"]) > 1:
            reason = "has too few values"
        else:
            reason = re.sub(r"^(Value error, |\w+ should (?=be|have))", "", detail["msg"])
            reason = reason if detail["type"] == "value_error" else f"must {reason}"
        name = str(detail["loc"][0]) if detail["loc"] else ""
        faults.setdefault(name, f"{name} {values[name]!r}: {reason}" if name in values else f"{name}: {reason}")
    return "; ".join(fault.removeprefix(": ") for fault in faults.values())
