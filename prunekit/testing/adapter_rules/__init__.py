"""What must hold of every adapter, one function a rule, in the order in which faults are best mended."""

from __future__ import annotations

from prunekit.testing.adapter_rules import costs, declared, generating, manners, masking, saving, tables
from prunekit.testing.rules import Rule

ADAPTER_RULES: tuple[Rule, ...] = (
    Rule(
        "declaration-complete",
        "Name, model type, summary and stacks are such as the rest of prunekit relies on.",
        declared.declaration_complete,
        of="plugin",
    ),
    Rule(
        "tiny-declared",
        "`tiny` is not empty, and each variant makes a small model of three blocks a stack that runs.",
        declared.tiny_declared,
        of="plugin",
    ),
    Rule(
        "every-path-resolves",
        "Every path of the tables leads to a module, on every class that transformers' Auto classes have.",
        declared.every_path_resolves,
    ),
    Rule(
        "sizes-follow-the-config",
        "Depth, heads and FFN width are what the named config fields say, also of a model where they differ.",
        declared.sizes_follow_the_config,
    ),
    Rule(
        "slices-have-the-right-length",
        "Each sliced axis has one entry for each unit, times its width, and belongs to one group.",
        tables.slices_have_the_right_length,
    ),
    Rule(
        "no-prunable-axis-missed",
        "All parameters in blocks belong to a sublayer, every list of blocks is a stack, and each axis that "
        "follows a width is sliced.",
        tables.no_prunable_axis_missed,
    ),
    Rule(
        "norms-stand-where-declared",
        "A sublayer's norm runs right before its inputs, or right after its output if `post_norm`.",
        tables.norms_stand_where_declared,
    ),
    Rule(
        "cost-equals-counted-parameters",
        "The parameters that a plan leaves, as computed, are those of the pruned model.",
        costs.cost_equals_counted_parameters,
    ),
    Rule(
        "cost-equals-counted-macs",
        "The MACs that a plan saves, as computed, are those that torch counts less.",
        costs.cost_equals_counted_macs,
    ),
    Rule(
        "masked-equals-pruned",
        "Masked and pruned model are the same function to 1e-10: each group, dead parts, mixtures, hidden "
        "units.",
        masking.masked_equals_pruned,
    ),
    Rule(
        "zero-mask-means-identity",
        "A block without sublayers gives back its input; a sublayer without units is a removed sublayer.",
        masking.zero_mask_means_identity,
    ),
    Rule(
        "gradients-reach-masks",
        "Every group's mask has a gradient, and it is the slope that finite differences find.",
        masking.gradients_reach_masks,
    ),
    Rule(
        "cached-equals-uncached-generation",
        "A pruned decoder writes the same with a cache, without one, and as the masked model.",
        generating.cached_equals_uncached_generation,
    ),
    Rule(
        "tied-weights-stay-tied",
        "Parameters that were one are one after pruning and after a reload, and no others become one.",
        saving.tied_weights_stay_tied,
    ),
    Rule(
        "strict-reload",
        "Saved and loaded by an Auto class, twice: the same class, tensors and outputs.",
        saving.strict_reload,
    ),
    Rule(
        "stock-when-regular",
        "A result that is said to be stock is loaded and run by transformers' own class.",
        saving.stock_when_regular,
    ),
    Rule(
        "prunes-again",
        "A pruned model can be masked, pruned and saved once more.",
        saving.prunes_again,
    ),
    Rule(
        "variants-work-or-are-refused",
        "With chunked FFNs, or as a causal decoder, a model is pruned rightly or refused with a reason.",
        manners.variants_work_or_are_refused,
    ),
    Rule(
        "dense-model-untouched",
        "Resolving, masking and cutting leave the dense model, its config and its modules as they were.",
        manners.dense_model_untouched,
    ),
)
