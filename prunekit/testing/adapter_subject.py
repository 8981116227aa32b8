"""What a rule for adapters is given: an adapter, and one of the tiny models that it declares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from prunekit.errors import AdapterMismatchError, UnsupportedModelError
from prunekit.pruning.target import PrunableModel
from prunekit.testing.outcome import NotApplicable
from prunekit.testing.tiny import tiny_classes, tiny_inputs, tiny_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prunekit.adapters.base import Adapter


@dataclass(frozen=True, eq=False)
class AdapterSubject:
    """An adapter with one of its tiny models; without one where ``model`` is empty.

    Models are built anew whenever a rule asks, in float64, so that no rule sees what another one did.

    Args:
        adapter: the table under test; it need not be installed.
        model: name of the variant in ``adapter.tiny``.
        device: where models and inputs are put.
        exceptions: rules that the adapter declares not to hold; adapters declare none.
    """

    adapter: Adapter
    model: str
    device: str = "cpu"
    exceptions: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The adapter's name."""
        return self.adapter.name

    @property
    def module(self) -> str:
        """The module that the adapter's functions are in."""
        return self.adapter.set_heads.__module__

    @cached_property
    def classes(self) -> tuple[type[Any], ...]:
        """The model classes to try, the main one first."""
        return tiny_classes(self.model, self.adapter)

    def build(self, model_class: type[Any] | None = None, **changes: Any) -> PreTrainedModel:
        """The variant's model, of its main class if none is given, with some config fields changed.

        Raises:
            NotApplicable: if the declared fields make no model; ``tiny-declared`` says why.
        """
        try:
            model = tiny_model(
                self.model,
                model_class=model_class,
                adapter=self.adapter,
                changes=changes,
                dtype=torch.float64,
            )
        except Exception as error:
            if changes:
                raise
            raise NotApplicable(
                f"no model can be built of tiny[{self.model!r}]; see tiny-declared"
            ) from error
        return model.to(self.device)

    def resolved(self, model_class: type[Any] | None = None) -> PrunableModel:
        """A model with the adapter, whatever the lengths of its slices.

        Raises:
            NotApplicable: if the adapter does not resolve on it; ``every-path-resolves`` says where.
        """
        model = self.build(model_class)
        try:
            return PrunableModel(model, self.adapter)
        except (AdapterMismatchError, UnsupportedModelError) as error:
            raise NotApplicable(
                f"the table does not resolve on {type(model).__name__}; see every-path-resolves"
            ) from error

    def target(self, model_class: type[Any] | None = None) -> PrunableModel:
        """A model with the adapter, which can be cut.

        Raises:
            NotApplicable: if the adapter does not resolve on it, or its slices have the wrong lengths; the
                rules about tables say where.
        """
        target = self.resolved(model_class)
        for group in target.groups.values():
            for part in group.slices:
                parameter = target.model.get_parameter(part.parameter)
                if parameter.shape[part.axis] != group.size * group.width:
                    raise NotApplicable(
                        f"{group.name} cannot be cut; see slices-have-the-right-length, and mend it first"
                    )
        return target

    def each(self, *, sound: bool = True) -> Iterator[PrunableModel]:
        """A target of every class that the adapter resolves on, the main one first.

        Args:
            sound: only those whose slices have the right lengths.
        """
        find = self.target if sound else self.resolved
        yield find()
        for model_class in self.classes[1:]:
            try:
                yield find(model_class)
            except NotApplicable:
                continue

    def inputs(self, model: PreTrainedModel) -> dict[str, Any]:
        """A batch for ``model``, where it is."""
        return {name: tensor.to(self.device) for name, tensor in tiny_inputs(model).items()}


def adapter_subjects(adapter: Adapter, *, device: str = "cpu") -> list[AdapterSubject]:
    """The adapter as a whole, then with each of its tiny models."""
    return [AdapterSubject(adapter, variant, device) for variant in ("", *adapter.tiny)]
