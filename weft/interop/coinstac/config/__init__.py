"""Numbers and file names that code for coinstac-dinunet looks up, and, in `keys`, its words."""

import sys

metrics_eps = 1e-5
metrics_num_precision = 5
score_delta = 1e-4
max_size = sys.maxsize
grads_file = "grads.npz"
avg_grads_file = "avg_grads.npz"
weights_file = "weights.tar"
