"""The metric ``llm-judge``: what a judge gives to a model's answers, over what it gives to the references."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from prunekit.errors import DataError
from prunekit.files import write_text
from prunekit.tasks.base import Metric, MetricValue
from prunekit.tasks.metrics.estimates import check, estimate, ratio
from prunekit_judge.endpoint import MODEL, Endpoint
from prunekit_judge.prompt import REMINDER, Scores, question, read_scores

AT_ONCE = 8
UNREADABLE = 0.02

# Below prunekit's own logger, of which the command line shows more than warnings.
_log = logging.getLogger("prunekit.judge")

Verdict = Scores | str
"""What the judge gives, or its reply if that holds no scores."""


@dataclass(frozen=True)
class Judge:
    """A model that compares answers.

    Attributes:
        endpoint: where it is asked.
        folder: where its replies are kept, one a file with its question, so that none is paid for twice.
    """

    endpoint: Endpoint
    folder: Path

    @classmethod
    def from_environment(cls) -> Self:
        """Return the judge that the environment names; replies are kept in the user's cache.

        Raises:
            DataError: if it names none, or nothing can be kept.
        """
        endpoint = Endpoint.from_environment()
        cache = os.environ.get("XDG_CACHE_HOME")
        folder = (Path(cache) if cache else Path.home() / ".cache") / "prunekit" / "judge"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"llm-judge: the folder {folder} for the judge's replies cannot be made ({error.strerror}). "
                "Set XDG_CACHE_HOME to a folder that can be written to."
            ) from error
        return cls(endpoint, folder)

    def score(
        self, predictions: Sequence[str], references: Sequence[Sequence[str]], sources: Sequence[str]
    ) -> MetricValue:
        """Return the sum of the predictions' scores over that of the references', in percent.

        100 means as good as the references, more is better than those; 10 to 1000 is possible. Of several
        references the first counts. The judge sees each pair in both orders, and an answer's score is the
        mean of its two, so that a liking for the first place cancels out.

        An example of which a reply stays unreadable is left out of both sums, with a warning. More than one
        in 50 of these are an error: what a judge will not score is hardly like the rest.

        The standard error is that of a ratio estimator: with a_i the scores of the predictions, b_i of the
        references and r their ratio, sqrt(sum (a_i - r b_i)^2) / sum b_i. It is for draws of examples, and
        does not say how far another judge would differ.

        Raises:
            DataError: if there is nothing to score, or an example has no reference; or the judge cannot be
                asked, or does not answer as told.
        """
        check(predictions, references)
        pairs = [
            (question(source, prediction, options[0]), question(source, options[0], prediction))
            for source, prediction, options in zip(sources, predictions, references, strict=True)
        ]
        verdicts = self._verdicts(list(dict.fromkeys(text for pair in pairs for text in pair)))
        own, others = [], []
        read: list[bool] = []
        unreadable: list[str] = []
        for there, back in ((verdicts[one], verdicts[other]) for one, other in pairs):
            read.append(not isinstance(there, str) and not isinstance(back, str))
            if isinstance(there, str) or isinstance(back, str):
                unreadable += [verdict for verdict in (there, back) if isinstance(verdict, str)][:1]
            else:
                own.append((there.first + back.second) / 2)
                others.append((there.second + back.first) / 2)
        self._tell(unreadable, len(pairs))
        value, influences = ratio(own, others)
        # One that is left out has none, and each of the others stands for a little more than itself.
        scaled = iter([influence * len(read) / len(own) for influence in influences])
        return estimate(value, [next(scaled) if is_read else 0.0 for is_read in read])

    def _verdicts(self, questions: Sequence[str]) -> dict[str, Verdict]:
        found: dict[str, Verdict] = {text: kept for text in questions if (kept := self._kept(text))}
        new = [text for text in questions if text not in found]
        _log.info(
            "llm-judge: asking %s at %s %d questions; %d more are answered in %s already",
            self.endpoint.model,
            self.endpoint.url,
            len(new),
            len(found),
            self.folder,
        )
        with ThreadPoolExecutor(AT_ONCE) as pool:
            try:
                found.update(zip(new, pool.map(self._verdict, new), strict=True))
            except BaseException:
                # What fails for one fails for all, or is paid for in vain.
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return found

    def _verdict(self, text: str) -> Verdict:
        reply = ""
        # At temperature 0 the question alone might get the same reply again.
        for asked in (text, f"{text}\n\n{REMINDER}"):
            reply = self.endpoint.ask(asked)
            if scores := read_scores(reply):
                entry = {"model": self.endpoint.model, "question": asked, "reply": reply}
                write_text(self._path(text), json.dumps(entry, ensure_ascii=False, indent=1) + "\n")
                return scores
        return reply

    def _kept(self, text: str) -> Scores | None:
        try:
            return read_scores(json.loads(self._path(text).read_text(encoding="utf-8"))["reply"])
        except (OSError, ValueError, KeyError):
            return None

    def _path(self, text: str) -> Path:
        asked = json.dumps([self.endpoint.url, self.endpoint.model, text])
        return self.folder / f"{hashlib.sha256(asked.encode()).hexdigest()}.json"

    def _tell(self, unreadable: Sequence[str], examples: int) -> None:
        if not unreadable:
            return
        first = " ".join(unreadable[0].split())
        shown = repr(first if len(first) <= 300 else f"{first[:300]}…")
        found = (
            f"llm-judge: for {len(unreadable)} of {examples} examples {self.endpoint.model} put no two "
            f"scores from 1 to 10 on the first line of its reply, asked twice; the first such reply is "
            f"{shown}"
        )
        if len(unreadable) > UNREADABLE * examples:
            raise DataError(
                f"{found}. That is more than one in 50, and they may well be unlike the rest. Name a model "
                f"that keeps to the form in {MODEL}; the replies that could be read are kept."
            )
        _log.warning("%s. They count neither way: the value is of the rest.", found)


def judge(
    predictions: Sequence[str], references: Sequence[Sequence[str]], sources: Sequence[str]
) -> MetricValue:
    """Return what ``Judge.score`` does, of the judge that the environment names.

    Raises:
        DataError: as that does; or if no judge is named.
    """
    return Judge.from_environment().score(predictions, references, sources)


def check_judge() -> None:
    """Refuse to score where the environment names no judge; none is asked.

    Raises:
        DataError: if so, or if its replies cannot be kept.
    """
    Judge.from_environment()


LLM_JUDGE = Metric("llm-judge", higher_is_better=True, function=judge, wants_sources=True, check=check_judge)
