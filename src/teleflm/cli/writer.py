"""What the verbs that write text have in common: their options, and what writes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    import torch

    from teleflm.generation.text import Writer

Checkpoint = Annotated[
    Path,
    typer.Argument(
        metavar="SRC", help="A run folder, a checkpoint or a Hugging Face model folder."
    ),
]
Temperature = Annotated[float, typer.Option(help="0 always takes the most likely token.")]
TopK = Annotated[int | None, typer.Option(help="Draw from the N likeliest tokens.", metavar="N")]
TopP = Annotated[
    float,
    typer.Option(help="Draw from the fewest likeliest tokens whose probabilities add up to this."),
]
MinP = Annotated[
    float, typer.Option(help="Draw from tokens with this share of the likeliest one's probability.")
]
Penalty = Annotated[
    float,
    typer.Option(
        "--repetition-penalty",
        help="Above 1, tokens that were there become less likely; Tele-FLM's is 1.03.",
    ),
]
Stop = Annotated[
    list[str] | None,
    typer.Option(help="End before this text; may be given several times.", metavar="TEXT"),
]
Seed = Annotated[int, typer.Option(metavar="N", help="Decides the draws above temperature 0.")]
Precision = Annotated[
    Literal["fp32", "bf16", "int8"],
    typer.Option("--weights", help="Precision of the weights; int8 on x86 CPUs only."),
]
Device = Annotated[
    str, typer.Option(help="cpu or cuda, cuda:1 …; auto takes a GPU where there is one.")
]


def writer_of(
    checkpoint: Path,
    *,
    temperature: float,
    top_k: int | None,
    top_p: float,
    min_p: float,
    repetition_penalty: float,
    seed: int,
    stop: list[str] | None,
    weights: Literal["fp32", "bf16", "int8"],
    device: str,
    many_rows: bool = False,
) -> "Writer":
    """What writes with the model and the tokenizer at `checkpoint`.

    Raises:
        CheckpointError, DataError: no model or no tokenizer there.
        ConfigError: options that make no sense, or a device or kernels that are not there.
    """
    from teleflm.checkpoint.open import open_state
    from teleflm.data.tokenizer import Tokenizer, check_tokenizer
    from teleflm.errors import CheckpointError, ConfigError
    from teleflm.generation.decoder import IncrementalDecoder
    from teleflm.generation.sampling import Sampling
    from teleflm.generation.text import Writer

    sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty, seed)
    idle = Sampling(repetition_penalty=repetition_penalty, seed=seed)
    if temperature == 0.0 and sampling != idle:
        raise ConfigError(
            "top-k, top-p and min-p narrow down draws, and at temperature 0 nothing is drawn; give "
            "a --temperature"
        )
    place = device_of(device)
    source = open_state(checkpoint)
    if source.tokenizer is None:
        raise CheckpointError(
            f"{checkpoint}: no tokenizer there, so no text can be read or written; put the "
            "tokenizer.json that the model was trained with into the folder"
        )
    check_tokenizer(source.tokenizer, source.state.model.vocab_size)
    tokenizer = Tokenizer.load(source.tokenizer)
    decoder = IncrementalDecoder(source.network().to(place), weights, many_rows=many_rows)
    return Writer(decoder, tokenizer, sampling, stop or [])


def device_of(name: str) -> "torch.device":
    """The device of this name. Raises ConfigError where there is none."""
    import torch

    from teleflm.errors import ConfigError

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device {name!r}: it has to be auto, cpu, cuda or cuda:N")
    there = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= there:
        raise ConfigError(f"device {name!r}: PyTorch sees {there} GPUs here; take --device cpu")
    return device
