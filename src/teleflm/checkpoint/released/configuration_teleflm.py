"""Configuration of Tele-FLM models for transformers."""

from typing import Any

from transformers import PretrainedConfig


class TeleFLMConfig(PretrainedConfig):
    """A Llama-like decoder with two µP multipliers.

    With `use_mup`, the embedding output is scaled by `input_mult` and the logits by
    `output_mult / mup_scale_factor`. `num_key_value_heads` defaults to `num_attention_heads` and
    `head_dim` to `hidden_size / num_attention_heads`.

    Raises:
        ValueError: biases, tied embeddings, RoPE scaling, attention dropout or another activation.
    """

    model_type = "TeleFLM"
    # Both names of the key-value cache: the newer one is of 5.24.
    keys_to_ignore_at_inference = ["past_key_values", "cache"]  # noqa: RUF012 (as in the base class)

    def __init__(
        self,
        vocab_size: int = 80_000,
        hidden_size: int = 8192,
        intermediate_size: int = 21_824,
        num_hidden_layers: int = 64,
        num_attention_heads: int = 64,
        num_key_value_heads: int | None = None,
        head_dim: int | None = None,
        max_position_embeddings: int = 4096,
        rms_norm_eps: float = 1e-5,
        rope_theta: float = 10_000.0,
        initializer_range: float = 0.02,
        use_cache: bool = True,
        use_mup: bool = False,
        input_mult: float = 1.0,
        output_mult: float = 1.0,
        mup_scale_factor: float = 1.0,
        pad_token_id: int | None = None,
        bos_token_id: int = 1,
        eos_token_id: int = 2,
        tie_word_embeddings: bool = False,
        **kwargs: Any,
    ) -> None:
        # Read and let go here: base classes of some releases reshape the rope fields they see.
        scaling = kwargs.pop("rope_scaling", None)
        rope = kwargs.pop("rope_parameters", None) or scaling or {}
        unsupported = {
            "tie_word_embeddings": tie_word_embeddings,
            "attention_bias": kwargs.get("attention_bias", False),
            "attention_dropout": kwargs.get("attention_dropout", 0.0) != 0.0,
            "hidden_act": kwargs.get("hidden_act", "silu") != "silu",
            "rope_scaling": rope.get("rope_type", rope.get("type", "default")) != "default",
        }
        for field, is_set in unsupported.items():
            if is_set:
                raise ValueError(f"TeleFLM models do not have {field}; remove it from the config")
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_key_value_heads = num_key_value_heads or num_attention_heads
        self.head_dim = head_dim or hidden_size // num_attention_heads
        self.max_position_embeddings = max_position_embeddings
        self.rms_norm_eps = rms_norm_eps
        self.rope_theta = float(rope.get("rope_theta", rope_theta))
        self.initializer_range = initializer_range
        self.use_cache = use_cache
        self.use_mup = use_mup
        self.input_mult = input_mult
        self.output_mult = output_mult
        self.mup_scale_factor = mup_scale_factor
        kwargs |= {
            "pad_token_id": pad_token_id,
            "bos_token_id": bos_token_id,
            "eos_token_id": eos_token_id,
            "tie_word_embeddings": tie_word_embeddings,
        }
        super().__init__(**kwargs)
