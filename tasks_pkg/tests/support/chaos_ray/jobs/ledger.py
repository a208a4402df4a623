"""The ledger, as a job sees it: the same lines as in ``chaos_tasks``."""

import os
import time

from ray_jobs.protocol import JobRequest


def write(request: JobRequest, what: str, key: str) -> None:
    ledger = f"{request.datasets_dir}/chaos/ledger"
    descriptor = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, f"{what} {key} {os.getpid()} {time.time():.6f}\n".encode())
    finally:
        os.close(descriptor)
