"""Numbers and file names that code for coinstac-dinunet looks up, and, in `keys`, its words."""

import sys
from typing import Any

metrics_eps = 1e-5
metrics_num_precision = 5
score_delta = 1e-4
grad_precision_bit = 32
max_size = sys.maxsize
min_batch_size = 4
current_seed = 0  # where nobody gives one; runs can be repeated
score_high = 1.0
score_low = 0.0
grad_file_ext = ".npz"
grads_file = "grads.npz"
avg_grads_file = "avg_grads.npz"
weights_file = "weights.tar"


def boolean_string(s: object) -> bool:
    """Whether a text says true."""
    return str(s).strip().lower() == "true"


def __getattr__(name: str) -> Any:
    if name in ("CUDA_AVAILABLE", "NUM_GPUS", "gpu_available", "num_gpus"):  # the small ones up to release 2.2
        import torch  # asking costs seconds: only who asks pays

        return torch.cuda.device_count() if name.lower() == "num_gpus" else torch.cuda.is_available()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
