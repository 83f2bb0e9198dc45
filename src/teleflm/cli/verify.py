"""teleflm verify."""

from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from teleflm.errors import CheckFailedError, MachineError
from teleflm.parallel.launcher import rank

if TYPE_CHECKING:
    from teleflm.certificate.record import Certificate


def verify(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A checkpoint, run or export.")],
    grown: Annotated[
        Path | None,
        typer.Argument(metavar="[DST]", help="The grown checkpoint, or an export of SRC."),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            metavar="tp=N,pp=N", help="Of the ranks under torchrun; dp is what is left of them."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Check a checkpoint's files, or certify a growth (SRC was grown to DST).

    The certificate compares logits, the tensors with what the lineage says, and the losses of 30
    further steps; a grown checkpoint keeps it. torchrun may start it. Exit code 1: not exact.

    Example: teleflm verify runs/nano grown
    """
    if grown is not None:
        certificate = _certified(source, grown, layout)
        if rank() == 0:
            _tell(source, grown, certificate, json)
    elif layout is not None:
        raise typer.BadParameter("it lays a certificate out; give DST too", param_hint="--layout")
    elif rank() == 0:
        _check_files(source, json)


def _check_files(path: Path, as_json: bool) -> None:
    from teleflm.checkpoint.load import find_checkpoint
    from teleflm.checkpoint.manifest import problems, read_manifest

    folder = find_checkpoint(path)
    found = list(problems(folder))
    count = len(read_manifest(folder).files)
    if as_json:
        record = {"checkpoint": str(folder), "whole": not found, "problems": found}
        typer.echo(dumps(record))
    elif not found:
        typer.echo(f"{folder}: whole, {count} files with the manifest's sizes and checksums")
    if found:
        raise CheckFailedError("; ".join(found))


def _certified(source: Path, grown: Path, layout: str | None) -> "Certificate":
    from teleflm.certificate.paths import certify_paths
    from teleflm.config.base import apply_overrides, build
    from teleflm.config.run import ParallelConfig
    from teleflm.parallel.world import world

    keys = layout.split(",") if layout is not None else []
    parallel = build(ParallelConfig, apply_overrides({}, keys), "--layout")
    with world() as (_, device):
        return certify_paths(source, grown, parallel, device)


def _tell(source: Path, grown: Path, certificate: "Certificate", as_json: bool) -> None:
    from teleflm.certificate.record import TRAJECTORY_BOUND

    function, trajectory = certificate.function, certificate.trajectory
    lines = [
        f"logits, float64: {function.max_relative_logit_error:.1e} "
        f"(bound {certificate.float64_bound:.0e})",
        f"logits, float32: {function.float32_max_relative_logit_error:.1e} "
        f"(bound {certificate.float32_bound:.0e})",
    ]
    if trajectory is not None:
        what = f"losses, {trajectory.steps} steps" if trajectory.steps else "loss before any step"
        lines.append(
            f"{what}: {trajectory.max_relative_loss_difference:.1e} (bound {TRAJECTORY_BOUND:.0e})"
        )
    if certificate.regrown is not None:
        lines.append(
            "tensors: bit for bit what the lineage says"
            if certificate.regrown
            else "tensors: not what the lineage says"
        )
    if certificate.tie is not None:
        lines.append(f"tie: {_TIES[certificate.tie]}")
    if certificate.first_difference is not None:
        lines.append(f"first difference: {certificate.first_difference}")
    if as_json:
        typer.echo(dumps(certificate.to_json()))
    else:
        typer.echo("\n".join(lines))
    _keep(grown, certificate)
    if not certificate.exact:
        why = "a figure is above its bound"
        if not certificate.promised_exact:
            why = "copies of layers are another function, and promise no other"
        raise CheckFailedError(f"{grown} is not {source} exactly: {why}")
    if not as_json:
        typer.echo("exact")


_TIES = {
    "kept": "the embedding is the head too, as before",
    "dropped": "the head is a matrix of its own now",
}


def _keep(grown: Path, certificate: "Certificate") -> None:
    """Keep a growth's certificate with what it made, where that can be written to."""
    from teleflm.checkpoint.certified import is_growth, keep_certificate
    from teleflm.checkpoint.manifest import MANIFEST, read_manifest

    if not certificate.operators or not (grown / MANIFEST).is_file():
        return
    if is_growth(read_manifest(grown)):
        try:
            keep_certificate(grown, certificate.to_json())
        except (OSError, MachineError) as error:
            typer.echo(f"{grown}: the certificate is not kept there ({error})", err=True)
