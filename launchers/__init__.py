"""How processes come to life: on one machine, or under SLURM."""
