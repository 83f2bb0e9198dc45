"""How good `teleflm predict` is: its interval, its reach, and its error on real runs.

Runs: of each size from the sixth on, what the smaller ones say of it, beside half of the drop from
the size before and beside repeating that one's loss, with parameters counted in both ways.

    python benchmarks/prediction.py RUN…

Intervals: losses drawn from a law, and how often a new run lies in the interval from each draw,
beside bootstraps of residuals. The width is by that of an interval which knows the law.

    python benchmarks/prediction.py --of intervals

Distance: the same where the loss falls by two powers of the size, which the sizes cannot tell from
one; and nanoLM's points with as many left out as leaves five, where they are at hand.

    python benchmarks/prediction.py --of distance [--points FILE.json]
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path

import numpy as np

from teleflm.config.model import ModelConfig
from teleflm.errors import TeleflmError
from teleflm.model.axes import Axis, parameters_of
from teleflm.prediction.alike import check_alike, common_kind
from teleflm.prediction.law import Array, Fits, fit
from teleflm.prediction.predict import FEWEST, Point, predict, read_points
from teleflm.prediction.runs import MILLION, read_run

NORMAL = 1.6449
# The first eight of nanoLM's.
SIZES = np.array([8.53, 21.56, 39.09, 61.12, 87.65, 118.68, 154.21, 194.24])
# a, b and a floor; the second has a further power that falls more slowly, the third a faster one.
ONE, SLOWER, FASTER = ((2.469, -0.4231),), ((2.2, -0.45), (0.8, -0.1)), ((2.2, -0.45), (1.0, -0.8))


def loss(powers: Sequence[tuple[float, float]], sizes: Array | float) -> Array:
    """Nats a token of sizes in millions."""
    return 2.9 + np.sum([a * np.asarray(sizes) ** b for a, b in powers], axis=0)


def drawn(
    powers: Sequence[tuple[float, float]], times: float, noise: float, draws: int
) -> tuple[Array, Array]:
    """Losses of the sizes, (draws, 8), and of a new run of so many times the largest, (draws,)."""
    random = np.random.default_rng(0)
    losses = loss(powers, SIZES) + noise * random.standard_normal((draws, len(SIZES)))
    at = loss(powers, times * SIZES[-1])
    return losses, at + noise * random.standard_normal(draws)


def bootstrap(losses: Array, at: float, factor: float, noisy: bool) -> tuple[Array, Array]:
    """Percentile intervals of 400 fits to resampled residuals.

    Args:
        factor: of the residuals.
        noisy: a residual is added to what each says, so that the interval is for a new run.
    """
    random, ends = np.random.default_rng(1), []
    found = fit(SIZES, losses)
    law = found.a[:, None] * SIZES ** found.b[:, None] + found.c[:, None]
    for fitted, own in zip(law, losses, strict=True):
        residuals = factor * (own - fitted)
        picked = random.choice(residuals, (400, len(SIZES) + 1))
        said = fit(SIZES, fitted + picked[:, :-1]).at(at) + (picked[:, -1] if noisy else 0.0)
        ends.append(np.quantile(said, [0.05, 0.95]))
    low, high = np.array(ends).T
    return low, high


def intervals(draws: int) -> Iterator[str]:
    """Coverage and width of each kind of interval."""
    yield f"{'interval':44} {'times':>6} {'noise':>6} {'holds':>7} {'width':>6}"
    for times in (2.0, 7.4, 20.0):
        for noise in (0.002, 0.007, 0.03):
            losses, new = drawn(ONE, times, noise, draws)
            found = fit(SIZES, losses).interval(times * SIZES[-1])
            yield _row("profile likelihood", times, noise, found, new)
    losses, new = drawn(ONE, 7.4, 0.007, min(draws, 300))
    inflated = (8 / 5) ** 0.5
    for name, factor, noisy in (
        ("bootstrap of the law", 1.0, False),
        ("bootstrap of a new run", 1.0, True),
        ("the same, residuals × √(n / (n − 3))", inflated, True),
    ):
        found = bootstrap(losses, 7.4 * SIZES[-1], factor, noisy)
        yield _row(name, 7.4, 0.007, found, new)


def _row(name: str, times: float, noise: float, ends: tuple[Array, Array], new: Array) -> str:
    low, high = ends
    holds = ((low <= new) & (new <= high)).mean()
    width = np.median(high - low) / (2 * NORMAL * noise)
    return f"{name:44} {times:6g} {noise:6g} {holds:7.1%} {width:6.2f}"


def distance(draws: int, points: Path | None) -> Iterator[str]:
    """How far a law that is not quite one carries."""
    yield f"{'a further power':18} {'times':>6} {'error':>7}  holds, at a noise of 0.002 and 0.01"
    for name, powers in (("none", ONE), ("slower", SLOWER), ("faster", FASTER)):
        for times in (2, 4, 8, 16, 32, 64):
            shares, error = [], 0.0
            for noise in (0.002, 0.01):
                losses, new = drawn(powers, times, noise, draws)
                found = fit(SIZES, losses)
                low, high = found.interval(times * SIZES[-1])
                shares.append(f"{((low <= new) & (new <= high)).mean():6.1%}")
                error = float(np.median(_off(found, times, powers)))
            yield f"{name:18} {times:6} {error:+7.2%}  {' '.join(shares)}"
    if points is None:
        return
    known = read_points(points)
    yield f"\n{points}: error at each size, by the number of the smallest that are fitted"
    for kept in range(FEWEST, len(known)):
        left = predict(known, known[kept].size, leave=len(known) - kept).left_out
        largest = known[kept - 1].size
        yield f"{kept}: " + ", ".join(
            f"{each.relative_error:+.2%} at {each.parameters_million / largest:.1f}×"
            for each in left
        )


def _off(found: Fits, times: float, powers: Sequence[tuple[float, float]]) -> Array:
    at = times * SIZES[-1]
    return found.at(at) / loss(powers, at) - 1


def without_vocabulary(model: ModelConfig) -> float:
    """Millions of parameters but those of embedding and head."""
    inner = {name: row for name, row in parameters_of(model).items() if Axis.VOCAB not in row.axes}
    return sum(
        prod(row.shape(model)) * (model.num_hidden_layers if "*" in name else 1) / MILLION
        for name, row in inner.items()
    )


def of_runs(folders: Sequence[Path]) -> Iterator[str]:
    """The error at each of the largest sizes, and what it is to be below."""
    runs = sorted((read_run(folder) for folder in folders), key=lambda run: run.size)
    for warning in check_alike(runs):
        yield f"warning: {warning}"
    kind = common_kind(runs)
    counts = {
        "all parameters": {id(run): run.size for run in runs},
        "without embedding and head": {
            id(run): without_vocabulary(run.manifest.model) for run in runs
        },
    }
    for name, sizes in counts.items():
        yield f"\n{name}, {kind} loss"
        yield (
            f"{'M':>9} {'smaller':>7} {'measured':>8} {'said':>8} {'error':>7} {'nats':>8} "
            f"{'half drop':>9} {'last loss':>9}  90 %"
        )
        points = [Point(str(run.path), sizes[id(run)], run.loss(kind)) for run in runs]
        yield from _errors(points)


def _errors(points: Sequence[Point]) -> Iterator[str]:
    sizes = sorted({point.size for point in points})
    for kept in range(FEWEST, len(sizes)):
        some = [point for point in points if point.size <= sizes[kept]]
        (each,) = predict(some, sizes[kept], leave=1).left_out
        before = np.mean([point.loss for point in points if point.size == sizes[kept - 1]])
        drop, off = before - each.loss, abs(each.prediction - each.loss)
        low, high = each.interval
        yield (
            f"{each.parameters_million:9.4g} {kept:7} {each.loss:8.4f} {each.prediction:8.4f} "
            f"{each.relative_error:+7.2%} {off:8.4f} {drop / 2:9.4f} {drop:9.4f}  "
            f"{low:.4f} to {high:.4f}{'' if off <= drop / 2 else ', not within half the drop'}"
        )


def main(command_line: list[str] | None = None) -> int:
    """Measure and print; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN")
    parser.add_argument("--of", choices=("intervals", "distance"))
    parser.add_argument("--points", type=Path)
    parser.add_argument("--draws", type=int, default=1000)
    given = parser.parse_args(command_line)
    if bool(given.runs) == bool(given.of):
        parser.error("give run folders, or --of")
    if given.runs:
        lines = of_runs(given.runs)
    elif given.of == "intervals":
        lines = intervals(given.draws)
    else:
        lines = distance(given.draws, given.points)
    try:
        for line in lines:
            print(line, flush=True)
    except TeleflmError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
