"""What is private to PyTorch and used all the same: where it has moved, this says so first."""

import ast
import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.testing._internal.distributed.fake_pg import FakeStore

import teleflm
from teleflm.parallel import in_flight

SOURCES = Path(teleflm.__file__).parent
_PIPELINE = "torch.distributed.pipelining.PipelineStage"
# By name, the parameters that we count on, in their order; None where there is no more to know.
PRIVATE: dict[str, tuple[str, ...] | None] = {
    # The step.
    "torch._foreach_norm": None,
    "torch._fused_rms_norm": None,
    # Weights in 8 bits.
    "torch._make_per_channel_quantized_tensor": None,
    # Meshes.
    "torch.distributed.distributed_c10d._set_pg_timeout": ("timeout", "group"),
    # The dry run.
    "torch._subclasses.fake_tensor.FakeTensorMode": ("allow_non_fake_inputs",),
    "torch.testing._internal.distributed.fake_pg.FakeStore": None,
    "torch.distributed.distributed_c10d._resolve_process_group": None,
    "torch.distributed.tensor._op_schema.OpSchema": None,
    "torch.distributed.tensor._sharding_prop.ShardingPropagator": None,
    "torch.distributed.tensor._sharding_prop.ShardingPropagator"
    "._propagate_tensor_meta_non_cached": ("self", "op_schema"),
    "torch.utils._python_dispatch.TorchDispatchMode": None,
    "torch.utils._python_dispatch._disable_current_modes": (),
    "torch.utils._pytree.tree_leaves": ("tree",),
}
# The same of objects, whose uses no import tells of.
OF_OBJECTS = (
    "torch.ops.aten.mm.default._overloadpacket",
    "torch.UntypedStorage._cdata",
    "torch.ScriptObject._type",
)
# Methods of a pipeline stage that ours overrides; those of PyTorch < 2.15 only where they count.
OVERRIDDEN: dict[str, tuple[str, ...]] = {
    "_prepare_forward_infra": ("self", "num_microbatches", "args", "kwargs"),
    "_prepare_backward_infra": ("self", "num_microbatches"),
    "_get_recv_ops": ("self", "recv_infos"),
    "_retrieve_recv_activations": ("self", "fwd_chunk_id"),
    "_retrieve_recv_grads": ("self", "bwd_chunk_id"),
    "backward_one_chunk": ("self", "bwd_chunk_id", "loss", "full_backward"),
    "backward_weight_one_chunk": ("self", "bwd_chunk_id"),
}
# Those that a dry run does some of, and counts the others.
COUNTED: dict[str, tuple[str, ...]] = {
    "forward_maybe_with_nosync": ("self",),
    "backward_maybe_with_nosync": ("self", "backward_type"),
}
LATE = ("backward_one_chunk",)
METHODS = LATE if in_flight.LETS_GO else tuple(OVERRIDDEN)
ATTRIBUTES = {"has_backward", in_flight._KEPT} | (
    set() if in_flight.LETS_GO else {"device", "args_recv_info", "grad_recv_info"}
)


def found(name: str) -> Any:
    """The object of a dotted name that begins with modules."""
    parts = name.split(".")
    thing: Any = import_module(parts[0])
    for index, part in enumerate(parts[1:], start=2):
        if not hasattr(thing, part):
            try:
                import_module(".".join(parts[:index]))
            except ImportError:
                pytest.fail(f"PyTorch {torch.__version__} has no {'.'.join(parts[:index])}")
        thing = getattr(thing, part)
    return thing


def has_moved(name: str, expected: tuple[str, ...] | None) -> str:
    """What is wrong with it, or nothing."""
    thing = found(name)
    if expected is None:
        return ""
    parameters = tuple(inspect.signature(thing).parameters)
    if inspect.isclass(thing):
        missing = [parameter for parameter in expected if parameter not in parameters]
        return f"PyTorch {torch.__version__}: {name} has no parameter {missing}" if missing else ""
    if parameters[: len(expected)] == expected:
        return ""
    return f"PyTorch {torch.__version__}: {name} takes {parameters} and not {expected}"


@pytest.mark.parametrize("name", [*PRIVATE, *OF_OBJECTS])
def test_it_is_where_it_was(name: str) -> None:
    assert not has_moved(name, PRIVATE.get(name))


@pytest.mark.parametrize("name", [*METHODS, *COUNTED])
def test_a_pipeline_calls_what_ours_overrides(name: str) -> None:
    assert not has_moved(f"{_PIPELINE}.{name}", (OVERRIDDEN | COUNTED)[name])


def test_a_stage_of_a_pipeline_has_what_ours_uses() -> None:
    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    try:
        example = torch.empty(1, device="meta")
        stage = in_flight.InFlightStage(
            nn.Identity(), 0, 2, torch.device("cpu"), input_args=example, output_args=example
        )
        missing = {name for name in ATTRIBUTES if not hasattr(stage, name)}
    finally:
        dist.destroy_process_group()
    assert not missing, f"PyTorch {torch.__version__}: {_PIPELINE} has no {', '.join(missing)}"


def test_what_has_moved_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "takes ('tensors',) and not ('loss',)" in has_moved(f"{__name__}.as_moved", ("loss",))
    with pytest.raises(pytest.fail.Exception, match=r"has no torch\._no_such_name"):
        found("torch._no_such_name.at_all")


def as_moved(tensors: Any) -> None:
    """Stands for a function whose parameters are others now."""


# --- nothing else is used


def test_the_table_is_what_is_used() -> None:
    used = {name for path in SOURCES.rglob("*.py") for name in private_names(path)}
    assert used == set(PRIVATE)


def private_names(path: Path) -> set[str]:
    """What of torch a file uses by a name that has a part with an underscore before it.

    PyTorch's operators are left out: their names are those of its saved programs.
    """
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    homes = {"torch": "torch"}
    for node in nodes:
        if isinstance(node, ast.Import):
            homes |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            homes |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    names = set(homes.values())
    for chain in (ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)):
        head, _, rest = chain.partition(".")
        names.add(f"{homes.get(head, '')}.{rest}")
    private = re.compile(r"torch(?!\.ops\.)(\.\w+)*\._(?!_)\w+(\.\w+)*")
    return {name for name in names if private.fullmatch(name)}
