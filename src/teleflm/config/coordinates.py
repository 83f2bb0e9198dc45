"""The coordinate check of a sweep: what it measures, and how exactly slopes are to be right."""

from typing import Annotated

from pydantic import Field, model_validator

from teleflm.config.base import Strict

# Below this a model has no four heads of two.
_Width = Annotated[int, Field(ge=16)]
_Widths = Annotated[tuple[_Width, ...], Field(strict=False, min_length=3)]
_Depths = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(strict=False)]


class CheckConfig(Strict):
    """Models of these `widths` and so many `layers` take `steps` steps from each of `seeds` seeds.

    A slope may differ from theory's by `tolerance`. Those along `depths` are shown and not judged;
    there are none where it names fewer than two.
    """

    widths: _Widths = (64, 128, 256, 512, 1024)
    depths: _Depths = (2, 4, 8, 16)
    layers: int = Field(default=4, ge=1)
    steps: int = Field(default=6, ge=2)
    seeds: int = Field(default=2, ge=1)
    tolerance: float = Field(default=0.1, gt=0)

    @model_validator(mode="after")
    def _in_order(self) -> "CheckConfig":
        for name in ("widths", "depths"):
            sizes = getattr(self, name)
            if list(sizes) != sorted(set(sizes)):
                raise ValueError(f"{name} {list(sizes)}: name each once, from the smallest on")
        return self
