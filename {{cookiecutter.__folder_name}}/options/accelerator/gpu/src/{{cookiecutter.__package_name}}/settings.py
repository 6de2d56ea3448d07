"""Defaults of every run, chosen for GPUs. A flag on the command line wins over them."""

GPUS_PER_PREDICTOR = 1.0
CPUS_PER_DECODER = 0.5  # of 1 at the most; two decoding tasks share a CPU: one reads while the other computes
PRECISION = "bfloat16"  # of the model's arithmetic on a GPU; a CPU always uses float32
TRAIN_ON_GPU = True
MAX_FAILURE_RATE = 0.01  # of the rows; above it `predict` exits with code 1
