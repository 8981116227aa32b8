"""A stopwatch whose times are known, on tiny encoder-decoders of three blocks a stack."""

from __future__ import annotations

from nash_calls import target_of

from prunekit.pruning.cost import kept_units
from prunekit.pruning.plan import PruningPlan
from prunekit.pruning.stopwatch import LatencyTable, Measured


class FakeStopwatch:
    """Times that are known: of 100 ms, each of three decoder blocks takes 20 and the encoder's units 30.

    An encoder block has 4 heads of 1 ms and 20 neurons of 0.3 ms; of a decoder block 10 ms are its own.

    Args:
        measure: from the predicted share to the measured one; the same by default.

    Attributes:
        off: how far the ends of an interval are from what was measured.
    """

    def __init__(self, target, measure=lambda share: share):
        self.structure, self.measure, self.off = target.structure, measure, 0.01
        whole = {"encoder.self_attn": 4.0, "encoder.ffn": 6.0, "decoder.ffn": 2.0}
        self.times = LatencyTable(
            sublayers={
                sub.name: {0: 0.0, sub.units.size: whole.get(f"{sub.stack}.{sub.role}", 4.0)}
                for sub in self.structure.sublayers.values()
            },
            block_ms={"encoder": 0.0, "decoder": 10.0},
            total_ms=100.0,
        )
        self.timed: list[PruningPlan] = []

    def table(self):
        return self.times

    def share(self, plan):
        return self.times.predict(kept_units(self.structure, plan.keep)) / 100

    def ratio(self, plan):
        self.timed.append(plan)
        found = self.measure(self.share(plan))
        return Measured(found, found - self.off, found + self.off)


def timed_target(name="t5", measure=lambda share: share):
    """A tiny model of three blocks a stack, with a stopwatch."""
    target = target_of(name)
    target.stopwatch = FakeStopwatch(target, measure)
    return target


def latency(ratio, **keys):
    return {"metric": "latency", "ratio": ratio, "scope": ["encoder.*"], **keys}


def chosen(record):
    return record["decoder_layers"], record["encoder_sparsity"]
