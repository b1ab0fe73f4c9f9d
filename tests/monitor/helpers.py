"""A small run, and servers that listen to what a run tells."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np


def small_experiment(folder: Path, **run: Any) -> dict[str, Any]:
    """An experiment of two epochs on 60 random rows, with settings of its run section."""
    random = np.random.default_rng(0)
    inputs = random.normal(size=(60, 4)).astype(np.float32)
    np.save(folder / "inputs.npy", inputs)
    np.save(folder / "targets.npy", (inputs.sum(1) > 0).astype(np.int64))
    return {
        "name": "small",
        "dataset": {
            "arrays": {"inputs": str(folder / "inputs.npy"), "targets": str(folder / "targets.npy")},
            "split": {"ratio": [0.6, 0.2, 0.2]},
        },
        "model": {"MLP": {"in_features": 4, "out_features": 2, "hidden": [8]}},
        "training": {"task": "classification", "epochs": 2, "batch_size": 16},
        "run": {"progress": False, "tensorboard": False, "num_workers": 0, "device": "cpu", **run},
    }


@contextmanager
def web_server(received: list[dict[str, Any]], release: threading.Event | None = None) -> Iterator[int]:
    """A server that keeps the JSON posted to it; with `release`, it answers only once that is set. Yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append(json.loads(body))
            if release is not None:
                release.wait(60)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        if release is not None:
            release.set()
        server.shutdown()
        server.server_close()
