"""Training in several processes, as `torchrun` starts them; alone, this one is number 0 of 1."""

from __future__ import annotations

import os
from datetime import timedelta

import torch
from torch import distributed

# The others wait while process 0 does what is done once: features, tests, figures
PATIENCE = timedelta(hours=12)


def join() -> None:
    """Meet the other processes if `torchrun` started this one: NCCL between GPUs, else gloo."""
    if "WORLD_SIZE" not in os.environ or distributed.is_initialized():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo", None, PATIENCE)


def leave() -> None:
    """Part from the other processes."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def count() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def wait() -> None:
    """Return when all processes are here."""
    if distributed.is_initialized():
        distributed.barrier()


def pick_device() -> torch.device:
    """CUDA where there is one."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
