"""The bit-accurate model of the throttle: numpy and the standard library, nothing else."""
