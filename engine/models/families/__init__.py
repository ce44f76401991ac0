"""One file for each model family; see ``engine.models.family``."""
