"""Code files that `teleflm` exports carry; copied as they are, never imported by us."""
