"""Tele-FLM (arXiv 2404.16645) for transformers, from 4.48 on; needs torch and transformers alone.

logits = lm_head(norm(h)) · output_mult / mup_scale_factor, h from embedding · input_mult.

Shapes: B sequences, S new positions, T positions with the cached ones, D hidden, H query heads,
G key-value heads, d head_dim, V vocabulary.
"""

from dataclasses import fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from .configuration_teleflm import TeleFLMConfig

# What this release calls the key-value cache in what a forward pass returns: from 5.24 on `cache`.
CACHE = next(
    field.name
    for field in fields(CausalLMOutputWithPast)
    if field.name in ("cache", "past_key_values")
)
# What a release may pass beside the named arguments, and the values that ask for nothing more than
# is done here; None asks for nothing, too. The cache knows its own positions.
HARMLESS = {"cache_position": None, "output_attentions": False, "return_dict": True}


def refuse_unknown(arguments: dict[str, Any]) -> None:
    """Raise for an argument that would not be heeded.

    Releases rename what they pass. A cache under a new name, taken in silence, would be no cache.
    """
    for name, value in arguments.items():
        if name not in HARMLESS:
            raise TypeError(f"TeleFLM models do not know the argument {name}; leave it out")
        if value is not None and HARMLESS[name] not in (None, value):
            raise ValueError(f"TeleFLM models do not have {name}={value!r}; leave it out")


def the_cache(cache: Any, past_key_values: Any) -> Any:
    """The key-value cache by either of its names, or None."""
    if cache is not None and past_key_values is not None:
        raise ValueError("cache and past_key_values are two names of one thing; give one of them")
    return past_key_values if cache is None else cache


def refuse_lost_cache(
    padding: Tensor | None, positions: Tensor | None, cache: Any, total: int
) -> None:
    """Raise where mask or positions speak of more tokens than there are.

    So a cache that did not arrive is noticed, whatever became of it.

    Args:
        padding: (B, T) or None.
        positions: (B or 1, S) or None.
        cache: the key-value cache or None.
        total: number of cached and new positions.
    """
    if padding is not None and padding.shape[1:] != (total,):
        raise ValueError(
            f"attention_mask has the shape {tuple(padding.shape)}, which is not (batch, {total}), "
            "one entry for each cached and new token; give the cache, as a DynamicCache"
        )
    if cache is None and positions is not None and int(positions.max()) >= total:
        raise ValueError(
            f"position_ids go to {int(positions.max())} where there are only {total} tokens and no "
            "cache; give the cache, or positions from 0"
        )


def rope_tables(config: TeleFLMConfig, positions: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin (B, 1, S, d) in float32 of positions (B, S).

    Formed at each call: a non-persistent buffer would be lost where transformers builds the model
    on the meta device.
    """
    # On the CPU, so that the frequencies are the same numbers on every device.
    exponent = torch.arange(0, config.head_dim, 2, device="cpu").float() / config.head_dim
    frequency = (1.0 / config.rope_theta**exponent).to(positions.device)
    angle = positions[:, None, :, None].float() * frequency
    angle = torch.cat((angle, angle), dim=-1)
    return angle.cos(), angle.sin()


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x (B, heads, S, d), rotate-half form."""
    first, second = x.chunk(2, dim=-1)
    rotated = torch.cat((-second, first), dim=-1)
    return x * cos.to(x.dtype) + rotated * sin.to(x.dtype)


def visible_positions(
    padding: Tensor | None, positions: Tensor, start: int, x: Tensor
) -> Tensor | None:
    """Which keys each new position may see, (B or 1, 1, S, T); None for the plain causal mask.

    Without `padding`, positions that do not go on by one begin another document, which sees nothing
    of those before it: so several are packed in a row.

    Args:
        padding: (B, T) with 0 at padding, or None.
        positions: (B or 1, S) of the new ones.
        start: number of cached positions.
        x: the new positions' embeddings (B, S, D).
    """
    new, total = x.shape[1], start + x.shape[1]
    begins = positions.diff(dim=1) != 1
    if padding is None and bool(begins.any()):
        if start > 0:
            raise ValueError("position_ids begin anew behind cached tokens; give no cache")
        document = F.pad(begins.cumsum(1), (1, 0))
        same = document[:, :, None] == document[:, None, :]
        return same.tril()[:, None]
    if padding is not None and bool(padding.all()):
        padding = None
    if padding is None and (start == 0 or new == 1):
        return None
    key = torch.arange(total, device=x.device)
    query = key[start:, None]
    allowed = (key <= query)[None, None]
    if padding is not None:
        allowed = allowed & padding[:, None, None, :total].bool()
    # A padding position sees itself: a softmax over nothing would be NaN.
    return allowed | (key == query)


class TeleFLMRMSNorm(nn.Module):
    def __init__(self, config: TeleFLMConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config.hidden_size))
        self.eps = config.rms_norm_eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


class TeleFLMAttention(nn.Module):
    def __init__(self, config: TeleFLMConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_dim
        self.queries_per_group = config.num_attention_heads // config.num_key_value_heads
        query_width = config.num_attention_heads * config.head_dim
        group_width = config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, query_width, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, group_width, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, group_width, bias=False)
        self.o_proj = nn.Linear(query_width, config.hidden_size, bias=False)

    def forward(
        self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None, cache: Any
    ) -> Tensor:
        shape = (*x.shape[:2], -1, self.head_dim)
        q = apply_rope(self.q_proj(x).view(shape).transpose(1, 2), *rope)
        k = apply_rope(self.k_proj(x).view(shape).transpose(1, 2), *rope)
        v = self.v_proj(x).view(shape).transpose(1, 2)
        if cache is not None:
            total = cache.get_seq_length(self.layer) + k.shape[2]
            k, v = cache.update(k, v, self.layer)
            if k.shape[2] != total:
                raise ValueError(
                    f"the cache gives {k.shape[2]} keys for {total} tokens; give a DynamicCache"
                )
        if self.queries_per_group > 1:
            k = k.repeat_interleave(self.queries_per_group, dim=1)
            v = v.repeat_interleave(self.queries_per_group, dim=1)
        is_causal = mask is None and q.shape[2] > 1
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=is_causal)
        return self.o_proj(y.transpose(1, 2).reshape(*x.shape[:2], -1))


class TeleFLMMLP(nn.Module):
    def __init__(self, config: TeleFLMConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class TeleFLMDecoderLayer(nn.Module):
    def __init__(self, config: TeleFLMConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = TeleFLMRMSNorm(config)
        self.self_attn = TeleFLMAttention(config, layer)
        self.post_attention_layernorm = TeleFLMRMSNorm(config)
        self.mlp = TeleFLMMLP(config)

    def forward(
        self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None, cache: Any
    ) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rope, mask, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class TeleFLMPreTrainedModel(PreTrainedModel):
    config: TeleFLMConfig
    config_class = TeleFLMConfig
    base_model_prefix = "model"
    _no_split_modules = ["TeleFLMDecoderLayer"]  # noqa: RUF012 (the base class has it so)
    _skip_keys_device_placement = ["past_key_values", "cache"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_cache_class = True

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        elif isinstance(module, TeleFLMRMSNorm):
            nn.init.ones_(module.weight)


class TeleFLMModel(TeleFLMPreTrainedModel):
    """The decoder without its head."""

    def __init__(self, config: TeleFLMConfig) -> None:
        super().__init__(config)
        self.embed_tokens: nn.Module = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            TeleFLMDecoderLayer(config, layer) for layer in range(config.num_hidden_layers)
        )
        self.norm = TeleFLMRMSNorm(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.embed_tokens = value

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        cache: Any = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Hidden states (B, S, D) of token ids (B, S) or of their embeddings.

        Raises:
            TypeError, ValueError: an argument that is unknown, asks for what there is not, or
                contradicts another.
        """
        asked = {name: getattr(self.config, name, value) for name, value in HARMLESS.items()}
        refuse_unknown({**asked, **kwargs})
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        cache = the_cache(cache, past_key_values)
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give input_ids or inputs_embeds, and not both")
        x = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if self.config.use_mup:
            x = x * self.config.input_mult
        start = cache.get_seq_length() if cache is not None else 0
        refuse_lost_cache(attention_mask, position_ids, cache, start + x.shape[1])
        use_cache = self.config.use_cache if use_cache is None else use_cache
        if use_cache and cache is None:
            cache = DynamicCache()
        if position_ids is None:
            position_ids = torch.arange(start, start + x.shape[1], device=x.device)[None]
        rope = rope_tables(self.config, position_ids)
        mask = visible_positions(attention_mask, position_ids, start, x)
        states: list[Tensor] = []
        for layer in self.layers:
            if output_hidden_states:
                states.append(x)
            x = layer(x, rope, mask, cache)
        x = self.norm(x)
        return BaseModelOutputWithPast(
            last_hidden_state=x,
            hidden_states=(*states, x) if output_hidden_states else None,
            **{CACHE: cache},
        )


class TeleFLMForCausalLM(TeleFLMPreTrainedModel, GenerationMixin):
    """The language model."""

    def __init__(self, config: TeleFLMConfig) -> None:
        super().__init__(config)
        self.model = TeleFLMModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def set_output_embeddings(self, value: nn.Linear) -> None:
        self.lm_head = value

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        cache: Any = None,
        num_items_in_batch: int | Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits (B, S, V), of the last `logits_to_keep` positions where it is not 0.

        With `labels` (B, S) also the loss: the mean over them, or their sum divided by
        `num_items_in_batch`, which a Trainer passes only where it sees `kwargs`.

        Raises:
            TypeError, ValueError: as the decoder does.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_hidden_states=output_hidden_states,
            cache=the_cache(cache, past_key_values),
            **kwargs,
        )
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, keep])
        if self.config.use_mup:
            logits = logits * (self.config.output_mult / self.config.mup_scale_factor)
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits,
                labels=labels,
                vocab_size=self.config.vocab_size,
                num_items_in_batch=num_items_in_batch,
            )
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            **{CACHE: getattr(outputs, CACHE)},
        )
