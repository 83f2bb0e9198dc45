"""What happens beside the step, one concern a hook."""
