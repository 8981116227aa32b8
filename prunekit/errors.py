"""Errors that prunekit raises on purpose.

Every message says what was found, where, what is allowed, and what to do next. The command line prints the
message alone; ``--debug`` adds the traceback.
"""


class PrunekitError(Exception):
    """Base of all errors meant for the user's eyes."""


class RecipeError(PrunekitError):
    """A recipe (or a ``--set`` override) is not valid; carries every fault found, not only the first."""


class PluginError(PrunekitError):
    """A plugin is broken, missing, or registers a name that is already taken."""


class AdapterMismatchError(PrunekitError):
    """An adapter's table names a module that the model does not have."""


class UnsupportedModelError(PrunekitError):
    """No adapter (or not this method) handles the model's architecture."""


class PlanError(PrunekitError):
    """A pruning plan names unknown groups, or indices that the model does not have."""


class BudgetError(PrunekitError):
    """A budget cannot be met; the message names the nearest one that can."""


class CheckpointError(PrunekitError):
    """A checkpoint's structure and its weights disagree, or a file is missing or damaged."""


class DataError(PrunekitError):
    """A task's data is missing, empty or of the wrong form."""


class TrainingError(PrunekitError):
    """Training stopped because its result could not be trusted (target missed, NaN loss)."""


class RunFolderError(PrunekitError):
    """The output folder cannot be used for this run."""


class VerificationError(PrunekitError):
    """The masked and the pruned model disagree by more than the stated tolerance."""


class ComparisonError(PrunekitError):
    """Runs that cannot be compared fairly, or a question that their comparison cannot answer."""


class OtherProcessError(PrunekitError):
    """Another process of the same run failed, and has said why; this one ends with it."""
