"""The learning-rate schedule: the share of the peak at each step of a run."""

import math

from teleflm.config.run import ScheduleConfig


def rate_factor(schedule: ScheduleConfig, step: int, steps: int) -> float:
    """The share of the peak rate for the update from `step` to the next.

    Args:
        schedule: its kind and lengths; a warm-up longer than that is clamped to it.
        step: the run's own step, from 0.
        steps: the run's number of steps, which the decay is laid out on unless `total_steps` is.
    """
    total = schedule.total_steps or steps
    warmup = min(schedule.warmup_steps, total)
    if step < warmup:
        return (step + 1) / warmup
    if schedule.kind == "wsd":
        start = total - round(total * schedule.decay_fraction)
        done = (step + 1 - start) / max(total - start, 1)
        return 1.0 - (1.0 - schedule.min_ratio) * min(max(done, 0.0), 1.0)
    if schedule.kind == "linear":
        # The last of its steps has the least rate.
        done = min((step - warmup) / max(total - 1 - warmup, 1), 1.0)
        return 1.0 - (1.0 - schedule.min_ratio) * done
    done = min((step - warmup) / max(total - warmup, 1), 1.0)
    return schedule.min_ratio + (1.0 - schedule.min_ratio) * 0.5 * (1.0 + math.cos(math.pi * done))
