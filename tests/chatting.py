"""A small random model with a tokenizer and a chat template, whose next tokens are far apart."""

from pathlib import Path

import torch

from teleflm.checkpoint.open import Opened
from teleflm.config.model import ModelConfig
from teleflm.data.tokenizer_training import train_tokenizer
from teleflm.model.axes import parameter_of
from teleflm.model.init import initial_state
from tests.growing import opened_of

TEMPLATE = (
    "{% for message in messages %}<s>{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant:{% endif %}"
)
# Grouped queries, heads · head_dim ≠ hidden, multipliers, and more rows than tokens.
MODEL = ModelConfig(
    vocab_size=304,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=32,
    max_position_embeddings=256,
    input_mult=3.0,
    output_mult=0.7,
)


def chat_model(root: Path) -> Opened:
    """The model, with its tokenizer and template in a folder below `root`."""
    (root / "text.txt").write_text("A ship sailed past the harbour. 那船过了旧港。\n" * 20)
    train_tokenizer([root / "text.txt"], 300, root / "tokenizer")
    (root / "tokenizer" / "chat_template.jinja").write_text(TEMPLATE)
    torch.manual_seed(0)
    state = {
        name: weight + (0.15 if parameter_of(name).is_matrix else 0.3) * torch.randn_like(weight)
        for name, weight in initial_state(MODEL, seed=1).items()
    }
    return opened_of(MODEL, state, root / "tokenizer")
