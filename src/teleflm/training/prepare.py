"""A run made ready for its next step: found or started, and laid out on its ranks."""

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import torch

from teleflm.checkpoint.load import find_checkpoint
from teleflm.checkpoint.save import TOKENIZER
from teleflm.config.base import write_yaml
from teleflm.config.model import ModelConfig
from teleflm.config.run import RunConfig
from teleflm.data.mixture import Mixture
from teleflm.data.special_ids import copy_for_text
from teleflm.data.tokenizer_files import has_tokenizer
from teleflm.errors import ConfigError
from teleflm.growth.event import Lineage
from teleflm.parallel.choose import layout_for
from teleflm.parallel.engine import Engine, OneProcess
from teleflm.parallel.layout import Layout, regions
from teleflm.parallel.many import ManyRanks
from teleflm.parallel.memory import largest_memory
from teleflm.parallel.mesh import Mesh, build_mesh
from teleflm.parallel.ranks import Ranks
from teleflm.parallel.recipe import Recipe
from teleflm.training.conversations import tell_conversations
from teleflm.training.learner import Learner
from teleflm.training.precision import in_precision, tell_if_slow
from teleflm.training.run import Run
from teleflm.training.same_data import check_same_data, common_sources
from teleflm.training.start import (
    check_prompts,
    check_same_run,
    check_same_tokenizer,
    newest_whole_checkpoint,
    start_state,
)


def prepare(
    config: RunConfig,
    mixture: Mixture,
    ranks: Ranks,
    device: torch.device,
    rolled_back: Lineage | None = None,
) -> Run:
    """The run at its newest whole checkpoint, or before its first step; every rank calls this.

    `rolled_back` is then its lineage, with an event that the checkpoint does not know.

    Raises:
        ConfigError, DataError, CheckpointError, GrowthError: the input is at fault.
    """
    directory = Path(config.run_dir)
    layout = layout_for(config, ranks.count)
    if rolled_back is None:
        check_prompts(config, mixture, ranks)
    if ranks.many and ranks.first and rolled_back is None:
        _tell_layout(config, layout)
    mesh = None
    if ranks.many:
        mesh = build_mesh(layout, ranks.rank, device, config.faults.timeout)
    held = regions(layout, config.final_model, ranks.rank) if ranks.many else None
    sources = common_sources(mixture, ranks, config.data.document_mask)
    found = newest_whole_checkpoint(directory, held)
    if found is not None:
        manifest, state = found
        if rolled_back is not None:
            # What was read and spent since the checkpoint stays so.
            last = rolled_back[-1]
            spent = {name: getattr(last, name) for name in ("tokens", "sequences", "flops")}
            state = replace(state, lineage=rolled_back, **spent)
        check_same_run(config, manifest, directory)
        check_same_tokenizer(directory / TOKENIZER, mixture)
        check_same_data(directory, manifest.data, sources, ranks)
        if manifest.config is not None:
            state = in_precision(state, manifest.config, config)
    else:
        state = start_state(config, mixture, ranks, held)
    learner = Learner(state, config.optimizer, engine=engine_of(config, state.model, mesh, device))
    run = Run(config, state, learner, mixture, sources, ranks)
    is_over = run.step >= run.last_step
    if not (is_over and found is not None):
        # A run that is over keeps what it was trained by.
        ranks.from_first(lambda: _write_down(config, mixture, fresh=found is None))
    if ranks.first and found is not None:
        over = "trained already, to" if is_over else "going on from"
        change = run.lineage[-1].precision
        changed = (
            f", in {change} from here on" if change and run.lineage[-1].step == run.step else ""
        )
        print(f"{directory}: {over} step {run.step}{changed}", file=sys.stderr)
    if ranks.first and rolled_back is None and not is_over:
        tell_conversations(run)
        tell_if_slow(config, device)
    return run


def master_dtype(config: RunConfig) -> torch.dtype:
    """What master weights and moments are in."""
    return torch.float64 if config.training.dtype == "fp64" else torch.float32


def _tell_layout(config: RunConfig, layout: Layout) -> None:
    # Before anything is allocated: where it does not fit, this is what one wants to read.
    kept = largest_memory(config.final_model, layout, master_dtype(config).itemsize)
    print(
        f"{config.run_dir}: {layout}: {layout.ranks} ranks; {kept} on the largest rank; "
        "activations and what is gathered for a step come on top",
        file=sys.stderr,
        flush=True,
    )


def _write_down(config: RunConfig, mixture: Mixture, fresh: bool) -> None:
    """Write the run's configuration and what belongs to its text."""
    directory = Path(config.run_dir)
    own, known = directory / TOKENIZER, False
    if config.start_from is not None and fresh:
        # The special ids of a model from elsewhere too, which the text does not bring.
        parent = find_checkpoint(Path(config.start_from)) / TOKENIZER
        copy_for_text(parent, own)
        known = has_tokenizer(parent)
    elif config.start_from is not None:
        known = has_tokenizer(own)
    if mixture.tokenizer is not None and not known:
        mixture.tokenizer.save(own)
    elif mixture.tokenizer is not None and fresh and mixture.trains_on_chats:
        # Its template, the template's tokens and what ends a reply.
        mixture.tokenizer.save_over(own)
    write_yaml(directory / "config.yaml", config)


def engine_of(
    config: RunConfig, model: ModelConfig, mesh: Mesh | None, device: torch.device
) -> Engine:
    """What computes a run's steps with `model` on this rank of a mesh, or where there is none on
    its own; the weights are yet to be filled in."""
    weights = master_dtype(config)
    compiled = compiles(config, device)
    training = config.training.model_copy(update={"compile": compiled})
    if mesh is not None:
        return ManyRanks(model, mesh, Recipe(config.parallel, training, weights))
    return OneProcess(
        model,
        weights,
        device,
        precision=training.precision,
        micro_batch=training.micro_batch,
        recomputation=config.parallel.activation_checkpointing,
        compiled=compiled,
    )


def compiles(config: RunConfig, device: torch.device) -> bool:
    """Whether blocks go through torch.compile: as the run says, or where that is known to pay.

    On a CPU compiled blocks gain a tenth at most (docs/log.md), and compiling them takes half a
    minute and a C++ compiler. A zero-bubble schedule cannot have them.

    Raises:
        ConfigError: on a CPU, where there is no C++ compiler.
    """
    if config.training.compile != "auto":
        if config.training.compile and device.type == "cpu":
            _check_compiler()
        return config.training.compile
    return device.type == "cuda" and config.parallel.schedule != "zero_bubble"


def _check_compiler() -> None:
    # By the name under which torch.compile looks for it, and would end in a traceback.
    name = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(name) is None:
        raise ConfigError(
            f"training.compile needs a C++ compiler, and there is no {name!r}; install one, or "
            "name it in the environment variable CXX, or leave training.compile out"
        )
