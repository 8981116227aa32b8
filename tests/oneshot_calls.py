"""A labelled task for any tiny model, and runs of one-shot methods, that their tests share."""

from __future__ import annotations

import torch

from prunekit.recipe import BudgetSpec, TrainSpec
from prunekit.testing.tiny import tiny_inputs
from prunekit.training.loop import Trainer


class Labelled:
    """Random inputs of a model with random labels; only what one-shot methods ask of a task."""

    name = "labelled"
    splits = ("calibration", "validation")

    def __init__(self, model, *, examples=12, seed=0):
        inputs = tiny_inputs(model, batch=examples, seed=seed)
        generator = torch.Generator().manual_seed(seed + 1)
        if "decoder_input_ids" in inputs:
            inputs["labels"] = inputs.pop("decoder_input_ids")
            inputs["labels"][1, -2:] = -100
        else:
            inputs["labels"] = torch.randint(model.config.num_labels, (examples,), generator=generator)
        self._examples = [{name: tensor[i] for name, tensor in inputs.items()} for i in range(examples)]

    def examples(self, split):
        assert split == "calibration"
        return self._examples

    def lengths(self, split):
        return [7] * len(self._examples)

    def collate(self, examples):
        return {name: torch.stack([example[name] for example in examples]) for name in examples[0]}


def plan_of(method, target, folder, *, task=None, seed=0, sparsity=0.4, budget=None, **keys):
    """The plan that a method makes of a target."""
    settings = {"examples": 8, "batch_size": 4} if "examples" in method.Config.model_fields else {}
    wanted = {} if "ratio" in (budget or {}) else {"sparsity": sparsity}
    spec = BudgetSpec(**{**wanted, **(budget or {})})
    trainer = Trainer(folder, TrainSpec(), seed=seed)
    config = method.Config(**{**settings, **keys})
    return method(config).plan(target, task or Labelled(target.model), spec, trainer)


def unit_groups(target, pattern=""):
    """Names of the groups of heads and neurons that contain ``pattern``."""
    return [
        name for name, group in target.groups.items() if group.kind in ("head", "neuron") and pattern in name
    ]


def every_other(target, pattern=""):
    """A plan's ``keep`` with every other unit of those groups."""
    return {name: tuple(range(0, target.groups[name].size, 2)) for name in unit_groups(target, pattern)}


def state_of(model):
    """All that scoring might leave changed: weights, modes, gradients, hooks, forwards, random state."""
    return {
        "weights": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "training": [module.training for module in model.modules()],
        "learns": [parameter.requires_grad for parameter in model.parameters()],
        "gradients": [parameter.grad is None for parameter in model.parameters()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "forwards": ["forward" in vars(module) for module in model.modules()],
        "random": torch.get_rng_state(),
        "tf32": (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32),
    }


def same_state(first, second):
    """Whether two results of ``state_of`` are equal."""
    tensors = all(torch.equal(first["weights"][name], second["weights"][name]) for name in first["weights"])
    rest = [name for name in first if name not in ("weights", "random")]
    return (
        tensors
        and torch.equal(first["random"], second["random"])
        and all(first[name] == second[name] for name in rest)
    )


def entries_of(group, unit):
    return slice(unit * group.width, (unit + 1) * group.width)


def make_twin(target, group, unit, twin, share=1.0):
    """Make unit ``twin`` contribute ``share`` times what ``unit`` does."""
    *inputs, output = group.slices
    with torch.no_grad():
        for part in inputs:
            tensor = target.model.get_parameter(part.parameter)
            tensor[entries_of(group, twin)] = tensor[entries_of(group, unit)]
        weight = target.model.get_parameter(output.parameter)
        weight[:, entries_of(group, twin)] = share * weight[:, entries_of(group, unit)]
        for table in target.adapter.shared(target.model.base_model).values():
            # T5's heads also differ by their position biases.
            table.weight.copy_(table.weight[:, :1].expand_as(table.weight))
