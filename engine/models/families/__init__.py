"""Model families, one file each; see ``engine.models.family``."""
