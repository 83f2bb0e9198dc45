"""Weights in 8 bits: what is rounded is the weights, and nothing else that anyone would notice."""

import pytest
import torch

from teleflm.checkpoint.open import load
from teleflm.errors import ConfigError
from teleflm.generation.decoder import IncrementalDecoder
from teleflm.generation.generate import generate
from teleflm.generation.int8 import Int8Linear
from teleflm.model.network import TeleFLM
from tests.families import network_of, relative_error, save

HAS_KERNELS = "fbgemm" in torch.backends.quantized.supported_engines
needs_kernels = pytest.mark.skipif(not HAS_KERNELS, reason="PyTorch without FBGEMM")


def rounded(weight: torch.Tensor) -> torch.Tensor:
    scales = weight.double().abs().amax(1, keepdim=True).clamp_min(1e-30) / 127
    return (weight / scales).round() * scales


@needs_kernels
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("shape", [(7, 5), (300, 200), (64, 3000)], ids=str)
def test_it_is_the_product_of_rounded_weights(shape: tuple[int, int], biased: bool) -> None:
    torch.manual_seed(0)
    weight = torch.randn(shape) * torch.logspace(-3, 3, shape[0])[:, None]
    weight[2] = 0.0
    bias = torch.randn(shape[0]) if biased else None
    # Rows of all sizes, one of zeros, and one number that outweighs all others of its row.
    x = torch.randn(2, 4, shape[1]) * torch.logspace(-6, 6, 8).view(2, 4, 1)
    x[1, 1] = 0.0
    x[0, 2, 0] = 50 * x[0, 2].abs().max()
    expected = x.double() @ rounded(weight).T + (0.0 if bias is None else bias.double())
    found = Int8Linear(weight, bias)(x)
    assert found.dtype is torch.float32
    scale = x.double().abs().amax(-1, keepdim=True) * weight.double().abs().sum(1)
    scale += 1e-30 if bias is None else bias.abs()
    assert ((found - expected).abs() / scale).max() < 1e-4


@needs_kernels
def test_sums_of_the_largest_numbers_do_not_overflow() -> None:
    """Without VNNI pairs of products are added up in 16 bits, which saturate in silence."""
    weight, x = torch.ones(32, 512), torch.ones(3, 512)
    assert (Int8Linear(weight, None)(x) - 512).abs().max() < 0.05


@needs_kernels
def test_no_row_changes_another_one_s_result() -> None:
    torch.manual_seed(1)
    linear = Int8Linear(torch.randn(96, 64), None)
    x = torch.randn(16, 64) * torch.logspace(-4, 4, 16)[:, None]
    together = linear(x)
    for row, expected in zip(x, together, strict=True):
        assert torch.equal(linear(row[None])[0], expected)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> TeleFLM:
    return load(save(network_of("biased", torch.float32), tmp_path_factory.mktemp("model")))


@needs_kernels
def test_a_decoder_reads_them(network: TeleFLM) -> None:
    prompts = [[5, 6, 7], [9] * 20]
    with torch.inference_mode():
        logits, _ = IncrementalDecoder(network).begin(prompts)
        found, _ = IncrementalDecoder(network, "int8").begin(prompts)
    decoder = IncrementalDecoder(network, "int8")

    assert 1e-4 < relative_error(found, logits) < 0.05
    # All of its products: the embedding and the gains stay.
    assert all(isinstance(layer._down, Int8Linear) for layer in decoder._layers)
    assert isinstance(decoder._head, Int8Linear)
    # Whole numbers add up to the same in any order, so that a batch changes no bit of a product.
    assert generate(decoder, prompts, 12) == [generate(decoder, [p], 12)[0] for p in prompts]


def test_the_engine_in_force_stays(network: TeleFLM) -> None:
    before = torch.backends.quantized.engine
    if HAS_KERNELS:
        IncrementalDecoder(network, "int8")
    assert torch.backends.quantized.engine == before


def test_without_kernels_it_says_so(network: TeleFLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("teleflm.generation.int8._ENGINE", "another")
    with pytest.raises(ConfigError, match=r"int8 weights need .* take bf16 or fp32"):
        IncrementalDecoder(network, "int8")
    with pytest.raises(ConfigError, match="for a CPU"):
        Int8Linear(torch.empty(3, 3, device="meta"), None)
