"""What every recipe shares: a run, its roles, its records and its result."""
