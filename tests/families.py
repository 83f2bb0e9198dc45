"""Random small models of other families, by transformers itself, and what is compared with them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file
from torch import Tensor, nn

from teleflm.checkpoint import pretrained
from teleflm.config.formats import HubKind
from teleflm.config.model import ModelConfig
from teleflm.model.init import build_model

# Grouped queries, heads · head_dim ≠ hidden, and no constant at its default.
SHAPE: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 40,
    "intermediate_size": 56,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "max_position_embeddings": 64,
    "rms_norm_eps": 3e-3,
    "rope_theta": 500.0,
    "initializer_range": 0.3,
}
GRANITE = {
    "embedding_multiplier": 3.0,
    "logits_scaling": 5.0,
    "residual_multiplier": 0.22,
    "attention_multiplier": 0.4,
}
# The context of 64 is stretched, so that the tokens of a test see what is scaled.
LINEAR = {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}
LLAMA3 = {
    **LINEAR,
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
ATTENTION_BIAS = {"attention_bias": True, "mlp_bias": True}
IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}  # its own are beyond 97
UNTIED = {"tie_word_embeddings": False}
TIED = {"tie_word_embeddings": True}
YARN = {**LINEAR, "rope_type": "yarn", "original_max_position_embeddings": 16}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "granite": ("Granite", GRANITE),
    "llama3": ("Llama", {"rope_parameters": LLAMA3}),
    "yarn": ("Llama", {"rope_parameters": YARN}),
    "biased": ("Llama", ATTENTION_BIAS),
    "tied": ("Llama", TIED),
    "tied granite": ("Granite", {**GRANITE, **ATTENTION_BIAS, **TIED}),
    "qwen2": ("Qwen2", TIED),
    "qwen3": ("Qwen3", {"attention_bias": True}),
    "tied qwen3": ("Qwen3", TIED),
    "mistral window": ("Mistral", {"sliding_window": 9}),
    "qwen2 window": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1},
    ),
    "qwen3 window": (
        "Qwen3",
        {
            "use_sliding_window": True,
            "sliding_window": 9,
            "layer_types": ["full_attention", "sliding_attention"],
        },
    ),
    "smollm3": ("SmolLM3", {"no_rope_layer_interval": 2, **IDS}),
    "smollm3 window": (
        "SmolLM3",
        {
            "no_rope_layers": [0, 0],
            "use_sliding_window": True,
            "sliding_window": 9,
            **IDS,
            **UNTIED,
        },
    ),
    "linear": ("Mistral", {"sliding_window": None, "rope_parameters": LINEAR}),
}
Q_PROJ = "model.layers.1.self_attn.q_proj.weight"
UP_PROJ = "model.layers.0.mlp.up_proj.weight"
EMBEDDING = "model.embed_tokens.weight"
PICKLE = "pytorch_model.bin"


def network_of(family: str, dtype: torch.dtype, **more: Any) -> Any:
    """A random model by transformers, whose gains are no ones."""
    name, changes = FAMILIES[family]
    torch.manual_seed(7)
    config = getattr(transformers, f"{name}Config")(**{**SHAPE, **changes, **more})
    network = getattr(transformers, f"{name}ForCausalLM")(config).to(dtype).eval()
    for parameter in network.parameters():
        if parameter.ndim == 1:
            nn.init.uniform_(parameter, 0.5, 1.5)  # biases too, which are zero else
    return network


def save(network: Any, folder: Path) -> Path:
    """In several shards of safetensors."""
    network.save_pretrained(folder, max_shard_size="15KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


def as_pickles(folder: Path) -> Path:
    """The same folder with pickles for safetensors."""
    index = json.loads((folder / pretrained.INDEX).read_text())
    for file in folder.glob("*.safetensors"):
        torch.save(load_file(file), file.with_suffix(".bin"))
        file.unlink()
    names = {
        name: file.replace(".safetensors", ".bin") for name, file in index["weight_map"].items()
    }
    (folder / pretrained.INDEX).unlink()
    (folder / f"{PICKLE}.index.json").write_text(json.dumps({"weight_map": names}))
    return folder


def logits_of(network: Any) -> Tensor:
    """transformers' own; its norms compute in float32 only, whatever the model's precision."""
    for module in network.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = norm_of(module)
    with torch.no_grad():
        logits: Tensor = network(tokens()).logits
    return logits


def text_of(network: Any) -> list[int]:
    """What transformers goes on with after 20 tokens, with its cache."""
    written: list[list[int]] = network.generate(
        tokens()[:1, :20], max_new_tokens=40, do_sample=False, eos_token_id=None, pad_token_id=0
    ).tolist()
    return written[0][20:]


def own_format(family: str) -> HubKind:
    """The format of exports that a family is."""
    name, _ = FAMILIES[family]
    kinds: tuple[HubKind, ...] = get_args(HubKind)
    return next(kind for kind in kinds if kind == name.lower())


def norm_of(module: Any) -> Callable[[Tensor], Tensor]:
    return lambda x: F.rms_norm(x, module.weight.shape, module.weight, module.variance_epsilon)


def tokens() -> Tensor:
    return torch.randint(0, 97, (2, 40), generator=torch.Generator().manual_seed(1))


def ours(model: ModelConfig, weights: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
    with torch.no_grad():
        return build_model(model, weights, dtype)(tokens())


def relative_error(found: Tensor, reference: Tensor) -> float:
    return float((found - reference).abs().max() / reference.abs().max())
