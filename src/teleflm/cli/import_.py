"""teleflm import."""

from pathlib import Path
from typing import Annotated

import typer

from teleflm.errors import CheckpointError


def import_(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A Hugging Face model folder, with its weights.")
    ],
    out: Annotated[Path, typer.Argument(metavar="CKPT", help="Folder for the checkpoint.")],
    untie: Annotated[
        bool,
        typer.Option("--untie", help="Make a head that is tied to the embedding a copy of it."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the checkpoint at CKPT.")] = False,
) -> None:
    """Make a checkpoint of a Llama-like model, to train on or grow.

    Families: TeleFLM, Llama, Mistral, Granite, Qwen2, Qwen3, SmolLM3.

    It is read and written piece by piece, so it may be larger than the memory. Where it was
    interrupted, the same command goes on.

    Example: teleflm import downloads/llama imported
    """
    from teleflm.checkpoint.pretrained import open_pretrained
    from teleflm.checkpoint.save import check_place
    from teleflm.checkpoint.stream import state_bytes, write_state
    from teleflm.cli.progress import rank_progress
    from teleflm.data.tokenizer import check_tokenizer
    from teleflm.data.tokenizer_files import has_tokenizer, missing_tokenizer
    from teleflm.model.axes import parameter_count
    from teleflm.parallel.world import world

    with world() as (ranks, _):
        if folder.resolve().is_relative_to(out.resolve()):
            raise CheckpointError(f"{out}: holds the model to import; give another place")
        check_place(out, force)
        if ranks.first:
            typer.echo(f"{folder}: taking the checksums of its files", err=True)
        state = open_pretrained(folder, untie=untie)
        check_tokenizer(folder, state.model.vocab_size)
        share = state_bytes(state, ranks.rank, ranks.count)
        with rank_progress("importing", share, ranks) as tell:
            write_state(out, state, folder, force=force, tell=tell)
        if ranks.first:
            model = state.model
            typer.echo(
                f"{out}: hidden {model.hidden_size:,}, {model.num_hidden_layers} layers, "
                f"{model.num_attention_heads} heads in {model.num_key_value_heads} groups, "
                f"FFN {model.intermediate_size:,}; {parameter_count(model):,} parameters, "
                f"{'with' if has_tokenizer(folder) else 'without'} a tokenizer"
            )
            if not has_tokenizer(folder):
                typer.echo(f"note: {missing_tokenizer(folder)}", err=True)
