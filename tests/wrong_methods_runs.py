"""Methods that break the rules about the model, about what stays behind, about data and about repetition."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from wrong_methods import INFO, WRONG, Good, breaks

from prunekit.tasks.calibration import calibration_examples

__all__ = ["GOOD", "WRONG"]

# The model


class Meddles(Good):
    """Does something else after planning."""

    def cut(self, target, task, budget, trainer):
        plan = super().cut(target, task, budget, trainer)
        self.meddle(target, task, trainer)
        return plan


@breaks("shapes-stay", says="such as bert.embeddings.dropout: Dropout became Identity")
class ReplacesAModule(Meddles):
    def meddle(self, target, task, trainer):
        target.model.bert.embeddings.dropout = torch.nn.Identity().eval()


@breaks("trains-as-declared", says="but info.trains is False")
class ChangesWeights(Meddles):
    def meddle(self, target, task, trainer):
        with torch.no_grad():
            target.model.classifier.bias.add_(1)


@breaks("trains-as-declared", says="info.trains is True, but planning left every weight as it was")
class OnlySaysThatItTrains(Good):
    info = replace(INFO, trains=True)


@breaks("masked-equals-pruned", says="the pruned model is not the masked model")
class ChangesConfig(Meddles):
    def meddle(self, target, task, trainer):
        target.model.config.layer_norm_eps = 0.5


@breaks("pruned-equals-reloaded", says="saved and loaded again, the pruned model answers differently")
class ChangesABuffer(Meddles):
    def meddle(self, target, task, trainer):
        target.model.bert.embeddings.position_ids.copy_(target.model.bert.embeddings.position_ids.flip(1))


# Traces


@breaks("leaves-no-hooks", says="such as bert.encoder_forward_hooks")
class LeavesAHook(Meddles):
    def meddle(self, target, task, trainer):
        target.model.bert.encoder.register_forward_hook(lambda module, args, output: None)


@breaks("leaves-no-hooks", says="such as classifier.forward replaced")
class ReplacesForward(Meddles):
    def meddle(self, target, task, trainer):
        target.model.classifier.forward = target.model.classifier.forward


@breaks("leaves-modes", says="training mode of the model from False to True")
class LeavesTrainingMode(Meddles):
    def meddle(self, target, task, trainer):
        target.model.train()


@breaks("leaves-modes", says="requires_grad of bert.embeddings.word_embeddings.weight from False to True")
class Thaws(Meddles):
    def meddle(self, target, task, trainer):
        target.model.requires_grad_(True)


@breaks("leaves-modes", says="the process's torch.is_grad_enabled() from True to False")
class TurnsGradientsOff(Meddles):
    def meddle(self, target, task, trainer):
        torch.set_grad_enabled(False)


@breaks("leaves-modes", says="the process's torch.get_deterministic_debug_mode() from 0 to 2")
class TurnsDeterminismOn(Meddles):
    def meddle(self, target, task, trainer):
        torch.use_deterministic_algorithms(True)


@breaks("leaves-modes", says="the process's torch.get_default_dtype() from torch.float32 to torch.float64")
class SetsTheDefaultDtype(Meddles):
    def meddle(self, target, task, trainer):
        torch.set_default_dtype(torch.float64)


@breaks("leaves-rng", says="the global random numbers of torch")
class SeedsTorch(Meddles):
    def meddle(self, target, task, trainer):
        torch.manual_seed(trainer.seed)


@breaks("leaves-rng", says="the global random numbers of numpy, random")
class DrawsFromOthers(Meddles):
    def meddle(self, target, task, trainer):
        np.random.random()
        random.random()


@breaks("leaves-no-gradients", says="left gradients in 1 parameters, such as classifier.weight")
class LeavesGradients(Meddles):
    def meddle(self, target, task, trainer):
        target.model.classifier.weight.sum().backward()


@breaks("writes-in-its-folder", says="wrote elsewhere/scores.json")
class WritesWhereItIsRun(Meddles):
    def meddle(self, target, task, trainer):
        Path("scores.json").write_text("{}")


@breaks("writes-in-its-folder", says="wrote scores.json")
class WritesBesideItsFolder(Meddles):
    def meddle(self, target, task, trainer):
        (trainer.folder.parent / "scores.json").write_text("{}")


# Data and repetition


@breaks("never-reads-the-test-split", says="read the test split")
class ReadsTheTestSplit(Meddles):
    info = replace(INFO, data="train")

    def meddle(self, target, task, trainer):
        task.lengths("test")


@breaks("data-as-declared", says="read the split train; with info.data = 'none' it may read no split")
class ReadsUndeclaredData(Meddles):
    def meddle(self, target, task, trainer):
        task.examples("train")


@breaks(
    "data-as-declared",
    says="read the split validation; with info.data = 'calibration' it may read calibration",
)
class CalibratesOnValidation(Meddles):
    info = replace(INFO, data="calibration")

    def meddle(self, target, task, trainer):
        calibration_examples(task, 4, trainer.seed)
        if "calibration" in task.splits:
            task.examples("validation")


@breaks("calibrates-on-train", says="raised DataError")
class NeedsCalibration(Meddles):
    info = replace(INFO, data="calibration")

    def meddle(self, target, task, trainer):
        task.examples("calibration")


@breaks("same-seed-same-plan", says="a second run differs in the plan's keep of encoder.")
class DrawsItsScores(Good):
    def scores(self, target, costs, task, trainer):
        with torch.random.fork_rng(devices=[]):
            return {
                name: torch.rand(s.shape) for name, s in super().scores(target, costs, task, trainer).items()
            }


class Calibrated(Good):
    """Looks at four batches, and scores as ever."""

    info = replace(INFO, data="calibration")

    def scores(self, target, costs, task, trainer):
        examples = calibration_examples(task, 8, trainer.seed)
        for start in range(0, 8, 2):
            self.look(task.collate(examples[start : start + 2]), trainer.folder / "seen.json")
        return super().scores(target, costs, task, trainer)

    def look(self, batch, path):
        pass


@breaks("resume-gives-the-same", says="interrupted and started again in the same folder, the run differs in")
class TakesHalfForWhole(Calibrated):
    def scores(self, target, costs, task, trainer):
        seen = trainer.folder / "seen.json"
        sign = 1 if seen.exists() else -1
        return {name: sign * s.abs() for name, s in super().scores(target, costs, task, trainer).items()}

    def look(self, batch, path):
        path.write_text("{}")


@breaks("resume-gives-the-same", says="planning raised JSONDecodeError")
class ReadsATornFile(Calibrated):
    def scores(self, target, costs, task, trainer):
        seen = trainer.folder / "seen.json"
        if seen.exists():
            json.loads(seen.read_text())
        return super().scores(target, costs, task, trainer)

    def look(self, batch, path):
        path.write_text('{"seen": ')


@breaks("resume-gives-the-same", says="an interruption in the middle was caught")
class CannotBeStopped(Calibrated):
    def scores(self, target, costs, task, trainer):
        try:
            return super().scores(target, costs, task, trainer)
        except BaseException:
            return Good.scores(self, target, costs, task, trainer)


@breaks("resume-gives-the-same", says="done and started again in the same folder")
class CountsItsRuns(Good):
    def scores(self, target, costs, task, trainer):
        seen = trainer.folder / "seen.json"
        sign = 1 if seen.exists() else -1
        seen.write_text("{}")
        return {name: sign * s.abs() for name, s in super().scores(target, costs, task, trainer).items()}


class Trained(Good):
    """Lowers the loss by six steps of its own loop, which starts from the beginning if it was interrupted."""

    info = replace(INFO, trains=True, data="train")

    def scores(self, target, costs, task, trainer):
        examples = task.examples("train")
        parameters = [p for p in target.model.parameters() if p.requires_grad]
        self.begin(target.model, trainer.folder / "weights.pt")
        for step in range(6):
            loss = target.model(**task.collate(examples[4 * step : 4 * step + 4])).loss
            with torch.no_grad():
                for parameter, gradient in zip(
                    parameters, torch.autograd.grad(loss, parameters), strict=True
                ):
                    parameter.sub_(0.1 * gradient)
            self.keep(target.model, trainer.folder / "weights.pt")
        return super().scores(target, costs, task, trainer)

    def begin(self, model, path):
        pass

    def keep(self, model, path):
        pass


@breaks("resume-gives-the-same", says="the weights bert.")
class ForgetsHowFarItWas(Trained):
    def begin(self, model, path):
        if path.exists():
            model.load_state_dict(torch.load(path))

    def keep(self, model, path):
        torch.save(model.state_dict(), path)


GOOD = (Good, Calibrated, Trained)
