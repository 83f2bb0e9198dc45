"""A small model that knows two sentences by heart, with a tokenizer and a chat template."""

from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from teleflm.checkpoint.open import Opened
from teleflm.config.model import ModelConfig
from teleflm.data.marks import Marks
from teleflm.data.tokenizer_training import train_tokenizer
from teleflm.model.init import build_model, initial_state
from tests.growing import opened_of

TEMPLATE = (
    "{% for message in messages %}<s>{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant:{% endif %}"
)
# Grouped queries, heads · head_dim ≠ hidden, multipliers, and more rows than tokens.
MODEL = ModelConfig(
    vocab_size=368,
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


TEXT = "A ship sailed past the harbour. 那船过了旧港。 In 1849, two of 17 came back."
CHAT = "<s>user: A ship\n<s>assistant: It sailed past the harbour.</s>"
_STEPS = 70


def chat_model(root: Path) -> Opened:
    """The model, with its tokenizer and template in a folder below `root`.

    What it writes are whole characters, as engines differ in what they make of others.
    """
    (root / "text.txt").write_text(f"{TEXT}\n" * 20)
    tokenizer = train_tokenizer([root / "text.txt"], 364, root / "tokenizer")
    (root / "tokenizer" / "chat_template.jinja").write_text(TEMPLATE)
    network = build_model(MODEL, initial_state(MODEL, seed=1), torch.float32)
    ids = torch.tensor(tokenizer.encode(f"{TEXT}\n" * 9))
    # From anywhere in it, as a prompt may be.
    rows = ids.unfold(0, 49, 9)
    chat = torch.tensor(Marks(tokenizer).encode(CHAT).ids * 9)[:49]
    rows = torch.cat((rows, chat.expand(4, -1)))
    optimizer = torch.optim.AdamW(network.parameters(), 1e-2)
    for _ in range(_STEPS):
        loss = cross_entropy(network(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.3, loss
    state = {name: weight.detach() for name, weight in network.named_parameters()}
    return opened_of(MODEL, state, root / "tokenizer")
