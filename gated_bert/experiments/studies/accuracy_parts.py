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
_AT_ONCE = "random,magnitude,wanda,sparsegpt,obert"
_OBERT_AT_ONCE = "--obert-gradients 256 --obert-recomputations 8"
_LEVELS = "50,60,80,90,95,97"
_PLATEAUS = "-e 11 -ps 2 -ss 50 70 80 80 90 90 95 95 97 97"
"""An epoch unpruned, then two at a level, the last of which counts; a cycle of the rate is two epochs, too."""
_GRADUAL = "--lr-schedule cyclic --lr-cycle 2 --freeze embeddings -l 5e-4 --scope global"
"""2e-4 keeps less from 80 % on, and 1e-3 less before that (magnitude with a teacher, one seed: `docs/accuracy.md`)."""
_RISING = "-e 11 -ps 2 -pe 9 -f 0.97 -p soft_movement --freeze embeddings -l 5e-4"
"""Soft movement closes by a threshold, and stops at no level."""
_ALL = "random,magnitude,movement,wanda,sparsegpt,obert,platon"
_BEST = "magnitude,movement,sparsegpt,obert"


def _levels(
    task: str, common: str, dense: str, methods: Mapping[int, str], gradual: str, levels: str = _LEVELS,
    rising: str = "",
) -> tuple[Part, ...]:  # fmt: skip
    """A dense model for each seed; from it one-shot, gradual, and gradual with it as the teacher.

    Args:
        task: the task's name.
        common: flags of all commands.
        dense: those of the dense models.
        methods: seed → methods that are trained from its dense model.
        gradual: flags of gradual pruning.
        levels: per cent, of one-shot pruning.
        rising: flags of what closes by a threshold, with the first seed; none where it is left out.
    """
    parts = [Part(f"{task}-dense", f"{common} {dense} --seeds {','.join(map(str, methods))}")]
    for place, (seed, names) in enumerate(methods.items()):
        folder = f"results_baseline_{task}" + (f"_seed{seed}" if len(methods) > 1 else "")
        model = f"{{study}}/{task}-dense/{folder}/model"
        start = f"{common} -pt {model} --seeds {seed}"
        at_once = f"--strategy {_AT_ONCE} --sparsities {levels} -e 0 {_ENCODER} {_OBERT_AT_ONCE}"
        parts.append(Part(f"{task}-oneshot-{seed}", f"{start} {at_once}", "oneshot"))
        for way, teacher in (("taught", f" --teacher {model}"), ("trained", "")):
            parts.append(Part(f"{task}-{way}-{seed}", f"{start} -p {names} {gradual}{teacher}"))
            if rising and place == 0:
                parts.append(Part(f"{task}-{way}-rising-{seed}", f"{start} {rising}{teacher}"))
    return tuple(parts)


_CUT = "--num-layers 1 --train-examples 64 -b 16"
_CUT_GRADUAL = "-e 2 -ps 2 -ss 50 -l 1e-4 --scope global --obert-gradients 4"

ACCURACY = Study(
    "what each method keeps of the dense model's metric at 50 to 97 %, at once and trained, without and with a teacher",
    None,
    {
        "smoke": _levels(
            "sst2",
            f"-t sst2 -ml 32 --precision auto {_CUT}",
            "-p baseline -l 1e-4 -e 1",
            {1: "magnitude,sparsegpt"},
            _CUT_GRADUAL,
            "50",
        ),
        "standard": (
            *_levels(
                "sst2", _SST2, _DENSE, {1: _ALL, 2: _BEST, 3: _BEST}, f"{_PLATEAUS} {_GRADUAL}", rising=_RISING
            ),
            *_levels("stsb", _STSB, "-p baseline -l 1e-4 -e 4", {1: _BEST}, f"{_PLATEAUS} {_GRADUAL}"),
            *_levels("qnli", _QNLI, _DENSE, {1: "magnitude,sparsegpt"}, f"{_PLATEAUS} {_GRADUAL}"),
        ),
        "full": tuple(
            part
            for task, common in (("sst2", "-t sst2 -ml 64"), ("mnli", "-t mnli -ml 128"), ("stsb", "-t stsb -ml 128"))
            for part in _levels(
                task,
                f"{common} {_COMMON}",
                "-p baseline -l 3e-5 -e 3",
                dict.fromkeys((1, 2, 3), _ALL),
                f"-e 31 -ps 2 -ss {' '.join(f'{level} ' * 6 for level in (50, 80, 90, 95, 97))} "
                + _GRADUAL.replace("--lr-cycle 2", "--lr-cycle 6"),
                rising=_RISING.replace("-e 11", "-e 31").replace("-pe 9", "-pe 27"),
            )
        ),
    },
    pretrained=True,
    accuracy=True,
)

_ABLATED = {
    "random": "-p random",
    "magnitude": "-p magnitude",
    "default": "-p movement",
    "published-masks": "-p movement --movement-frequency 100",
    "every-step": "-p movement --movement-frequency 1",
    "linear": "-p movement --movement-schedule linear",
    "embeddings-trained": "-p movement --freeze none",
    "not-clipped": "-p movement --clip-norm none",
    "low-rate": "-p movement -l 3e-5",
}
"""Each differs from `default` in one thing."""


def _ablation(common: str) -> tuple[Part, ...]:
    return tuple(Part(name, f"--freeze embeddings {common} {flags}") for name, flags in _ABLATED.items())


MOVEMENT = Study(
    "which of its settings movement needs in short runs, beside magnitude and random order",
    None,
    {
        "smoke": _ablation(f"-t sst2 -ml 32 {_CUT} -l 1e-4 -e 2 -ps 1 -pe 2 -f 0.8")[:4],
        "standard": _ablation(
            f"-t sst2 -ml 64 --train-examples 8000 {_COMMON} -l 1e-4 -e 6 -ps 1 -pe 5 -f 0.8 --seeds 1"
        ),
        "full": _ablation(f"-t sst2 -ml 64 {_COMMON} -l 3e-5 -e 6 -ps 1 -pe 5 -f 0.9 --seeds 1,2,3"),
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
