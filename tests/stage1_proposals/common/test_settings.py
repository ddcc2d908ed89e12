"""Settings classes: built from plain values, or refused in one line."""

import dataclasses
from typing import Annotated, Any, Literal, Self

import pytest
from pydantic import Field, PositiveInt, model_validator
from pydantic.dataclasses import dataclass

from stage1_proposals.common.errors import UserError
from stage1_proposals.common.settings import SETTINGS, build_settings


@dataclass(frozen=True, config=SETTINGS)
class Settings:
    count: PositiveInt = 3
    share: Annotated[float, Field(ge=0, le=1)] = 0.5
    kind: Literal["a", "b"] = "a"
    grid: tuple[PositiveInt, PositiveInt] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.count == 13:
            raise ValueError("count 13: brings bad luck")
        return self


@dataclasses.dataclass(frozen=True)
class Plain:
    count: int

    def __post_init__(self) -> None:
        self.count + 1


def test_values_that_are_not_given_are_the_class_defaults() -> None:
    assert build_settings(Settings, {}, "it") == Settings() == Settings(3, 0.5, "a", None)
    assert build_settings(Settings, {"grid": [2, 3], "share": 1}, "it") == Settings(grid=(2, 3), share=1.0)
    assert build_settings(Plain, {"count": 1}, "it") == Plain(1)


@pytest.mark.parametrize(
    ("cls", "values", "message"),
    [
        (Settings, {"cuont": 1}, "it has no setting cuont; it has count, grid, kind, share"),
        (Settings, {"count": 0}, "it: count 0: must be greater than 0"),
        (Settings, {"count": "4"}, "it: count '4': must be a whole number"),
        (Settings, {"count": True}, "it: count True: must be a whole number"),
        (Settings, {"share": 2, "kind": "c"}, "it: share 2: must be less than or equal to 1; kind 'c': must be 'a'"),
        (Settings, {"grid": [1]}, "it: grid [1]: has too few values"),
        (Settings, {"grid": [0, 0]}, "it: grid [0, 0]: must be greater than 0"),
        (Settings, {"count": 13}, "it: count 13: brings bad luck"),
        (Plain, {}, "it needs a value for count"),
        (Plain, {"count": "4"}, "it: a setting has the wrong type (can only concatenate str"),
    ],
)
def test_a_bad_setting_is_named_with_its_value(cls: type, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        build_settings(cls, values, "it")
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
