"""How the ranks are laid out: process groups, this rank's place among them, seeds."""
