"""The model card of an export: what the model is, how it came to be, how to load it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from teleflm.checkpoint.open import Opened
from teleflm.config.model import ModelConfig
from teleflm.growth.event import IN_WORDS, CertifiedFigures, Lineage
from teleflm.growth.ramp import ramp_at
from teleflm.model.axes import parameter_count


@dataclass(frozen=True)
class CardFacts:
    """Measurements for the card: bits per byte by domain of held-out text."""

    bpb: Mapping[str, float] = field(default_factory=dict)


def model_card(source: Opened, library: str, use: str, facts: CardFacts) -> str:
    """README.md of an export, with the front matter that model hubs read.

    Args:
        source: the model.
        library: what loads it, by the name that hubs have for it.
        use: how it is loaded, in Markdown.
        facts: measurements.
    """
    sections = [
        _front_matter(library),
        _heading(source),
        _shape(source.ordinary.model),
        _lineage(source.state.lineage),
        _certificates(source.state.lineage),
        _bpb(facts),
        f"## Use\n\n{use}",
    ]
    return "\n".join(section for section in sections if section)


def _front_matter(library: str) -> str:
    return f"---\nlibrary_name: {library}\npipeline_tag: text-generation\ntags:\n- teleflm\n---\n"


def _heading(source: Opened) -> str:
    state = source.state
    grown = len({event.step for event in state.lineage if event.is_growth})
    times = {0: "", 1: ", grown once", 2: ", grown twice"}.get(grown, f", grown {grown} times")
    lines = [
        f"# {source.name}",
        "",
        f"A Tele-FLM language model with {parameter_count(state.model):,} parameters{times}. "
        "Made with teleflm.",
    ]
    if state.tokens:
        lines += ["", f"Trained on {state.tokens:,} tokens, {state.step:,} steps in all."]
    progress = ramp_at(state.model, state.lineage, state.step).progress
    if progress < 1:
        lines += [
            "",
            f"Its last growth is under way, {progress:.0%} through: the masks are folded into the "
            "weights, so this is an ordinary model with the function of that step, and no more "
            "than that. What trains on is a checkpoint.",
        ]
    return "\n".join(lines) + "\n"


def _shape(model: ModelConfig) -> str:
    fields = ["| field | value |", "|---|---|"]
    fields += [f"| {key} | {value} |" for key, value in model.model_dump().items()]
    return "## Shape\n\n" + "\n".join(fields) + "\n"


def _lineage(lineage: Lineage) -> str:
    rows = [
        "| | layers | hidden | heads | FFN | parameters | from step | from token | seed | of |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for event in lineage:
        if not event.starts_run:
            continue
        name = IN_WORDS[event.operator]
        if event.ramp:
            name += f", open after {event.ramp:,} steps"
        to = event.to
        rows.append(
            f"| {name} | {to.num_hidden_layers} | {to.hidden_size:,} | {to.num_attention_heads} "
            f"| {to.intermediate_size:,} | {parameter_count(to):,} | {event.step:,} "
            f"| {event.tokens:,} | {event.seed} | {(event.parent or '')[:12]} |"
        )
    rows += ["", "`of` is what it began with: the SHA-256 of its manifest, or of its files."]
    rows += _left_out(lineage)
    return "## Lineage\n\n" + "\n".join(rows) + "\n"


def _left_out(lineage: Lineage) -> Iterator[str]:
    """The batches that the training read and left no trace of."""
    skips = [event.batches for event in lineage if event.operator == "skip"]
    backs = [event.batches for event in lineage if event.operator == "roll_back"]
    if skips or backs:
        yield ""
        yield (
            f"{len(skips):,} steps were skipped for a loss or gradient that was not sound. "
            f"{len(backs):,} times the training went back to a checkpoint for a loss spike, past "
            f"{sum(backs):,} batches."
        )


def _certificates(lineage: Lineage) -> str:
    proofs = [event.certificate for event in lineage if event.certificate is not None]
    if not proofs:
        return ""
    lines = [f"{number}. {_certified(proof)}" for number, proof in enumerate(proofs, start=1)]
    return "## Growth certificates\n\n" + "\n".join(lines) + "\n"


def _certified(proof: CertifiedFigures) -> str:
    words = (
        f"Logits before and after differ by at most {proof.max_relative_logit_error:.1e} "
        f"(relative, {proof.dtype})"
    )
    if proof.steps:
        words += (
            f"; over {proof.steps} training steps the losses of the grown model and its parent "
            f"differ by at most {proof.max_relative_loss_difference:.1e} (relative)"
        )
    return f"{words}. {'Exact.' if proof.exact else 'Not exact.'}"


def _bpb(facts: CardFacts) -> str:
    if not facts.bpb:
        return ""
    rows = ["| domain | bits per byte |", "|---|---|"]
    rows += [f"| {domain} | {value:.4f} |" for domain, value in facts.bpb.items()]
    return "## Evaluation on held-out text\n\n" + "\n".join(rows) + "\n"
