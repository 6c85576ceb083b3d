"""A real Slurm cluster on this one machine, for tests: every host in namespaces of its own."""
