"""A plugin that fails when it is imported."""

raise ImportError("prunekit-broken always fails: no command may stop for it")
