"""The machine that trains, samples and scores; it knows nothing of any particular recipe."""
