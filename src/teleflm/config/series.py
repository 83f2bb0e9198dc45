"""SERIES.yaml: stages of training with a growth between each and the next."""

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from teleflm.config.base import PathText, Strict, build, laid_over, read_yaml
from teleflm.config.formats import HubKind
from teleflm.errors import ConfigError

# Keys of a RUN.yaml.
_OF_THE_SERIES = ("run_dir", "start_from")


class SeriesConfig(Strict):
    """A series.

    Attributes:
        series_dir: where everything goes.
        title: for the report.
        run: RUN.yaml keys that the stages share.
        stages: RUN.yaml keys of each stage, laid over the shared ones; each has a `name`, the
            first one a `model`, the others a `growth`. In a file a stage may name a RUN.yaml that
            its keys are laid over (see `load_series`).
        exports: formats in which the last model is exported at the end.
    """

    series_dir: PathText
    title: str = "A model grown in stages"
    run: dict[str, Any] = Field(default_factory=dict)
    stages: tuple[dict[str, Any], ...] = Field(min_length=1)
    exports: tuple[HubKind, ...] = ()

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
        # A `model` for all stages is where the series begins; later ones grow from it.
        shared = {key: value for key, value in self.run.items() if not (index and key == "model")}
        return laid_over(shared, stage)


def load_series(path: Path) -> SeriesConfig:
    """The series that a SERIES.yaml describes.

    A stage's key `run` is the path of a RUN.yaml, from the folder of the series on: the stage has
    its keys, but for `run_dir` and `start_from`, where it does not give them itself.

    Raises:
        ConfigError: naming the file and the field.
    """
    data = read_yaml(path)
    if isinstance(stages := data.get("stages"), list):
        data["stages"] = [_over_its_run(stage, index, path) for index, stage in enumerate(stages)]
    config = build(SeriesConfig, data, str(path))
    for key in _OF_THE_SERIES:
        if key in config.run or any(key in stage for stage in config.stages):
            raise ConfigError(f"{path}: {key} is set by the series itself; leave it out")
    return config


def _over_its_run(stage: Any, index: int, path: Path) -> Any:
    """What a stage of a file says, over the RUN.yaml that it names, if it does."""
    if not isinstance(stage, dict) or "run" not in stage:
        return stage
    place, named = f"{path}: stages.{index}.run", stage["run"]
    if not isinstance(named, str):
        raise ConfigError(f"{place}: expected the path of a RUN.yaml (got {named!r})")
    try:
        run = read_yaml(path.parent / named)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from None
    if index == 0 and run.get("start_from") is not None:
        raise ConfigError(
            f"{place}: {path.parent / named} starts from {run['start_from']}, but a series begins "
            "from scratch; put the stages before it into the series"
        )
    base = {key: value for key, value in run.items() if key not in _OF_THE_SERIES}
    return laid_over(base, {key: value for key, value in stage.items() if key != "run"})
