"""Launchers: start a run's processes, on one machine or under SLURM."""
