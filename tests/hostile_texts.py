"""Random recipes and plans: most nearly right, some bombs, some noise. A seed gives the same text again."""

from __future__ import annotations

import json
from random import Random

RECIPE = """\
version: 1
description: fuzzed
model: embedded:t5-g2p
task: {name: g2p}
budget: {metric: params, sparsity: 0.3, scope: ["encoder.*"]}
methods:
  nash: {decoder_layers: 3}
  deep:
    method: nash
    budget: {sparsity: 0.6}
    recover: {epochs: 0.5, distill: {logits: 1}}
  magnitude:
train: {epochs: 4, learning_rate: 3e-4}
recover: {batch_size: 8}
evaluate: {split: test}
speed: {rounds: 3}
seed: 3
"""

SCALARS = (
    *(
        "1e999",
        ".inf",
        "-.inf",
        ".nan",
        "0",
        "-1",
        "1" + "0" * 5000,
        "0x" + "f" * 900,
        "99999999999999999999",
    ),
    *("1:59:59", "0o17", "1_000", "+.5", "1e308", "~", "null", "yes", "off", "''", '"', "'", "=", "<<", "*a"),
    *("2020-01-01", "2020-99-99", "2020-01-01T99:99:99Z", "!!python/object/apply:os.system [ls]", "!!int x"),
    *("!!binary aGk=", "!!set {a}", "!!omap [a: 1]", "!!timestamp x", "!!float ''", "!!bool 3", "!local x"),
    *("&a [*a]", "[1, [2, [3]]]", "{a: {b: c}}", "{<<: 3}", "[" * 60 + "]" * 60, "[" * 4000, "{a: " * 2000),
    *(
        '"\\ud800"',
        '"\\0"',
        '"\\U00110000"',
        '"\\e[2J"',
        '"\\u202e"',
        '"[red]x[/red]"',
        "x" * 3000,
        "a: b: c",
    ),
    *(
        "../../etc/passwd",
        "/dev/zero",
        "embedded:../..",
        "<script>",
        "=1+1",
        "%YAML 9.9",
        "--- x",
        "| x",
        "\t",
    ),
)
CHARACTERS = "{}[]:,&*!|>'\"%@`#-? \n\t~=\\abc019.\0\x1b\x7f\x85\xa0\u202e\u2028\ufeff\uffff\U0001f600"
KEYS = (
    *(
        "version",
        "model",
        "task",
        "name",
        "budget",
        "sparsity",
        "metric",
        "scope",
        "ratio",
        "methods",
        "method",
    ),
    *(
        "train",
        "epochs",
        "recover",
        "distill",
        "seed",
        "published",
        "teacher",
        "speed",
        "evaluate",
        "<<",
        "1",
    ),
    *(
        "data",
        "trust_remote_code",
        "config",
        "type",
        "macs",
        "length",
        "nash",
        "~",
        "*",
        "\x1b[31m",
        "x" * 300,
    ),
)


def random_recipe(random: Random) -> bytes:
    """A recipe's file, as somebody might hand it over."""
    kind = random.random()
    if kind < 0.03:
        return random.randbytes(random.randrange(200))
    if kind < 0.06:
        return _bomb(random).encode()
    if kind < 0.2:
        return json.dumps(_tree(random, 4), ensure_ascii=random.random() < 0.5).encode("utf-8", "replace")
    lines = RECIPE.splitlines()
    for _ in range(random.choice([0, 1, 1, 2, 3])):
        _change(lines, random)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def random_setting(random: Random) -> str:
    """What might stand behind ``--set``."""
    key = ".".join(random.choice(KEYS) for _ in range(random.randrange(1, 4)))
    return f"{key}{random.choice('==== :')}{random.choice(SCALARS)}"


def _change(lines: list[str], random: Random) -> None:
    at = random.randrange(len(lines)) if lines else 0
    line = lines[at] if lines else ""
    match random.randrange(7):
        case 0:
            lines[at : at + 1] = [line.partition(":")[0] + ": " + random.choice(SCALARS)]
        case 1:
            lines.insert(at, line)
        case 2:
            del lines[at : at + 1]
        case 3:
            lines.insert(at, f"{random.choice(KEYS)}: {random.choice(SCALARS)}")
        case 4:
            lines.insert(at, " " * random.randrange(5) + f"{random.choice(KEYS)}: &a {{epochs: 1}}")
        case 5:
            place = random.randrange(len(line) + 1)
            lines[at : at + 1] = [line[:place] + random.choice(CHARACTERS) + line[place:]]
        case _:
            place = random.randrange(len(line) + 1)
            lines[at : at + 1] = [line[:place] + random.choice(SCALARS)]


def _bomb(random: Random) -> str:
    width, depth = random.randrange(2, 12), random.randrange(3, 12)
    kind = random.random()
    if kind < 0.5:
        levels = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]\n" for i in range(1, depth)]
        return RECIPE + f"a0: &a0 [{', '.join(['x'] * width)}]\n" + "".join(levels)
    if kind < 0.8:
        levels = [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * width)}]}}\n" for i in range(1, depth)]
        return RECIPE + "a0: &a0 {x: 1}\n" + "".join(levels)
    return RECIPE + random.choice(["- ", "? ", "[", "{x: "]) * random.randrange(20_000)


def _tree(random: Random, depth: int) -> object:
    kind = random.random()
    if depth and kind < 0.5:
        return {random.choice(KEYS): _tree(random, depth - 1) for _ in range(random.randrange(6))}
    if depth and kind < 0.65:
        return [_tree(random, depth - 1) for _ in range(random.randrange(4))]
    return random.choice([None, True, -1, 0, 1, 2**70, 0.3, 1e308, float("nan"), random.choice(SCALARS)])


def random_plan(random: Random, sizes: dict[str, int]) -> bytes:
    """A ``plan.json`` for a model with groups of these sizes, as somebody might hand it over."""
    if random.random() < 0.05:
        return random.randbytes(random.randrange(100))
    names = random.sample(sorted(sizes), min(len(sizes), random.randrange(4)))
    keep: dict[str, object] = {}
    for name in names:
        keep[name] = sorted(random.sample(range(sizes[name]), random.randrange(sizes[name] + 1)))
    scale = {name: [random.choice([0.5, 1, 2.0]) for _ in keep[name]] for name in names[:1]}  # type: ignore[attr-defined]
    plan: dict[str, object] = {"format": 1, "keep": keep, "scale": scale, "method": "fuzz"}
    for _ in range(random.choice([0, 0, 1, 2])):
        _spoil(plan, keep, scale, random)
    text = json.dumps(plan)
    for _ in range(random.choice([0, 0, 0, 1])):
        place = random.randrange(len(text))
        odd = random.choice([*CHARACTERS, "NaN", "1" * 5000, "[" * 3000, '{"keep": 1,', "1e999", '"\\ud800"'])
        text = text[:place] + odd + text[place + random.randrange(3) :]
    return text.encode("utf-8", "surrogatepass")


def _spoil(plan: dict, keep: dict, scale: dict, random: Random) -> None:
    name = random.choice([*keep, "encoder.9.ffn.neurons", "", "\x1b[2J", "x" * 500])
    odd = random.choice([-1, 10**30, 1.5, "3", True, None, [], {}, float("nan"), float("inf"), 1e308, 5, 0])
    match random.randrange(6):
        case 0:
            keep[name] = [odd]
        case 1:
            keep[name] = [0, *([odd] * random.randrange(3)), 1]
        case 2:
            scale[name] = [odd]
        case 3:
            plan[random.choice(["format", "keep", "scale", "method", "budget", "achieved", "extra"])] = odd
        case 4:
            keep[name] = odd
        case _:
            keep[name] = list(range(random.choice([1, 10, 5000])))
