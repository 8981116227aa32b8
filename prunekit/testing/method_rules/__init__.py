"""The rules that every pruning method must keep, in the order in which they are tried."""

from __future__ import annotations

from prunekit.testing.method_rules import declaration, model, plan, repeats, traces
from prunekit.testing.rules import Rule

METHOD_RULES: tuple[Rule, ...] = (
    *declaration.RULES,
    *plan.RULES,
    *model.RULES,
    *traces.RULES,
    *repeats.RULES,
)
