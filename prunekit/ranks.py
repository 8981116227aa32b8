"""The processes of one run, started together: ``accelerate launch -m prunekit prune RECIPE``, or by torchrun.

All of them run the same code on the same recipe. Training, scoring and evaluation deal their work out; the
first process alone writes files and measures time, and what it decides the others are told. In a run of one
process everything here returns at once and loads nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from prunekit.errors import OtherProcessError, PrunekitError

if TYPE_CHECKING:
    from torch import Tensor

Item = TypeVar("Item")
Result = TypeVar("Result")

PATIENCE = timedelta(days=7)
"""How long a process waits for the others; where one dies, it is the launcher that ends the rest."""

_SHARDING = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "tensor, context or sequence parallelism",
}
"""Engines that split a model over devices, by the variable that accelerate's launcher sets for them."""


_MPI = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")

_alone = False


def launched() -> int:
    """How many processes were started, whatever this one computes just now."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def count() -> int:
    """How many processes the run has; one inside what a process computes for all."""
    return 1 if _alone else launched()


def index() -> int:
    """Which of them this one is, from 0."""
    return int(os.environ.get("RANK", "0")) if launched() > 1 else 0


def is_first() -> bool:
    """Whether this is the process that writes, measures and talks; true in a run of one."""
    return index() == 0


def check() -> None:
    """Refuse a launch that splits the model itself, or whose processes cannot find each other.

    Raises:
        PrunekitError: if so.
    """
    for variable, engine in _SHARDING.items():
        if os.environ.get(variable, "false").lower() == "true":
            raise PrunekitError(
                f"launched with {engine}, which gives each process only a part of every weight. Masks "
                "multiply whole heads and neurons, scores compare them, and cutting removes rows of whole "
                "matrices, so each process needs all of the model. Launch with data parallelism alone: "
                "`accelerate launch --multi_gpu --num_processes N -m prunekit ...`."
            )

    others = max(int(os.environ.get(name, "1")) for name in _MPI)
    if others > 1 and launched() == 1:
        raise PrunekitError(
            f"started by MPI or Slurm as {others} processes that do not know of each other, as WORLD_SIZE is "
            "not set. Launch with `accelerate launch --multi_gpu` or `torchrun`."
        )


def refuse(command: str) -> None:
    """Refuse a command that shares no work, if several processes were launched with it.

    Raises:
        PrunekitError: if so.
    """
    if launched() > 1:
        raise PrunekitError(
            f"`{command}` was launched as {launched()} processes, and would do everything {launched()} times."
            " Start it without a launcher; only prune and finetune share work between processes."
        )


def begin() -> None:
    """Meet the other processes, if there are any; whatever below needs them does it by itself."""
    if count() == 1:
        return
    import torch
    from accelerate import PartialState

    if torch.distributed.is_initialized():
        return
    check()
    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "false").lower() == "true" or not torch.cuda.is_available()
    # Figures and objects travel between the hosts' memories, gradients between the devices'.
    options: Any = {"cpu": True} if on_cpu else {"backend": "cuda:nccl,cpu:gloo"}
    state = PartialState(timeout=PATIENCE, **options)
    if state.num_processes != count():
        raise PrunekitError(
            f"the launcher started {count()} processes, but {state.num_processes} have met. Launch with "
            "`accelerate launch` or `torchrun`, which set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT."
        )


def wait() -> None:
    """Return once every process is here: what the first has written before, all can read then."""
    if count() > 1:
        begin()
        import torch

        torch.distributed.barrier()


def from_first(compute: Callable[[], Result]) -> Result:
    """What the first process computes; the others wait for it, and are given the same.

    Raises:
        OtherProcessError: if the first one failed, on the others; on itself its own error.
    """
    if count() == 1:
        return compute()
    begin()
    import torch

    said: list[Any] = [None]
    failure: BaseException | None = None
    if is_first():
        try:
            with _by_itself():
                said = [(True, compute())]
        except BaseException as error:
            said, failure = [(False, None)], error
    torch.distributed.broadcast_object_list(said, src=0)
    if failure is not None:
        raise failure
    went_well, result = said[0]
    if not went_well:
        raise OtherProcessError(f"process 0 of {count()} failed; what it has to say of that is above.")
    found: Result = result
    return found


def each(items: Sequence[Item], compute: Callable[[Item], Result]) -> list[Result]:
    """What ``compute`` makes of every item, in their order; items are dealt out, results shared by all.

    Each item is computed once, by one process, so the results are those of a run of one.

    Raises:
        OtherProcessError: if another process failed; on that one its own error.
    """
    if count() == 1:
        return [compute(item) for item in items]
    own: dict[int, Result] | None = {}
    failure: Exception | None = None
    try:
        places = range(index(), len(items), count())
        with _by_itself():
            own = {place: compute(items[place]) for place in places}
    except Exception as error:  # told below, once the others do not wait for this one any more
        own, failure = None, error
    shares = gathered(own)
    if failure is not None:
        raise failure
    together: dict[int, Result] = {}
    for number, share in enumerate(shares):
        if share is None:
            raise OtherProcessError(
                f"process {number} of {count()} failed; what it has to say of that is above."
            )
        together |= share
    return [together[place] for place in range(len(items))]


def hands(items: Sequence[Item]) -> list[Sequence[Item]]:
    """The items in as many parts as there are processes, such as ``each`` gives one of them."""
    return [items[part :: count()] for part in range(count())]


def dealt(items: list[Item]) -> list[Item]:
    """This process's part of the items of one update; all of them where there are fewer than processes.

    What every process computes alike has the same mean over processes.
    """
    return items[index() :: count()] if len(items) >= count() else items


def mean(numbers: Tensor) -> Tensor:
    """The mean over processes, element by element; on the device and in the type of ``numbers``."""
    return total(numbers) / count()


def total(number: Tensor) -> Tensor:
    """The sum over processes."""
    return _reduced(number, "SUM")


def greatest(number: int) -> int:
    """The greatest of the processes' numbers."""
    if count() == 1:
        return number
    import torch

    return int(_reduced(torch.tensor(number), "MAX"))


def same(drawn: Tensor) -> Tensor:
    """What the first process has drawn, on every one."""
    if count() > 1:
        begin()
        import torch

        drawn = drawn.contiguous()
        torch.distributed.broadcast(drawn, src=0)
    return drawn


def gathered(value: Result) -> list[Result]:
    """The processes' values, in their order."""
    if count() == 1:
        return [value]
    begin()
    import torch

    found: list[Any] = [None] * count()
    torch.distributed.all_gather_object(found, value)
    return found


@contextmanager
def _by_itself() -> Iterator[None]:
    """Inside, this process waits for no other."""
    global _alone
    _alone = True
    try:
        yield
    finally:
        _alone = False


def _reduced(numbers: Tensor, how: str) -> Tensor:
    if count() == 1:
        return numbers
    begin()
    import torch

    found = numbers.detach().clone()
    torch.distributed.all_reduce(found, getattr(torch.distributed.ReduceOp, how))
    return found
