"""The Tele-FLM decoder in plain PyTorch (arXiv 2404.16645), with Llama's state-dict keys.

Shapes: B sequences, S positions, D hidden, F FFN, G key-value groups, Q queries in a group,
d head_dim, V vocabulary.

Growth masks fold into the weights that carry them (see growth/masks.py): the buffers `row_mask`,
`column_mask` and `width_fraction` are None in an ordinary model and tensors on a ramp, so that
their values change without a recompilation.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from teleflm.config.model import ModelConfig
from teleflm.model.attention import causal_attention
from teleflm.model.documents import text_bounds
from teleflm.model.norm import masked_rms_norm, rms_norm
from teleflm.model.rope import Rope, apply_rope


def masked_bias(linear: "Linear") -> Tensor | None:
    """The bias with its growth mask multiplied in, None where there is none."""
    bias: Tensor | None = linear.bias
    return bias if bias is None or linear.row_mask is None else bias * linear.row_mask


def masked_weight(module: "Linear | Embedding") -> Tensor:
    """The weight with its growth masks multiplied in (the folded weight)."""
    weight = module.weight
    if module.row_mask is not None:
        weight = weight * module.row_mask[:, None]
    if module.column_mask is not None:
        weight = weight * module.column_mask
    return weight


class Linear(nn.Linear):
    """y = x Wᵀ + b. Not initialised here: see model/init.py."""

    row_mask: Tensor | None
    column_mask: Tensor | None

    def __init__(self, in_features: int, out_features: int, *, bias: bool = False) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.register_buffer("row_mask", None, persistent=False)
        self.register_buffer("column_mask", None, persistent=False)

    def reset_parameters(self) -> None:
        """Values come from model/init.py or a checkpoint; PyTorch's own would be wasted."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, masked_weight(self), masked_bias(self))


class Embedding(nn.Embedding):
    """Token embedding (V, D).

    `look_up` gives the rows of tokens; where a rank has some rows only, parallel/tensor.py sets it.
    """

    row_mask: Tensor | None
    column_mask: Tensor | None

    def __init__(self, vocab_size: int, hidden_size: int) -> None:
        super().__init__(vocab_size, hidden_size)
        self.look_up: Callable[[Tensor, Tensor], Tensor] = F.embedding
        self.register_buffer("row_mask", None, persistent=False)
        self.register_buffer("column_mask", None, persistent=False)

    def reset_parameters(self) -> None:
        """Values come from model/init.py or a checkpoint."""

    def forward(self, tokens: Tensor) -> Tensor:
        embedded = self.look_up(tokens, self.weight)
        if self.column_mask is None:
            return embedded
        # The mask after the look-up: V × D products would be wasted on a few rows. The stream stays
        # in the precision that it has without masks, which those that receive it count on.
        return (embedded * self.column_mask).to(embedded.dtype)


class RMSNorm(nn.Module):
    """x / rms(x) · gain over the last dim.

    On a ramp the mean square is Σx² / n, n the effective width, written as an ordinary norm with
    gain · √(n/D) and eps · n/D; `width_fraction` holds n/D.
    """

    width_fraction: Tensor | None

    def __init__(self, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(hidden_size))
        self.eps = eps
        self.register_buffer("width_fraction", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.width_fraction is None:
            y = rms_norm(x, self.weight, self.eps)
        else:
            y = masked_rms_norm(x, self.weight, self.eps, self.width_fraction)
        # One cast here instead of one in each of the linears that read y.
        kind = x.device.type
        return y.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else y


class Attention(nn.Module):
    """Causal self-attention with RoPE; grouped queries where G < heads, and norms of queries and
    keys where the model has them. `layer` says whether it has RoPE and how far it sees."""

    def __init__(self, model: ModelConfig, layer: int) -> None:
        super().__init__()
        self.window = model.sliding_window if layer in model.sliding_layers else None
        self.has_rope = layer not in model.nope_layers
        heads, groups = model.num_attention_heads, model.num_key_value_heads
        self.head_dim = model.head_dim
        bias = model.qkv_bias
        self.q_proj = Linear(model.hidden_size, heads * model.head_dim, bias=bias)
        self.k_proj = Linear(model.hidden_size, groups * model.head_dim, bias=bias)
        self.v_proj = Linear(model.hidden_size, groups * model.head_dim, bias=bias)
        self.o_proj = Linear(heads * model.head_dim, model.hidden_size, bias=model.o_bias)
        self.q_norm, self.k_norm = (
            RMSNorm(model.head_dim, model.rms_norm_eps) if model.qk_norm else nn.Identity()
            for _ in range(2)
        )

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, bounds: Tensor | None) -> Tensor:
        # (B, S, heads·d) → (B, heads, S, d); -1, since tensor parallelism may hold fewer heads.
        shape = (*x.shape[:2], -1, self.head_dim)
        q = self.q_norm(self.q_proj(x).view(shape)).transpose(1, 2)
        k = self.k_norm(self.k_proj(x).view(shape)).transpose(1, 2)
        if self.has_rope:
            q, k = apply_rope(q, cos, sin), apply_rope(k, cos, sin)
        v = self.v_proj(x).view(shape).transpose(1, 2)
        y = causal_attention(q, k, v, self.window, bounds=bounds)
        return self.o_proj(y.transpose(1, 2).reshape(*x.shape[:2], -1))


class MLP(nn.Module):
    """SwiGLU: down(silu(gate(x)) · up(x))."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        hidden, ffn, bias = model.hidden_size, model.intermediate_size, model.mlp_bias
        self.gate_proj = Linear(hidden, ffn, bias=bias)
        self.up_proj = Linear(hidden, ffn, bias=bias)
        self.down_proj = Linear(ffn, hidden, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """Pre-norm decoder layer; the residual stream stays in the parameters' precision."""

    def __init__(self, model: ModelConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(model.hidden_size, model.rms_norm_eps)
        self.self_attn = Attention(model, layer)
        self.post_attention_layernorm = RMSNorm(model.hidden_size, model.rms_norm_eps)
        self.mlp = MLP(model)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, bounds: Tensor | None = None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, bounds)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Embedding, blocks and final norm: everything under `model.` in the state dict."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = Embedding(model.vocab_size, model.hidden_size)
        self.layers = nn.ModuleList(Block(model, layer) for layer in range(model.num_hidden_layers))
        self.norm = RMSNorm(model.hidden_size, model.rms_norm_eps)
        self.rope = Rope(model)


class TeleFLM(nn.Module):
    """The model: logits = lm_head(norm(h)) · logit multiplier, h from embedding · input multiplier.

    Both multipliers are 0-dim float64 tensors, because they move on a ramp.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = Linear(config.hidden_size, config.vocab_size)
        self.tie()
        self.set_multipliers(config.input_mult, config.logit_multiplier)

    def tie(self) -> None:
        """Have the head be the embedding where the model says so and both are here: at first, and
        after what makes parameters anew, as each would be one of its own."""
        ends_here = hasattr(self.model, "embed_tokens") and hasattr(self, "lm_head")
        if ends_here and not self.config.has_head:
            self.lm_head.weight = self.model.embed_tokens.weight

    def set_multipliers(self, input_multiplier: float, logit_multiplier: float) -> None:
        """Set what the embedding output and the logits are scaled by."""
        # Plain attributes, not buffers: .to(dtype) must not round them.
        device = next(self.parameters()).device
        self.input_multiplier = torch.tensor(input_multiplier, dtype=torch.float64, device=device)
        self.logit_multiplier = torch.tensor(logit_multiplier, dtype=torch.float64, device=device)

    def embed(self, tokens: Tensor) -> Tensor:
        """The residual stream (B, S, D) before the first layer, of token ids (B, S)."""
        embedded: Tensor = self.model.embed_tokens(tokens) * self.input_multiplier
        return embedded

    def layers(self, x: Tensor, length: int, starts: Tensor | None = None) -> Tensor:
        """The residual stream behind the layers, from the one before them, at positions 0 to
        length − 1, or where rows hold several texts (see `Batch`) at those of each."""
        if starts is None:
            (cos, sin), bounds = self.model.rope.tables(slice(0, length), x.device), None
        else:
            (cos, sin), bounds = self.model.rope.restarting(starts), text_bounds(starts)
        for block in self.model.layers:
            x = block(x, cos, sin, bounds)
        return x

    def hidden(self, tokens: Tensor, starts: Tensor | None = None) -> Tensor:
        """Final normed hidden states (B, S, D) of token ids (B, S); see `Batch`."""
        x = self.layers(self.embed(tokens), tokens.shape[1], starts)
        hidden: Tensor = self.model.norm(x)
        return hidden

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (B, S, V) of token ids (B, S)."""
        return self.lm_head(self.hidden(tokens)) * self.logit_multiplier
