"""RECIPE.yaml: the sources of a corpus and the steps that clean it."""

import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, model_validator

from teleflm.cleaning.step import CorpusStep, Step
from teleflm.config.base import PathText, Strict, apply_overrides, build, laid_over, read_yaml
from teleflm.errors import ConfigError

FolderName = Annotated[str, Field(pattern=r"^[^/\\\x00.][^/\\\x00]*$")]
"""What a folder can be called, and is not hidden by."""
_SHIPPED = resources.files("teleflm.cleaning") / "recipes"


class Source(Strict):
    """Text of one kind.

    Attributes:
        name: of its folder in the output.
        path: a file, a folder or a glob.
        language: `en`, `zh`, … as in ISO 639, or `code`; what it cannot be judged by is left out.
        domain: of all its documents; else what a record says in `metadata.domain`, else the name.
        epochs: how often it is to be read in training; the weight of its documents.
        text_key: field of a record that holds its text, with dots for a field of a field.
    """

    name: FolderName
    path: PathText
    language: str = Field(pattern=r"^([a-z]{2,3}|code)$")
    domain: FolderName | None = None
    epochs: float = Field(default=1.0, gt=0)
    text_key: str = "text"


class Executor(Strict):
    """Where the work runs.

    Attributes:
        kind: processes of this machine, or datatrove's Slurm or Ray executor.
        workers: tasks at a time; all cores of this machine, and no limit elsewhere.
        options: what datatrove's executor of that kind takes besides, as `time` and `partition`.
    """

    kind: Literal["local", "slurm", "ray"] = "local"
    workers: int | None = Field(default=None, ge=1)
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _options_fit(self) -> "Executor":
        if self.kind == "local" and self.options:
            raise ValueError("the local executor has no options; leave them out")
        missing = {"time", "partition"} - self.options.keys() if self.kind == "slurm" else ()
        if missing:
            raise ValueError(f"Slurm wants options.{' and options.'.join(sorted(missing))}")
        return self


class Recipe(Strict):
    """What `teleflm data clean` does.

    Attributes:
        out: the folder of the result.
        sources: what is read, in order: of duplicates the first one is kept.
        steps: names, or {name: settings}, in the order of work; {name: false} waits to be set.
        test_sets: files and folders of test items, for `decontaminate`.
        tokenizer: folder of a tokenizer, for the report's estimate of tokens.
        shard_megabytes: small files are read together up to that size on disk. A file is read by
            one task, so one that is far larger is better split.
        executor: where the work runs; it has no say in the result.
    """

    out: PathText
    sources: tuple[Source, ...] = Field(min_length=1)
    steps: tuple[str | dict[str, dict[str, Any] | None], ...] = ()
    test_sets: tuple[PathText, ...] = ()
    tokenizer: PathText | None = None
    shard_megabytes: int = Field(default=64, ge=1)
    executor: Executor = Executor()

    @model_validator(mode="after")
    def _names_differ(self) -> "Recipe":
        names = [source.name for source in self.sources]
        if len(set(names)) != len(names):
            raise ValueError(f"the sources' names {names} must differ from one another")
        return self


class Work(NamedTuple):
    """A step to do, with what the recipe sets of it."""

    kind: type[Step] | type[CorpusStep]
    settings: Strict

    @property
    def name(self) -> str:
        """What the recipe calls it."""
        return self.kind.name


Kinds = Mapping[str, type[Step] | type[CorpusStep]]


def shipped_recipes() -> list[str]:
    """The names of the recipes that come with the package."""
    return sorted(
        file.name.removesuffix(".yaml") for file in _SHIPPED.iterdir() if ".yaml" in file.name
    )


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a file, or of a name that comes with the package.

    A file's key `recipe` names one that its keys are laid over, and its key `settings` has, by
    name, what is set of single steps of that one: {minhash: {threshold: 0.8}, language: false},
    where false leaves the step out. Both may be overrides.

    Raises:
        ConfigError: naming the file and the field.
    """
    if name in shipped_recipes() and not Path(name).is_file():
        data: dict[str, Any] = {"recipe": name}
    else:
        data = read_yaml(Path(name))
    data = apply_overrides(data, overrides)
    settings = data.pop("settings", {})
    if (base := data.pop("recipe", None)) is not None:
        data = laid_over(_shipped(base, name), data)
    if not isinstance(settings, dict):
        raise ConfigError(f"{name}: settings: expected a mapping of steps (got {settings!r})")
    if isinstance(data.get("steps"), list):
        data["steps"] = _set(data["steps"], settings, name)
    return build(Recipe, data, name)


def _shipped(base: Any, name: str) -> dict[str, Any]:
    if base not in shipped_recipes():
        raise ConfigError(
            f"{name}: recipe: no recipe {base!r}; there are {', '.join(shipped_recipes())}"
        )
    with resources.as_file(_SHIPPED / f"{base}.yaml") as path:
        return read_yaml(path)


def _set(steps: list[Any], settings: dict[str, Any], name: str) -> list[Any]:
    """The steps that are not false, with `settings` laid over their own."""
    held = [step if isinstance(step, dict) else {step: None} for step in steps]
    names = [its_name for step in held for its_name in step]
    if unknown := [its_name for its_name in settings if its_name not in names]:
        raise ConfigError(
            f"{name}: settings: {unknown[0]!r} is none of the steps, which are "
            f"{', '.join(map(str, names))}"
        )
    changed: list[Any] = []
    for step in held:
        kept = {}
        for its_name, own in step.items():
            given = settings.get(its_name, own is not False)
            if not isinstance(given, dict | bool):
                raise ConfigError(f"{name}: settings.{its_name}: expected a mapping, true or false")
            if given is not False:
                kept[its_name] = laid_over(own or {}, given if isinstance(given, dict) else {})
        if kept:
            changed.append(kept)
    return changed


def work_of(recipe: Recipe, kinds: Kinds, source: str) -> list[Work]:
    """The steps of a recipe read from `source`, with their settings checked.

    Raises:
        ConfigError: an unknown step or setting, a step twice, or test sets that no step asks for.
    """
    found: list[Work] = []
    for index, step in enumerate(recipe.steps):
        place = f"{source}: steps.{index}"
        named = {step: None} if isinstance(step, str) else step
        if len(named) != 1:
            raise ConfigError(f"{place}: write a step as NAME or as {{NAME: settings}}")
        (name, settings), *_ = named.items()
        if name not in kinds:
            raise ConfigError(f"{place}: no step {name!r}; the steps are {', '.join(kinds)}")
        if name in [work.name for work in found]:
            raise ConfigError(f"{place}: {name} is there twice; leave one out")
        kind, given = kinds[name], dict(settings or {})
        if "test_sets" in kind.Settings.model_fields:
            if not recipe.test_sets:
                raise ConfigError(f"{place}: {name} wants test_sets; give some, or leave it out")
            given["test_sets"] = list(recipe.test_sets)
        found.append(Work(kind, build(kind.Settings, given, f"{place}.{name}")))
    asked = any("test_sets" in work.kind.Settings.model_fields for work in found)
    if recipe.test_sets and not asked:
        raise ConfigError(f"{source}: test_sets: no step asks for them; add decontaminate")
    return found


def default_workers() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))
