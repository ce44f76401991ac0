"""Look at everything that a run is given before anything costly starts."""
