"""Defaults of every run, chosen for CPUs. A flag on the command line wins over them."""

GPUS_PER_PREDICTOR = 0.0
CPUS_PER_DECODER = 0.5  # of 1 at the most; two decoding tasks share a CPU: one reads while the other computes
PRECISION = "float32"  # of the model's arithmetic: float32 or bfloat16
TRAIN_ON_GPU = False
MAX_FAILURE_RATE = 0.01  # of the rows; above it `predict` exits with code 1
