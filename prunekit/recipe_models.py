"""The sections of a recipe, as pydantic models."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    ValidationInfo,
    field_validator,
    model_serializer,
)
from pydantic_core import PydanticKnownError

from prunekit.errors import BudgetError
from prunekit.suggest import did_you_mean

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class MacsSpec(_Section):
    """How many tokens an example has where MACs are counted."""

    length: int | None = Field(
        None, ge=1, description="input tokens; by default the mean of the calibration data without padding"
    )
    target_length: int | None = Field(
        None, ge=1, description="tokens that a decoder writes; by default their mean likewise"
    )


class BudgetSpec(_Section):
    """What to remove inside a scope: a share of what is prunable, or as much as a ratio of times takes."""

    metric: Literal["params", "macs", "latency"] = Field(
        "params", description="what is counted, or latency: what is measured"
    )
    sparsity: float | None = Field(
        None,
        ge=0,
        lt=1,
        validate_default=True,
        description="removed share of what is prunable in scope; not for latency",
    )
    ratio: float | None = Field(
        None,
        gt=0,
        le=1,
        validate_default=True,
        description="measured time of the pruned model over the dense one's; for latency alone",
    )
    scope: list[str] = Field(
        [], description='patterns over group names, such as "encoder.*"; empty means all'
    )
    round_to: int | None = Field(
        None,
        ge=1,
        description="kept neurons, and kept heads times their width, are multiples of this in every sublayer "
        "that is neither whole nor gone",
    )
    macs: MacsSpec = Field(MacsSpec(), description="what MACs are counted on")

    @field_validator("sparsity")
    @classmethod
    def _counted_metrics_have_a_sparsity(cls, sparsity: float | None, info: ValidationInfo) -> float | None:
        metric = info.data.get("metric")
        if sparsity is None and metric in ("params", "macs"):
            raise PydanticKnownError("missing")
        if sparsity is not None and metric == "latency":
            raise ValueError("a latency budget takes a ratio of times, such as ratio: 0.6, and no sparsity")
        return sparsity

    @field_validator("ratio")
    @classmethod
    def _latency_has_a_ratio(cls, ratio: float | None, info: ValidationInfo) -> float | None:
        metric = info.data.get("metric")
        if ratio is None and metric == "latency":
            raise PydanticKnownError("missing")
        if ratio is not None and metric in ("params", "macs"):
            raise ValueError(f"a budget in {metric} takes a sparsity; a ratio of times needs metric: latency")
        return ratio

    @property
    def share(self) -> float:
        """The removed share that a budget in parameters or MACs asks for.

        Raises:
            BudgetError: if the budget is a latency.
        """
        if self.sparsity is None:
            raise BudgetError(
                "budget.metric = latency asks for a ratio of times, not for a removed share. Write "
                "budget.metric: params or macs with a sparsity, or use a method that plans by time."
            )
        return self.sparsity

    @model_serializer(mode="wrap")
    def _leave_out_unset(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # What one metric takes is no key of another's budget.
        dumped: dict[str, Any] = handler(self)
        unset = ("sparsity", "ratio", "round_to")
        return {key: value for key, value in dumped.items() if value is not None or key not in unset}


class StageSpec(_Section):
    """What every training stage is told."""

    epochs: float = Field(1.0, gt=0, description="passes over the training data")
    max_steps: int | None = Field(None, ge=1, description="optimizer steps, in place of epochs")
    batch_size: int = Field(64, ge=1, description="examples a batch")
    learning_rate: float = Field(3e-4, gt=0, description="peak learning rate of the weights")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay of the weights")
    warmup_ratio: float = Field(0.0, ge=0, lt=1, description="share of the steps that warm up")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    gradient_accumulation: int = Field(1, ge=1, description="batches a step")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="number format of the forward pass; auto is bf16 on a GPU that has it"
    )
    checkpoint_every: int = Field(500, ge=1, description="steps between resumable checkpoints")

    @property
    def is_empty(self) -> bool:
        """Whether no step is asked for."""
        return self.epochs == 0 and self.max_steps is None


class TrainSpec(StageSpec):
    """How the method trains, where it trains at all; also how `finetune` trains."""

    mask_learning_rate: float = Field(0.1, gt=0, description="learning rate of masks and multipliers")
    eval_every: int | None = Field(
        None, ge=1, description="steps between evaluations that choose the best state; at the end by default"
    )


class DistillSpec(_Section):
    """How much the pruned model learns from the dense one during recovery."""

    logits: float = Field(0.0, ge=0, description="weight of the KL divergence between the logits")
    temperature: float = Field(1.0, gt=0, description="divides the logits on both sides")


class RecoverSpec(StageSpec):
    """The training after pruning."""

    epochs: float = Field(
        1.0, ge=0, description="passes over the training data; 0 leaves the model as it was cut"
    )
    distill: DistillSpec | None = Field(
        None, description="distillation from the dense model; none by default"
    )


class EvaluateSpec(_Section):
    """How quality is measured."""

    split: str = Field("test", description="split of the task's data")
    batch_size: int = Field(128, ge=1, description="examples a batch")
    limit: int | None = Field(None, ge=1, description="examples at which to stop; all by default")
    num_beams: int = Field(1, ge=1, description="beams of generation; 1 is greedy")


class SpeedSpec(_Section):
    """How speed is measured."""

    batch_size: int = Field(32, ge=1, description="examples a batch")
    num_beams: int = Field(4, ge=1, description="beams of generation")
    length_penalty: float | None = Field(
        None, description="exponent of beam search's length penalty; the model's own by default"
    )
    new_tokens: int = Field(16, ge=1, description="forced output length")
    input_tokens: int | None = Field(None, ge=1, description="input length; the task's mean by default")
    rounds: int = Field(20, ge=1, description="timed rounds of each model, interleaved")
    warmup: int = Field(3, ge=0, description="rounds before timing starts")
    dtype: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="number format of the weights")
    attention: Literal["sdpa", "eager"] = Field("sdpa", description="attention kernel")
    static_cache: bool = Field(False, description="generate with a cache of fixed size; outputs are compared")
    compile: bool = Field(False, description="run through torch.compile; outputs are compared")
    threads: int | None = Field(None, ge=1, description="CPU threads; torch's own choice by default")
    seed: int = Field(0, ge=0, description="seed of the inputs and of the bootstrap")


class NewModel(_Section):
    """A freshly initialised model, for ``prunekit finetune`` only."""

    type: Literal["t5", "bart", "bert", "vit"] = Field(description="architecture")
    processor: str = Field(description="folder or embedded:NAME that holds the tokenizer or image processor")
    config: dict[str, Any] = Field({}, description="fields of the architecture's transformers config")


class TaskSpec(BaseModel):
    """The task's name; all further keys belong to the task itself."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = Field(description="an installed task")

    @property
    def options(self) -> dict[str, Any]:
        """The keys for the task class's ``Config``."""
        return dict(self.model_extra or {})


class MethodEntry(BaseModel):
    """One method to run; all keys besides these four belong to the method itself."""

    model_config = ConfigDict(extra="allow", frozen=True)

    method: str | None = Field(None, description="an installed method; the label by default")
    budget: dict[str, Any] | None = Field(None, description="keys that override the recipe's budget")
    train: dict[str, Any] | None = Field(None, description="keys that override the recipe's train")
    recover: dict[str, Any] | None = Field(None, description="keys that override the recipe's recover")

    @property
    def options(self) -> dict[str, Any]:
        """The keys for the method class's ``Config``."""
        return dict(self.model_extra or {})

    @model_serializer(mode="wrap")
    def _leave_out_unset(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        dumped: dict[str, Any] = handler(self)
        own = MethodEntry.model_fields
        return {key: value for key, value in dumped.items() if value is not None or key not in own}


class TeacherSpec(_Section):
    """How the dense model is trained on the task before it is pruned."""

    train: TrainSpec = Field(description="how `model` is trained, as `prunekit finetune` would")


class PublishedSpec(_Section):
    """What a paper printed, to stand beside what a run reaches."""

    paper: str = Field(description="the paper")
    place: str = Field(description="where in it, such as Table 1")
    dense: dict[str, float] = Field(
        {}, description="the unpruned model's figures: metrics of the task, speedup, parameters"
    )
    methods: dict[str, dict[str, float]] = Field({}, description="the same by label of `methods`")
    remarks: list[str] = Field([], description="what to know before comparing")


def _kind_of_model(value: Any) -> str:
    return "described" if isinstance(value, dict | BaseModel) else "name"


ModelSpec = Annotated[
    Annotated[str, Tag("name")] | Annotated[NewModel, Tag("described")], Discriminator(_kind_of_model)
]
TeacherChoice = Annotated[
    Annotated[str, Tag("name")] | Annotated[TeacherSpec, Tag("described")], Discriminator(_kind_of_model)
]


class Recipe(_Section):
    """A model, a task, and any number of methods to prune the one for the other."""

    version: Literal[1] = Field(description="recipe format; 1 is the only one so far")
    description: str = Field("", description="one line, shown by `prunekit recipes list`")
    model: ModelSpec = Field(description="a hub id, a folder or embedded:NAME")
    task: TaskSpec = Field(description="the task's name and its own keys")
    teacher: TeacherChoice | None = Field(
        None, description="the fine-tuned `model` to prune: a folder or hub id, or how to train it first"
    )
    budget: BudgetSpec | None = Field(None, description="what to remove")
    methods: dict[str, MethodEntry] = Field({}, description="label to method")
    train: TrainSpec = Field(TrainSpec(), description="training of the masks and of `finetune`")
    recover: RecoverSpec = Field(RecoverSpec(), description="training after pruning")
    evaluate: EvaluateSpec = Field(EvaluateSpec(), description="measuring quality")
    speed: SpeedSpec = Field(SpeedSpec(), description="measuring speed")
    seed: int = Field(0, ge=0, description="decides every random choice of a run")
    published: PublishedSpec | None = Field(None, description="figures that a paper printed for this recipe")

    @field_validator("methods", mode="before")
    @classmethod
    def _empty_entries_are_defaults(cls, methods: Any) -> Any:
        # In YAML `nash:` with nothing behind it is null, and reads as "nash, as it comes".
        if isinstance(methods, dict):
            return {label: {} if entry is None else entry for label, entry in methods.items()}
        return methods

    @field_validator("methods")
    @classmethod
    def _labels_make_folder_names(cls, methods: dict[str, MethodEntry]) -> dict[str, MethodEntry]:
        for label in methods:
            if not _LABEL.fullmatch(label):
                raise ValueError(f"label {label!r} must be letters, digits, - and _ (it names a run folder)")
        return methods

    @field_validator("published")
    @classmethod
    def _figures_belong_to_labels(
        cls, published: PublishedSpec | None, info: ValidationInfo
    ) -> PublishedSpec | None:
        known = info.data.get("methods", {})
        for label in published.methods if published else ():
            if label not in known:
                hint = did_you_mean(label, known)
                raise ValueError(
                    f"methods has no label {label!r}{hint} (labels: {', '.join(known) or 'none'})"
                )
        return published

    @field_validator("teacher")
    @classmethod
    def _teacher_is_not_of_a_new_model(
        cls, teacher: str | TeacherSpec | None, info: ValidationInfo
    ) -> str | TeacherSpec | None:
        if teacher is not None and isinstance(info.data.get("model"), NewModel):
            raise ValueError(
                "belongs to a model that exists; train a new one with `prunekit finetune` and name its folder"
            )
        return teacher
