"""The Python API: what the command line does, as functions; everything here is also a name of ``prunekit``.

A *model* is given as a name (hub id, model folder, run folder or ``embedded:NAME``), as a model of
transformers, or as a `prunekit.PrunableModel`. Results are plain data that show themselves as tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pydantic import ValidationError

from prunekit import determinism, pipeline
from prunekit.comparison.request import Request
from prunekit.comparison.request import compare as run_comparison
from prunekit.errors import ComparisonError, PlanError, RecipeError
from prunekit.milestones import with_milestones
from prunekit.plugins import get_registry
from prunekit.progress import Progress
from prunekit.pruning.plan import PruningPlan
from prunekit.pruning.target import PrunableModel
from prunekit.recipe import Recipe, SpeedSpec, load_recipe, resolve_method
from prunekit.recipe_faults import faults_of, render_faults
from prunekit.results import Comparison, Quality, Report, Speed
from prunekit.runfolder import RUNS, recipe_name
from prunekit.task_choice import task_and_settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prunekit.recipe import Source

__all__ = ["apply_plan", "compare", "evaluate", "measure_speed", "prune"]

Model: TypeAlias = "str | Path | PreTrainedModel | PrunableModel"
Sizes: TypeAlias = "int | Sequence[int]"


def prune(
    recipe: Source,
    method: str | None = None,
    *,
    out: str | Path | None = None,
    seed: int | None = None,
    settings: Mapping[str, Any] | None = None,
    save_at: Sequence[float] = (),
    deterministic: bool = False,
    progress: bool = True,
) -> Report:
    """Prune a model as a recipe says, recover it, and measure it; ``prunekit prune``.

    A run that was stopped goes on where it was if the same call is made again, and a finished one is read.

    Args:
        recipe: a recipe's file, its content as a mapping, or a `prunekit.recipe.Recipe`.
        method: a label of the recipe, or any installed method, which then runs with its defaults; not needed
            where the recipe has one method.
        out: the run folder. By default ``runs/RECIPE-LABEL``, where RECIPE is the file's name, or, of a
            recipe without a file, its task's with a digest of the recipe.
        seed: in place of the recipe's.
        settings: recipe keys to change, such as ``{"budget.sparsity": 0.5}``.
        save_at: milestones, sparsities below the budget's at each of which a model is saved on the way; for
            methods that learn masks.
        deterministic: whether to use only kernels that repeat bit for bit, on a GPU too.
        progress: whether to draw bars, on a terminal or in a notebook.

    Returns:
        The run's report, with ``plan`` and ``load_model()``.

    Raises:
        RecipeError: if the recipe has faults, all of them named, or the method is unknown.
        PrunekitError: if model, task or folder cannot be used, or a stage fails; what was done stays.
    """
    registry = get_registry()
    changed = {**(settings or {}), **({} if seed is None else {"seed": seed})}
    loaded = load_recipe(recipe, changed, registry=registry)
    chosen = resolve_method(loaded, method, registry)
    label = chosen.label
    if save_at:
        loaded = with_milestones(loaded, chosen, save_at, registry=registry)
    folder = RUNS / f"{recipe_name(recipe, loaded)}-{label}" if out is None else Path(out)
    with determinism.deterministic(deterministic):
        return Report(pipeline.run(loaded, label, folder, registry=registry, progress=_progress(progress)))


def compare(
    targets: Source | Sequence[str | Path],
    *,
    seeds: int = 1,
    sweep: Mapping[str, Sequence[Any]] | None = None,
    only: Sequence[str] = (),
    reference: str | None = None,
    out: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    deterministic: bool = False,
    progress: bool = True,
) -> Comparison:
    """Compare pruning methods: the same examples and seeds, all models timed together; ``prunekit compare``.

    Stopped, the same call goes on where it was. A run that fails is a row with its error.

    Args:
        targets: a recipe (file, mapping or `prunekit.recipe.Recipe`), whose every method is run; or folders
            of finished runs; or the folder of a comparison, to read it.
        seeds: runs of each method, with the recipe's seed and those after it.
        sweep: one recipe key and its values, such as ``{"budget.sparsity": [0.5, 0.6]}``: each method is run
            once for each.
        only: labels to run, or patterns such as ``nash*``; all by default.
        reference: the row that all others are compared with; the dense model by default.
        out: the comparison's folder; ``runs/compare-RECIPE`` or ``runs/comparison`` by default.
        settings: recipe keys to change.
        deterministic: whether to use only kernels that repeat bit for bit, on a GPU too.
        progress: whether to draw bars and say how each run went.

    Returns:
        The comparison; ``render`` writes it as Markdown, LaTeX, CSV or JSON.

    Raises:
        RecipeError: if the recipe has faults.
        ComparisonError: if runs cannot be compared, or what is finished is asked to be changed.
        PrunekitError: if model, task or folder cannot be used.
    """
    request = Request(
        [targets] if isinstance(targets, str | Path | Mapping | Recipe) else list(targets),
        seeds=seeds,
        sweep=sweep or {},
        only=[only] if isinstance(only, str) else only,
        reference=reference,
        out=None if out is None else Path(out),
        settings=settings or {},
        deterministic=deterministic,
    )
    refused = request.refused() + (["only"] if request.kind == "stored" and only else [])
    if refused:
        raise ComparisonError(
            f"{', '.join(refused)} cannot change what is finished. Leave it out, or give the recipe."
        )
    return Comparison(*run_comparison(request, registry=get_registry(), progress=_progress(progress)))


def apply_plan(model: Model, plan: PruningPlan | str | Path) -> PrunableModel:
    """A new, smaller model: the units that a plan keeps; the given model is left as it is.

    Nothing is trained. ``.model`` of the result is a model of transformers, to be trained, run and saved.

    Args:
        model: the dense model.
        plan: the plan, its file, or a run folder with a ``plan.json``.

    Raises:
        PlanError: if the plan cannot be read, or does not fit the model.
        UnsupportedModelError: if there is no adapter for the model, or what the plan removes cannot be
            removed from it.
        CheckpointError: if there is no model of that name.
    """
    return _target(model).pruned(plan if isinstance(plan, PruningPlan) else _read_plan(Path(plan)))


def evaluate(
    model: Model,
    task: str | Mapping[str, Any] | None = None,
    *,
    recipe: Source | None = None,
    split: str | None = None,
    limit: int | None = None,
    batch_size: int | None = None,
    num_beams: int | None = None,
    processor: Any = None,
    progress: bool = True,
) -> Quality:
    """A model's metrics on a task, each with its standard error; ``prunekit evaluate``.

    Args:
        model: what to score. A name is loaded, onto a GPU where there is one; a model stays where it is.
        task: name of an installed task, or a recipe's ``task`` section as a mapping.
        recipe: in place of ``task``: a recipe whose ``task`` and ``evaluate`` sections hold.
        split: split of the task's data; by default the recipe's, or ``test``.
        limit: examples at which to stop; by default the recipe's, or all.
        batch_size: examples a batch; by default the recipe's, or 128.
        num_beams: beams of generation; by default the recipe's, or 1, which is greedy.
        processor: the tokenizer or image processor, or the name of a model that has it; by default what was
            saved beside the model.
        progress: whether to draw a bar.

    Raises:
        RecipeError: unless exactly one of task and recipe is given, and it and the settings are good.
        PluginError: if no such task is installed.
        PrunekitError: if the model cannot be loaded, does not fit the task, or has weights that are NaN or in
            less than float32.
    """
    registry = get_registry()
    if (task is None) == (recipe is None):
        raise RecipeError('give either a task, such as "gloss", or recipe=, and not both.')
    options = {"split": split, "limit": limit, "batch_size": batch_size, "num_beams": num_beams}
    chosen, spec = task_and_settings(task, recipe, registry, **options)
    return Quality(
        pipeline.evaluate(
            _named_or_plain(model),
            chosen,
            spec,
            registry=registry,
            processor=str(processor) if isinstance(processor, Path) else processor,
            progress=_progress(progress),
        )
    )


def measure_speed(
    models: Mapping[str, Model] | Sequence[str],
    *,
    batch_size: Sizes = 32,
    input_tokens: Sizes | None = None,
    new_tokens: int = 16,
    num_beams: int = 4,
    length_penalty: float | None = None,
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32",
    attention: Literal["sdpa", "eager"] = "sdpa",
    static_cache: bool = False,
    compile: bool = False,
    threads: int | None = None,
    rounds: int = 20,
    warmup: int = 3,
    seed: int = 0,
    baselines: bool = False,
    progress: bool = True,
) -> Speed:
    """Time models against each other, interleaved in one process, on random inputs; ``prunekit speed``.

    Encoder-decoders with a language head are timed in ``generate``, all others in ``forward``, on a GPU where
    there is one; afterwards models are as they were, and where they were. The first is the reference, and is
    also timed against itself: a difference that is no larger than that one counts as none.

    Args:
        models: by the name to show; or names of models.
        batch_size: examples a batch; several make a sweep.
        input_tokens: input length; several make a sweep. By default 64, or all positions if there are fewer.
        new_tokens: forced output length.
        num_beams: beams of generation.
        length_penalty: exponent of beam search's length penalty; the model's own by default.
        dtype: number format of the weights while timed.
        attention: attention kernel.
        static_cache: generate with a cache of fixed size.
        compile: run through ``torch.compile``.
        threads: CPU threads of torch; as many as it has by default.
        rounds: timed rounds of each model.
        warmup: rounds before timing starts.
        seed: of the inputs and the intervals.
        baselines: time the first model also in bf16, compiled and, if it generates, with a static cache.
        progress: whether to draw bars, on a terminal or in a notebook.

    Returns:
        Times in milliseconds with every sample, and speedups with their 95 % intervals.

    Raises:
        RecipeError: if a setting is out of range.
        PrunekitError: if there is no model to measure, or a name stands for none.
    """
    batches, lengths = _several(batch_size), _several(input_tokens)
    spec = _speed_spec(
        batch_size=batches[0] if batches else 0,
        input_tokens=lengths[0] if lengths else None,
        new_tokens=new_tokens,
        num_beams=num_beams,
        length_penalty=length_penalty,
        dtype=dtype,
        attention=attention,
        static_cache=static_cache,
        compile=compile,
        threads=threads,
        rounds=rounds,
        warmup=warmup,
        seed=seed,
    )
    for size in batches[1:]:
        _speed_spec(batch_size=size)
    for length in lengths[1:]:
        _speed_spec(input_tokens=length)
    given = (
        {name: _named_or_plain(model) for name, model in models.items()}
        if isinstance(models, Mapping)
        else models
    )
    return Speed(
        pipeline.speed(
            given, spec, batches, lengths or [None], baselines=baselines, progress=_progress(progress)
        )
    )


def _progress(wanted: bool) -> Progress:
    return Progress(quiet=not wanted)


def _target(model: Model) -> PrunableModel:
    if isinstance(model, PrunableModel):
        return model
    if isinstance(model, str | Path):
        return PrunableModel.from_pretrained(model)
    return PrunableModel(model)


def _named_or_plain(model: Model) -> str | PreTrainedModel:
    if isinstance(model, PrunableModel):
        return model.model
    return str(model) if isinstance(model, Path) else model


def _read_plan(path: Path) -> PruningPlan:
    if path.is_dir() and not (path / "plan.json").is_file():
        raise PlanError(
            f"{path} holds no plan.json, so it is no run folder. Give one, a plan's file, or a PruningPlan."
        )
    return PruningPlan.load(path / "plan.json" if path.is_dir() else path)


def _several(sizes: Sizes | None) -> list[int]:
    return [] if sizes is None else [sizes] if isinstance(sizes, int) else list(dict.fromkeys(sizes))


def _speed_spec(**options: Any) -> SpeedSpec:
    try:
        return SpeedSpec.model_validate(options)
    except ValidationError as error:
        faults = faults_of(error, options, SpeedSpec, owner="measure_speed")
        raise RecipeError(render_faults("measure_speed", faults)) from error
