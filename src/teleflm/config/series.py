"""SERIES.yaml: stages of training with a growth between each and the next."""

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from teleflm.config.base import PathText, Strict, build, laid_over, read_yaml
from teleflm.config.huggingface import ExportKind
from teleflm.errors import ConfigError


class SeriesConfig(Strict):
    """A series.

    Attributes:
        series_dir: where everything goes.
        title: for the report.
        run: RUN.yaml keys that the stages share.
        stages: RUN.yaml keys of each stage, laid over the shared ones; each has a `name`, the
            first one a `model`, the others a `growth`.
        exports: formats in which the last model is exported at the end.
    """

    series_dir: PathText
    title: str = "A model grown in stages"
    run: dict[str, Any] = Field(default_factory=dict)
    stages: tuple[dict[str, Any], ...] = Field(min_length=1)
    exports: tuple[ExportKind, ...] = ()

    @model_validator(mode="after")
    def _stages_chain(self) -> "SeriesConfig":
        names = [stage.get("name") for stage in self.stages]
        if not all(isinstance(name, str) and name.strip(".") and "/" not in name for name in names):
            raise ValueError("each of the stages needs a name that can be a folder's")
        if len(set(names)) != len(names):
            raise ValueError(f"stage names {names} must differ from one another")
        for name, stage in zip(names[1:], self.stages[1:], strict=True):
            if "growth" not in stage:
                raise ValueError(f"stage {name!r} has no growth: say what it grows to")
        return self

    def stage_names(self) -> list[str]:
        """The stages' names, in order."""
        return [stage["name"] for stage in self.stages]

    def stage_run(self, index: int) -> dict[str, Any]:
        """The RUN.yaml mapping of a stage, but for where it runs and starts from."""
        stage = {key: value for key, value in self.stages[index].items() if key != "name"}
        run = laid_over(self.run, stage)
        if index:
            # A `model` for all stages is where the series begins; later ones grow from it.
            run.pop("model", None)
        return run


def load_series(path: Path) -> SeriesConfig:
    """The series that a SERIES.yaml describes.

    Raises:
        ConfigError: naming the file and the field.
    """
    config = build(SeriesConfig, read_yaml(path), str(path))
    for key in ("run_dir", "start_from"):
        if key in config.run or any(key in stage for stage in config.stages):
            raise ConfigError(f"{path}: {key} is set by the series itself; leave it out")
    return config
