"""Gradients and steps on any layout are those of one process.

Wrong gradients where axes compose are the field's silent failure: so every axis alone, every pair
and every triple, with what else can be at work there switched on and off.
"""

from itertools import product
from typing import Any

import pytest

from teleflm.config.run import ParallelConfig
from teleflm.parallel.layout import Layout
from tests.distributed.parity import Case, compare
from tests.distributed.world import World

SINGLE = {
    "tp": Layout(tp=4),
    "pp": Layout(pp=4),
    "dp-shard": Layout(dp_shard=4),
    "dp-replicate": Layout(dp_replicate=4),
}
COMPOSED = {
    "tp-pp": Layout(tp=4, pp=2),
    "tp-dp-shard": Layout(tp=2, dp_shard=4),
    "tp-dp-replicate": Layout(tp=4, dp_replicate=2),
    "pp-dp-shard": Layout(pp=4, dp_shard=2),
    "pp-dp-replicate": Layout(pp=2, dp_replicate=4),
    "dp-shard-dp-replicate": Layout(dp_shard=4, dp_replicate=2),
    "tp-pp-dp-shard": Layout(tp=2, pp=2, dp_shard=2),
    "tp-pp-dp-replicate": Layout(tp=2, pp=2, dp_replicate=2),
    "tp-dp-shard-dp-replicate": Layout(tp=2, dp_shard=2, dp_replicate=2),
    "pp-dp-shard-dp-replicate": Layout(pp=2, dp_shard=2, dp_replicate=2),
}
TWO_EACH = Layout(tp=2, pp=2, dp_shard=2, stages_per_rank=2)
FULL = ParallelConfig(activation_checkpointing="full")
SELECTIVE = ParallelConfig(activation_checkpointing="selective")
ALL = {"splits_batch": True, "ramp": True, "clip": 0.05}
# In doubt everything at once: what composes wrongly shows.
WORK: dict[str, dict[str, Any]] = {
    "plain": {},
    "all": {**ALL, "parallel": FULL},
    "all-fp32": {**ALL, "parallel": SELECTIVE, "dtype": "fp32"},
}
CASES = [
    Case(f"{axes}:{name}", layout, **work)
    for (axes, layout), (name, work) in product({**SINGLE, **COMPOSED}.items(), WORK.items())
]
CASES += [
    Case(f"{kind}:{name}", TWO_EACH, **{**work, "parallel": ParallelConfig(schedule=kind)})
    for kind, (name, work) in product(("interleaved", "zero_bubble"), WORK.items())
]
BIASES = ("qkv_bias", "o_bias", "mlp_bias")
FEATURES = {"tied": ("tie_word_embeddings",), "biased": BIASES, "normed": ("qk_norm",)}
CASES += [
    Case(f"tp-pp-dp-shard:{feature}:{name}", COMPOSED["tp-pp-dp-shard"], features=on, **WORK[name])
    for (feature, on), name in product(FEATURES.items(), ("plain", "all"))
]
EVERY: dict[str, Any] = {**ALL, "features": sum(FEATURES.values(), ()), "kinds": True}
CASES += [Case(f"{axis}:features", layout, **EVERY) for axis, layout in SINGLE.items()]
CASES += [
    Case(f"{kind}:features", TWO_EACH, parallel=ParallelConfig(schedule=kind), **EVERY)
    for kind in ("interleaved", "zero_bubble")
]
COMPILED: dict[str, Any] = {**ALL, "dtype": "fp32", "compiled": True}
CASES.append(Case("tp-dp-shard:compiled", Layout(tp=2, dp_shard=2), **COMPILED))
# Once more, with what is on disk by then: code of another rank would give other gradients.
CASES.append(Case("tp-dp-shard:compiled-again", Layout(tp=2, dp_shard=2), **COMPILED))
# Several texts a row, and ranks without a target that counts: by every axis, and every pair.
TEXTS: dict[str, Any] = {**EVERY, "texts": True}
CASES += [
    Case(f"{axes}:texts", {**SINGLE, **COMPOSED}[axes], **TEXTS)
    for axes in ("tp", "pp", "dp-shard", "tp-pp", "tp-dp-shard", "pp-dp-shard")
]
CASES += [
    Case(f"{kind}:texts", TWO_EACH, parallel=ParallelConfig(schedule=kind), **TEXTS)
    for kind in ("interleaved", "zero_bubble")
]
# Gradients at equal weights, and values after three steps.
BOUNDS = {"fp64": (1e-12, 1e-11), "fp32": (1e-5, 1e-5)}


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_gradients_and_steps_are_those_of_one_process(
    four: World, eight: World, case: Case
) -> None:
    gradients, values = BOUNDS[case.dtype]
    world = four if case.layout.ranks == 4 else eight
    for worst in world.run(compare, case):
        assert worst["gradients"] <= gradients
        assert worst["values"] <= values
        assert worst["losses"] <= gradients
        assert worst["apart"] == 0
        assert worst["evaluation"] <= gradients
