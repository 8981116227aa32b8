"""A method that sends its own process a signal at a chosen step, and the command line with it.

``python stopping_plugin.py SIGNAL STEP ARGUMENTS...`` is ``prunekit ARGUMENTS...`` with that method.
"""

from __future__ import annotations

import signal
import sys
from dataclasses import replace

from fake_plugins import plugin
from prunekit_nash.method import Nash
from toy_task import Copy

from prunekit.plugins import Registry, Source, plugin_sources


def stopping(number=None, at=0):
    """The registry with NASH as ``stopping``; if a number is given, that signal comes after step ``at``."""

    class Stopping(Nash):
        info = replace(Nash.info, name="stopping")

        def plan(self, target, task, budget, trainer):
            fit = trainer.fit

            def signalled(*arguments, after_step=None, **options):
                def after(step):
                    if after_step:
                        after_step(step)
                    if number is not None and step == at:
                        signal.raise_signal(number)

                return fit(*arguments, after_step=after, **options)

            trainer.fit = signalled
            return super().plan(target, task, budget, trainer)

    toys = plugin(tasks=[Copy], methods=[Stopping])
    return Registry([*plugin_sources(), Source("toy", "toy-dist 1.0", lambda: toys)])


if __name__ == "__main__":
    import prunekit.plugins
    from prunekit.cli import main

    registry = stopping(signal.Signals[sys.argv[1]], int(sys.argv[2]))
    prunekit.plugins.get_registry = lambda: registry
    main(sys.argv[3:])
