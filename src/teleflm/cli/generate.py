"""teleflm generate."""

from pathlib import Path
from typing import Annotated

import typer


def generate(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CKPT", help="A run folder, a checkpoint or a Hugging Face model folder."
        ),
    ],
    prompt: Annotated[str, typer.Argument(help="The text to go on from; may be empty.")],
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Stop after so many tokens.")] = 64,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="0 always takes the most likely token.")
    ] = 0.0,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Of the draws above temperature 0.")
    ] = 0,
) -> None:
    """Print a text and the model's continuation of it, computed in fp32.

    Example: teleflm generate runs/nano "In the beginning" --max-new-tokens 40
    """
    from teleflm.checkpoint.open import open_state
    from teleflm.data.tokenizer import Tokenizer, check_tokenizer
    from teleflm.errors import CheckpointError
    from teleflm.generation.generate import generate as generate_tokens
    from teleflm.generation.sampling import Sampling

    source = open_state(checkpoint)
    if source.tokenizer is None:
        raise CheckpointError(
            f"{checkpoint}: no tokenizer there, so no text can be read or written; put the "
            "tokenizer.json that the model was trained with into the folder"
        )
    vocab_size = source.state.model.vocab_size
    check_tokenizer(source.tokenizer, vocab_size)
    tokenizer = Tokenizer.load(source.tokenizer)
    network = source.network()
    ids = tokenizer.encode_prompt(prompt)
    (new,) = generate_tokens(
        network,
        [ids],
        max_new_tokens,
        Sampling(temperature, seed=seed),
        ends=tokenizer.end_ids,
        absent=tokenizer.absent_ids(vocab_size),
    )
    # Together, not apart: a character may begin in the prompt's last token and end in a new one.
    typer.echo(tokenizer.decode(ids + new))
    context = source.state.model.max_position_embeddings
    if len(ids) + len(new) == context and len(new) < max_new_tokens:
        typer.echo(f"stopped at the end of the model's context of {context:,} tokens", err=True)
