"""Executors, which run the jobs of a study: in this process, worker processes, Ray, Slurm."""
