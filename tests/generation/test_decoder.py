"""The decoder is the network, in every precision and moment of a ramp, to the last position."""

from typing import Any

import pytest
import torch
from torch import Tensor

from teleflm.config.model import ModelConfig
from teleflm.generation.decoder import IncrementalDecoder
from teleflm.generation.product import packed, product
from teleflm.model.init import build_model, initial_state
from teleflm.model.network import Embedding, Linear, RMSNorm, TeleFLM

CONTEXT = 24
PROMPT = 7


def network_of(groups: int, dtype: torch.dtype) -> TeleFLM:
    """A network none of whose parts is the identity: gains, both multipliers, a head_dim apart."""
    model = ModelConfig.model_validate(
        {
            "vocab_size": 40,
            "hidden_size": 36,
            "intermediate_size": 52,
            "num_hidden_layers": 3,
            "num_attention_heads": 6,
            "num_key_value_heads": groups,
            "head_dim": 10,
            "max_position_embeddings": CONTEXT,
            "rms_norm_eps": 1e-2,
            "input_mult": 1.7,
            "output_mult": 0.3,
        }
    )
    generator = torch.Generator().manual_seed(3)
    state = {
        name: 8 * w if w.dim() == 2 else w + 0.3 * torch.randn(w.shape, generator=generator)
        for name, w in initial_state(model, seed=2).items()
    }
    return build_model(model, state, dtype)


def hold_back(network: TeleFLM) -> None:
    """Masks wherever a module can have one, each entry another."""
    generator = torch.Generator().manual_seed(4)

    def mask(like: Tensor, size: int) -> Tensor:
        return torch.rand(size, generator=generator).to(like)

    for module in network.modules():
        if isinstance(module, RMSNorm):
            module.width_fraction = torch.tensor(0.6).to(module.weight)
        if isinstance(module, Linear):
            module.row_mask = mask(module.weight, module.out_features)
        if isinstance(module, Linear | Embedding):
            module.column_mask = mask(module.weight, module.weight.shape[1])


def tokens() -> Tensor:
    """Token ids of two rows as long as the context."""
    return torch.randint(40, (2, CONTEXT), generator=torch.Generator().manual_seed(5))


def steps(network: TeleFLM, **how: Any) -> Tensor:
    """The decoder's logits (B, steps, V) behind prompts, then one by one up to the end."""
    decoder = IncrementalDecoder(network, **how)
    with torch.inference_mode():
        first, cache = decoder.begin(tokens()[:, :PROMPT].tolist())
        more = [decoder.step(column.tolist(), cache) for column in tokens()[:, PROMPT:].T]
        return torch.stack([first, *more], dim=1)


@pytest.mark.parametrize("masked", [False, True], ids=["ordinary", "in a ramp"])
@pytest.mark.parametrize("groups", [6, 2, 1])
@pytest.mark.parametrize("many_rows", [False, True], ids=["as they lie", "for many rows"])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_its_logits_are_the_network_s(
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype,
    bound: float,
    groups: int,
    masked: bool,
    many_rows: bool,
) -> None:
    # The product of large weights, on small ones.
    monkeypatch.setattr("teleflm.generation.product._LARGE", 0)
    network = network_of(groups, dtype)
    if masked:
        hold_back(network)
    with torch.inference_mode():
        expected = network(tokens())[:, PROMPT - 1 :]
    logits = steps(network, many_rows=many_rows)
    assert logits.dtype is dtype
    assert (logits - expected).abs().max() < bound * expected.abs().max()


@pytest.mark.parametrize("masked", [False, True], ids=["ordinary", "in a ramp"])
def test_it_follows_autocast(masked: bool) -> None:
    network = network_of(2, torch.float32)
    if masked:
        hold_back(network)
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        logits = steps(network)
        rounded = network(tokens())[:, PROMPT - 1 :]
    exact = steps(network)
    assert logits.dtype is torch.bfloat16
    # The same roundings, and not those of another place: far closer to it than to float32.
    error = (rounded - exact).abs().mean()
    assert (logits - rounded).abs().mean() < 0.1 * error


def test_weights_are_read_where_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    """No copy of an ordinary network: what the products read are its parameters."""
    read: set[int] = set()

    def spy(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        read.add(weight.data_ptr())
        return product(x, weight, bias)

    monkeypatch.setattr("teleflm.generation.decoder.product", spy)
    network = network_of(2, torch.float32)
    steps(network)
    linears = [module for module in network.modules() if isinstance(module, Linear)]
    assert read == {linear.weight.data_ptr() for linear in linears}


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch without oneDNN")
def test_the_private_operators_are_where_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without them text is right and takes twice as long."""
    x, weight = torch.randn(2, 1, 256), torch.randn(1024, 256)
    expected = x @ weight.T
    monkeypatch.setattr("torch.nn.functional.linear", None)
    assert packed(weight).is_mkldnn
    for each in (weight, packed(weight)):
        assert (product(x, each) - expected).abs().max() < 1e-4
