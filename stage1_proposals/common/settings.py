"""Settings as pydantic dataclasses, which own their defaults; a bad setting is a `UserError` of one line."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from pydantic import ConfigDict, ValidationError

from stage1_proposals.common.errors import UserError

# Configuration of every settings class: `@dataclass(frozen=True, config=SETTINGS)` of pydantic.dataclasses.
SETTINGS = ConfigDict(extra="forbid", strict=True)

# What is wrong with a value, by pydantic's type of error and with its context; other errors keep pydantic's words.
REASONS = {
    "bool_type": "must be true or false",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be greater than or equal to {ge:g}",
    "int_type": "must be a whole number",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be less than or equal to {le:g}",
    "literal_error": "must be {expected}",
    "missing": "has too few values",
    "string_type": "must be text",
    "too_long": "has {actual_length} values; it must have at most {max_length}",
    "too_short": "has {actual_length} values; it must have at least {min_length}",
    "tuple_type": "must be a list",
    "unexpected_positional_argument": "has too many values",
    "value_error": "{error}",
}

T = TypeVar("T")


def build_settings(cls: type[T], values: Mapping[str, Any], owner: str) -> T:
    """Build a settings dataclass, pydantic's or a plain one.

    Args:
        values: settings by name; lists become tuples, since neither TOML nor JSON has tuples.
        owner: what the settings belong to, for error messages, such as `generator saliency`.

    Raises:
        UserError: an unknown setting, a bad value, or none for a setting without a default.
    """
    accepted = [field for field in fields(cls) if field.init]  # type: ignore[arg-type]
    known = sorted(field.name for field in accepted)
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise UserError(f"{owner} has no setting {', '.join(unknown)}; it has {', '.join(known)}")
    required = [field.name for field in accepted if field.default is MISSING and field.default_factory is MISSING]
    missing = [name for name in required if name not in values]
    if missing:
        raise UserError(f"{owner} needs a value for {', '.join(missing)}")
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
        is_absent = detail["type"] == "missing" and len(detail["loc"]) == 1
        template = "needs a value" if is_absent else REASONS.get(detail["type"])
        reason = template.format(**detail.get("ctx", {})) if template else detail["msg"]
        name = str(detail["loc"][0]) if detail["loc"] else ""
        faults.setdefault(name, f"{name} {values[name]!r}: {reason}" if name in values else f"{name}: {reason}")
    return "; ".join(fault.removeprefix(": ") for fault in faults.values())
