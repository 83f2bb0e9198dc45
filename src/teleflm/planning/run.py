"""The run that is planned: what training would resolve, of which nothing need be there yet."""

from collections.abc import Sequence
from pathlib import Path

from teleflm.config.base import apply_overrides, read_yaml
from teleflm.config.run import RunConfig, resolve_run
from teleflm.training.start import resolve_config


def planned_run(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The run of a RUN.yaml; its checkpoint is looked at only where it does not say its model.

    Raises:
        ConfigError, CheckpointError: naming the field or the path.
    """
    data = apply_overrides(read_yaml(path), overrides)
    if data.get("model") is None:
        return resolve_config(data, str(path))
    return resolve_run(data, str(path))
