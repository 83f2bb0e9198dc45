"""The run that is planned: what training would resolve, of which nothing need be there yet."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from teleflm.config.base import apply_overrides, laid_over, read_yaml
from teleflm.config.resolve import preset_names
from teleflm.config.run import Precision, RunConfig, resolve_run, settled_dtype
from teleflm.model.axes import parameter_count
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


TOKENS_PER_PARAMETER = 20
"""That a model is planned to train on which comes without a run: what is best for the FLOPs spent
(Hoffmann et al., arXiv 2203.15556)."""

# Of the 52B run (arXiv 2404.16645), but for the micro-batch and what weights are gathered in.
_RECIPE: dict[str, Any] = {
    "run_dir": "planned",
    "data": {"path": "planned"},
    "training": {"global_batch": 1344, "micro_batch": 1},
}


def is_run(spec: str) -> bool:
    """Whether a MODEL|RUN.yaml is a run: a YAML file with a run's keys."""
    path = Path(spec)
    if spec in preset_names() or not path.is_file():
        return False
    return not RunConfig.model_fields.keys().isdisjoint(read_yaml(path))


def run_of_model(spec: str, overrides: Sequence[str] = (), auto: Precision = "bf16") -> RunConfig:
    """A model by the recipe of the 52B run: batches of 1,344 × 4,096 tokens, a sequence at a
    time, 20 tokens for each parameter, in what `training.dtype: auto` means where it is to be;
    what overrides say goes before.

    Raises:
        ConfigError: naming the field.
    """
    data = laid_over(_RECIPE, apply_overrides({"model": spec}, overrides))
    steps_given = "steps" in data["training"] if isinstance(data["training"], dict) else True
    if not steps_given:
        data["training"] = {**data["training"], "steps": 1}
    config = settled_dtype(resolve_run(data, spec), auto)
    if config.training.dtype == "bf16" and config.parallel.gather_dtype is None:
        parallel = config.parallel.model_copy(update={"gather_dtype": "bf16"})
        config = config.model_copy(update={"parallel": parallel})
    if steps_given:
        return config
    tokens = TOKENS_PER_PARAMETER * parameter_count(config.final_model)
    steps = -(-tokens // config.tokens_per_step)
    return config.model_copy(
        update={"training": config.training.model_copy(update={"steps": steps})}
    )
