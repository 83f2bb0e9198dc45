"""What a certificate holds: figures, bounds and the verdict."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

FP64_BOUND, FP32_BOUND, TRAJECTORY_BOUND = 1e-12, 1e-5, 1e-12


@dataclass(frozen=True)
class FunctionError:
    """max |Δ logit| / max |parent's logit| in float64 and in float32.

    Attributes:
        float32_rounding: the same of the parent against itself, float32 against float64.
        layers: max |Δ| / max |parent's| of the residual stream in float64, behind the embedding and
            behind each of the parent's layers; empty where the two have no common lineage.
    """

    max_relative_logit_error: float
    dtype: str
    float32_max_relative_logit_error: float
    float32_rounding: float
    layers: tuple[float, ...] = ()


@dataclass(frozen=True)
class TrajectoryError:
    """The largest relative difference of the losses over `steps` further updates."""

    steps: int
    max_relative_loss_difference: float


@dataclass(frozen=True)
class Certificate:
    """What was measured, and the verdict.

    Attributes:
        function: what became of the logits.
        trajectory: what becomes of the losses; None for models without moments, or too large to
            train here.
        operators: what the model was grown by, as its lineage tells.
        regrown: whether every tensor is, bit for bit, what these growths make of the parent's;
            None where the lineage does not lead from the parent to it.
        rounded: whether the two are compared by weights that were rounded to float32.
        tie: of a parent whose embedding is its head, what became of that: `kept`, or `dropped`;
            None where nothing was tied.
        layout: how the ranks that measured it stood: `tp`, `pp` and `dp`.
    """

    function: FunctionError
    trajectory: TrajectoryError | None
    operators: tuple[str, ...] = ()
    regrown: bool | None = None
    rounded: bool = False
    tie: Literal["kept", "dropped"] | None = None
    layout: dict[str, int] = field(default_factory=dict)

    @property
    def promised_exact(self) -> bool:
        """Whether the operators claim to keep the function."""
        return "copy" not in self.operators

    @property
    def float64_bound(self) -> float:
        """The bound on the float64 error."""
        return FP32_BOUND if self.rounded else FP64_BOUND

    @property
    def float32_bound(self) -> float:
        """The bound on the float32 error; of a model that is itself sensitive to rounding, ten
        times what float32 does to it."""
        return max(FP32_BOUND, 10 * self.function.float32_rounding)

    @property
    def first_difference(self) -> str | None:
        """Where the two are first further apart than rounding; None where they nowhere are."""
        for number, error in enumerate(self.function.layers):
            if error > self.float64_bound:
                return f"layer {number - 1}" if number else "embedding"
        if self.function.max_relative_logit_error > self.float64_bound:
            return "head" if self.function.layers else "logits"
        return None

    @property
    def exact(self) -> bool:
        """Whether every figure is within rounding."""
        trajectory = self.trajectory
        return (
            self.regrown is not False
            and self.function.max_relative_logit_error <= self.float64_bound
            and self.function.float32_max_relative_logit_error <= self.float32_bound
            and (trajectory is None or trajectory.max_relative_loss_difference <= TRAJECTORY_BOUND)
        )

    def to_json(self) -> dict[str, Any]:
        """The keys that `verify --json` prints: the figures, the bounds and the verdict."""
        bounds = {
            "function": self.float64_bound,
            "float32_function": self.float32_bound,
            "trajectory": TRAJECTORY_BOUND,
        }
        return {
            **asdict(self),
            "bounds": bounds,
            "first_difference": self.first_difference,
            "promised_exact": self.promised_exact,
            "exact": self.exact,
        }
