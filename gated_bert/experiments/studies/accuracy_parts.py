"""The studies of accuracy from pretrained weights: which method keeps most, what movement needs, what ranks units."""

from __future__ import annotations

from collections.abc import Mapping

from gated_bert.experiments.studies.part import Part, Study

_COMMON = "-b 32 --dropout 0.1 --precision auto"
_SST2 = f"-t sst2 -ml 64 --train-examples 16000 {_COMMON}"
_QNLI = f"-t qnli --allow-partial -ml 128 --train-examples 8000 {_COMMON}"
_STSB = f"-t stsb -ml 96 {_COMMON}"
_DENSE = "-p baseline -l 1e-4 -e 2"
_ENCODER = "--prunable-roles query key value attention_output ffn_intermediate ffn_output"
_AT_ONCE = "random,magnitude,wanda,sparsegpt"
_OBERT_AT_ONCE = "--strategy obert -e 0 --obert-gradients 256 --obert-recomputations 8"
_LEVELS = "50,60,80,90,95,97"
_PLATEAUS = "-e 11 -ps 2 -ss 50 70 80 80 90 90 95 95 97 97"
"""An epoch unpruned, then two at a level, the last of which counts; a cycle of the rate is two epochs, too."""
_GRADUAL = "--lr-schedule cyclic --lr-cycle 2 --freeze embeddings -l 5e-4 --scope global --obert-gradients 256"
"""2e-4 keeps less from 80 % on, and 1e-3 less before that (magnitude with a teacher, one seed: `docs/accuracy.md`)."""
_RISING = "-e 11 -ps 2 -pe 9 -f 0.97 -p soft_movement --freeze embeddings -l 5e-4"
"""Soft movement closes by a threshold, and stops at no level."""
_ALL = "random,magnitude,movement,wanda,sparsegpt,obert,platon"
_COMPARED = "magnitude,sparsegpt,platon"
_OTHERS = "wanda,random,obert"
_Methods = Mapping[int, str]
"""Seed → methods, separated by commas."""


def _levels(
    task: str, common: str, dense: str, gradual: str, *, taught: _Methods, trained: _Methods, levels: str = _LEVELS,
    per_layer: str = "", recipe: str = "", others: str = "", obert: str = "", rising: str = "",
) -> tuple[Part, ...]:  # fmt: skip
    """A dense model for each seed; from it one-shot, gradual with it as the teacher, and gradual without.

    Args:
        task: the task's name.
        common: flags of all commands.
        dense: those of the dense models.
        gradual: flags of gradual pruning.
        taught: what has the dense model as its teacher; its seeds are those of the dense models.
        trained: what has none.
        levels: per cent, of one-shot pruning.
        per_layer: what is taught with every seed, and has no teacher with the first, each matrix by itself: all over
            the model movement leaves matrices empty, and ends at the majority class.
        recipe: flags of a recipe, which is taught with every seed.
        others: what is taught with the first seed alone.
        obert: those of one-shot oBERT, with the first seed.
        rising: flags of what closes by a threshold, as `per_layer`.
    """

    def dense_model(seed: int) -> str:
        folder = f"results_baseline_{task}" + (f"_seed{seed}" if len(taught) > 1 else "")
        return f"{{study}}/{task}-dense/{folder}/model"

    def start(seed: int) -> str:
        return f"{common} -pt {dense_model(seed)} --seeds {seed}"

    parts = [Part(f"{task}-dense", f"{common} {dense} --seeds {','.join(map(str, taught))}")]
    for seed in taught:
        at_once = f"--strategy {_AT_ONCE} --sparsities {levels} -e 0 {_ENCODER}"
        parts.append(Part(f"{task}-oneshot-{seed}", f"{start(seed)} {at_once}", "oneshot"))

    def gradually(way: str, name: str, seed: int, flags: str):
        teacher = f" --teacher {dense_model(seed)}" if way == "taught" else ""
        parts.append(Part(f"{task}-{way}{name}-{seed}", f"{start(seed)} {flags}{teacher}"))

    for seed, names in taught.items():
        gradually("taught", "", seed, f"-p {names} {gradual}")
    for seed, names in trained.items():
        gradually("trained", "", seed, f"-p {names} {gradual}")
    first = next(iter(taught))
    for way, seed in (*(("taught", seed) for seed in taught), ("trained", first)):
        if per_layer:
            gradually(way, "-per-layer", seed, f"-p {per_layer} {gradual.replace('--scope global', '--scope layer')}")
        if rising:
            gradually(way, "-rising", seed, rising)
        if recipe and way == "taught":
            gradually(way, "-recipe", seed, recipe)
    if others:
        gradually("taught", "-others", first, f"-p {others} {gradual}")
    if obert:
        at_once = f"{_OBERT_AT_ONCE} --sparsities {obert} {_ENCODER}"
        parts.append(Part(f"{task}-oneshot-obert-{first}", f"{start(first)} {at_once}", "oneshot"))
    return tuple(parts)


_CUT = "--num-layers 1 --train-examples 64 -b 16"
_CUT_GRADUAL = "-e 2 -ps 2 -ss 50 -l 1e-4 --scope global --obert-gradients 4"

ACCURACY = Study(
    "what each method keeps of the dense model's metric at 50 to 97 %, at once and trained, without and with a teacher",
    None,
    {
        "smoke": _levels(
            "sst2", f"-t sst2 -ml 32 --precision auto {_CUT}", "-p baseline -l 1e-4 -e 1", _CUT_GRADUAL,
            taught={1: "magnitude,sparsegpt"}, trained={1: "magnitude,sparsegpt"}, levels="50", obert="50",
        ),
        "standard": (
            *_levels(
                "sst2", _SST2, _DENSE, f"{_PLATEAUS} {_GRADUAL}",
                taught=dict.fromkeys((1, 2, 3), _COMPARED), per_layer="movement", rising=_RISING,
                trained={1: f"{_COMPARED},{_OTHERS}", **dict.fromkeys((2, 3), "magnitude,platon")},
                recipe="--recipe best -f 0.9",
                others=_OTHERS, obert="60,80,90",
            ),
            *_levels(
                "stsb", _STSB, "-p baseline -l 1e-4 -e 4", f"{_PLATEAUS} {_GRADUAL}",
                taught={1: _COMPARED}, trained={},
            ),
            *_levels(
                "qnli", _QNLI, _DENSE, f"{_PLATEAUS} {_GRADUAL}", taught={1: f"{_COMPARED},random"},
                trained={1: "magnitude"},
            ),
        ),
        "full": tuple(
            part
            for task, common in (("sst2", "-t sst2 -ml 64"), ("mnli", "-t mnli -ml 128"), ("stsb", "-t stsb -ml 128"))
            for part in _levels(
                task, f"{common} {_COMMON}", "-p baseline -l 3e-5 -e 3",
                f"-e 31 -ps 2 -ss {' '.join(f'{level} ' * 6 for level in (50, 80, 90, 95, 97))} "
                + _GRADUAL.replace("--lr-cycle 2", "--lr-cycle 6"),
                taught=dict.fromkeys((1, 2, 3), _ALL), trained=dict.fromkeys((1, 2, 3), _ALL), obert=_LEVELS,
                rising=_RISING.replace("-e 11", "-e 31").replace("-pe 9", "-pe 27"),
            )
        ),
    },  # fmt: skip
    pretrained=True,
    accuracy=True,
)

_ABLATED = {
    "random": "-p random",
    "magnitude": "-p magnitude",
    "default": "-p movement",
    "published-masks": "-p movement --movement-frequency 100",
    "every-step": "-p movement --movement-frequency 1",
    "cubic": "-p movement --movement-schedule cubic",
    "global": "-p movement --scope global",
    "embeddings-trained": "-p movement --freeze none",
    "not-clipped": "-p movement --clip-norm none",
    "low-rate": "-p movement -l {low_rate}",
}
"""Each differs from `default` in one thing."""


def _ablation(common: str, low_rate: str) -> tuple[Part, ...]:
    return tuple(
        Part(name, f"--freeze embeddings {common} {flags.format(low_rate=low_rate)}")
        for name, flags in _ABLATED.items()
    )


_AS_PUBLISHED = f"-t sst2 -ml 64 {_COMMON} -e 6"
_LONG = (
    Part("recipe", f"{_AS_PUBLISHED} --recipe movement -p movement,magnitude,platon -f 0.9 --seeds 1,2,3"),
    Part("recipe-soft", f"{_AS_PUBLISHED} --recipe soft_movement -f 0.9 --seeds 1"),
)
"""Movement as it was published, and others by its rate and windows: all examples, 12,630 steps."""


MOVEMENT = Study(
    "which of its settings movement needs in short runs, beside magnitude and random order; full: also its recipe",
    None,
    {
        "smoke": _ablation(f"-t sst2 -ml 32 {_CUT} -l 1e-4 -e 2 -ps 1 -pe 2 -f 0.8", "3e-5")[:4],
        "standard": _ablation(
            f"-t sst2 -ml 64 --train-examples 8000 {_COMMON} -l 1e-4 -e 6 -ps 1 -pe 5 -f 0.8 --seeds 1",
            "3e-5",
        ),
        "full": (
            *_ablation(f"-t sst2 -ml 64 {_COMMON} -l 3e-5 -e 6 -ps 1 -pe 5 -f 0.9 --seeds 1,2,3", "1e-5"),
            *_LONG,
        ),
    },
    pretrained=True,
)

_RANKED = {
    "random": "-p random",
    "magnitude": "-p magnitude",
    "taylor": "-p taylor",
    "platon": "-p platon",
    "spt-measured": "-p spt --spt-unit head_neuron",
    "spt-regression": "-p spt --spt-unit head_neuron --spt-credit regression",
    "spt-taylor": "-p spt --spt-unit head_neuron --spt-reward taylor",
}


def _units(common: str) -> tuple[Part, ...]:
    common = f"{common} --pattern head_neuron --scope global"
    return tuple(Part(name, f"{common} {flags}") for name, flags in _RANKED.items())


UNITS = Study(
    "what ranks heads and neurons: SPT's rewards beside random order, magnitude, Taylor and PLATON, at 50 %",
    None,
    {
        "smoke": _units(f"-t sst2 -ml 32 {_CUT} -l 1e-4 -e 2 -ps 2 -pe 2 -f 0.5")[3:6],
        "standard": _units(
            f"-t sst2 -ml 64 --train-examples 8000 {_COMMON} -l 1e-4 -e 4 -ps 2 -pe 3 -f 0.5 --freeze embeddings "
            "--seeds 1,2,3"
        ),
        "full": _units(f"-t sst2 -ml 64 {_COMMON} -l 3e-5 -e 6 -ps 2 -pe 5 -f 0.5 --seeds 1,2,3,4,5"),
    },
    pretrained=True,
)
