"""Studies: named sets of sweeps whose figures the project publishes, at three scales."""

from __future__ import annotations

from collections.abc import Sequence

from gated_bert.config.methods import STRATEGIES
from gated_bert.experiments.studies.accuracy_parts import ACCURACY, MOVEMENT, UNITS
from gated_bert.experiments.studies.latency_parts import LATENCY
from gated_bert.experiments.studies.part import Part, Study

SCALES = ("smoke", "standard", "full")
FOUR = "baseline,magnitude,movement,spt"
FIVE = f"{FOUR},random"


_EMBEDDED = "-t sst2 -m tiny -b 64 -l 1e-3"
_SST2 = "-t sst2 -m tiny -l 2e-4 --dropout 0.3 --schedule auto"
_TUNE = "-l 1.5e-4 -ml 128 --dropout 0.1 --precision auto"
_MRPC = "-t mrpc -p baseline -l 1e-4 -ml 128 --dropout 0.1 -b 16 -e 4 --precision auto"
_SHORT = "-b 32 -e 5 -pe 4 -f 0.95 --movement-frequency 20"
_LONG = f"-b 32 -p {FIVE} -e 20 -ps 3 -pe 16 -f 0.95 --schedule cubic --seeds 1,2,3,4,5"
_CUT = "-l 5e-5 -b 16 -ml 48 --num-layers 1 --train-examples 64"

_SPT = {
    "element-random": "-p random --scope global",
    "element-taylor": "-p spt --spt-reward taylor",
    "neuron-regression": "-p spt --spt-unit neuron --spt-credit regression",
    "element-measured": "-p spt",
    "element-published": "-p spt --spt-variant published",
    "neuron-random": "-p random --pattern neuron --scope global",
    "neuron-measured": "-p spt --spt-unit neuron",
    "neuron-taylor": "-p spt --spt-unit neuron --spt-reward taylor",
}


_PATTERNS = {
    "element": "",
    "row": "",
    "column": "",
    "block": "",
    "head": "",
    "head_dim": "",
    "neuron": "",
    "head_neuron": "",
    "qkv_row": "",
    "k_tile": "--granularity 64",
    "vector": "",
    "tile": "--granularity 64 --scope global",
    "tile-kn": "--granularity 64 --scope global --tile-dims kn",
    "tile_element": "--granularity 64 --scope global",
}


def _pattern_parts(common: str, names: Sequence[str]) -> tuple[Part, ...]:
    return tuple(
        Part(name, f"{_EMBEDDED} {common} --pattern {name.partition('-')[0]} {_PATTERNS[name]}") for name in names
    )


_TILES = "--granularity 64"
_EQUAL = "--normalize-scores"
_MINILM_PATTERNS = {
    "element": "--pattern element --seeds 1,2,3",
    "tile": f"--pattern tile {_TILES} --seeds 1,2,3",
    "tile-normalized": f"--pattern tile {_TILES} {_EQUAL}",
    "head_neuron": "--pattern head_neuron",
    "tile-kn": f"--pattern tile --tile-dims kn {_TILES} {_EQUAL}",
    "tile_element": f"--pattern tile_element {_TILES} {_EQUAL}",
    "block": f"--pattern block {_EQUAL}",
    "vector": "--pattern vector",
}
"""Units of single matrices compete with those of all others. MiniLM's matrices differ in scale, hence `_EQUAL`."""
_SEVEN = tuple(name for name in _MINILM_PATTERNS if name != "tile-normalized")


def _stage_parts(dense: str, common: str, names: Sequence[str]) -> tuple[Part, ...]:
    """A dense model, and patterns pruned from it in two stages; vectors compete only with themselves."""
    start = "-pt {study}/dense/results_baseline_mrpc/model --stages 50,75"
    return (
        Part("dense", dense),
        *(
            Part(name, f"-t mrpc -p magnitude --scope global {_MINILM_PATTERNS[name]} {common} {start}")
            for name in names
        ),
    )


_SPANS = "-t squad --dropout 0.1 -b 8 -l 2e-4 --precision auto"
_STRATEGIES = ",".join(STRATEGIES)
_EXAMPLE = "LayerGradCAMShift,LayerSmoothGrad,LayerMagWeight,LayerSmoothGradCAMShift,RandomPruning"
"""Those of the published example, and the control."""
_SALIENCY = "-ml 64 --dropout 0.1 -b 32 -l 1.5e-4 --precision auto"


def _saliency_parts(
    common: dict[str, str], tickets: str, strategies: str = _STRATEGIES, sparsities: str = "64,91.4,96"
) -> tuple[Part, ...]:
    """`strategies` on SST-2 and the example's on other tasks, tickets, and how much the masks of one seed overlap."""
    first = [f"{{study}}/sst2/results_{name}_sst2_sparsity64_seed1" for name in strategies.split(",")]
    return (
        *(
            Part(
                task,
                f"-t {task} --strategy {strategies if task == 'sst2' else _EXAMPLE} {_SALIENCY} {flags} "
                f"--sparsities {sparsities}",
                "oneshot",
            )
            for task, flags in common.items()
        ),
        Part("tickets", f"-t sst2 -p LayerMagWeight,LayerGradCAMShift -f 0.64 {_SALIENCY} {tickets}", "lottery"),
        Part("iou", " ".join(first), "iou"),
    )


_CUT_SPANS = "--num-layers 1 --train-examples 32"
_HALF = "--criterion magnitude --pattern head_neuron --schedule cubic -f 0.5"


_NEWS = "-t ag_news --allow-partial -ml 128 --dropout 0.1 -b 32 -l 1e-4"
_SHORT_NEWS = f"{_NEWS} {_CUT} -ml 16 --dense-epochs 1 -e 1 --levels 40"
_SOME_NEWS = f"{_NEWS} --train-examples 8000 --dense-epochs 2 -e 1"
_ALL_NEWS = f"{_NEWS} --dense-epochs 3 -e 3"
_EXPLAINED = "--student-epochs 15 --student-seeds 1,2,3,4,5 --xai-weights 0.01,0.03,0.1,0.3"
_FEW_EXPLAINED = (
    "--documents 2 --pick 4 --num-samples 20 --token-documents 3 --student-seeds 1 --student-epochs 1 --xai-weights 0.3"
)


def _spt_parts(common: str, most: int | None = None) -> tuple[Part, ...]:
    return tuple(Part(name, f"{_EMBEDDED} {common} {flags}") for name, flags in list(_SPT.items())[:most])


def _pretrained_parts(task: str) -> tuple[Part, ...]:
    """Movement closes weights inside epochs, so it starts an epoch later, by when its scores say something."""
    return (
        Part(f"{task}-movement", f"{_TUNE} -t {task} {_SHORT} -p movement -ps 2"),
        Part(f"{task}-pruned", f"{_TUNE} -t {task} {_SHORT} -p magnitude,spt,random -ps 1"),
    )


STUDIES = {
    "embedded": Study(
        "accuracy against sparsity up to 90 % on embedded data, four methods, eight seeds",
        "embedded",
        {
            "smoke": (Part("sst2", f"{_EMBEDDED} -p {FOUR} -e 2 -ps 1 -pe 2 -f 0.9 --train-examples 300 --seeds 1"),),
            "standard": (Part("sst2", f"{_EMBEDDED} -p {FOUR} -e 8 -ps 3 -pe 7 -f 0.9 --seeds 1,2,3,4,5,6,7,8"),),
            "full": (Part("sst2", f"{_EMBEDDED} -p {FIVE} -e 16 -ps 4 -pe 13 -f 0.99 --seeds 1,2,3,4,5,6,7,8"),),
        },
    ),
    "spt": Study(
        "what each SPT option is worth against random and against the published behaviour, at 70, 80 and 90 %",
        "embedded",
        {
            "smoke": _spt_parts("-e 2 -ps 1 -pe 2 -ss 50 70 --train-examples 200 --seeds 1", 3),
            "standard": _spt_parts("-e 7 -ps 4 -pe 7 -ss 50 70 80 90 --seeds 1,2,3"),
            "full": _spt_parts("-e 16 -ps 5 -pe 12 -ss 30 50 60 70 75 80 85 90 --seeds 1,2,3,4,5"),
        },
    ),
    "patterns": Study(
        "every pattern by magnitude, Taylor and movement at 50 % of the matrices it prunes, and the products saved",
        "embedded",
        {
            "smoke": _pattern_parts(
                "-p magnitude,taylor -e 2 -ps 2 -pe 2 -ss 50 --train-examples 200 --seeds 1", ("head_neuron", "tile-kn")
            ),
            "standard": (
                Part("dense", f"{_EMBEDDED} -p baseline -e 6 --seeds 1"),
                *_pattern_parts("-p magnitude,taylor,movement -e 6 -ps 3 -pe 5 -f 0.5 --seeds 1", tuple(_PATTERNS)),
            ),
            "full": _pattern_parts(
                "-p magnitude,taylor,movement,random -e 16 -ps 4 -pe 12 -f 0.75 --seeds 1,2,3", tuple(_PATTERNS)
            ),
        },
    ),
    "stages": Study(
        "MRPC from pretrained weights, patterns pruned to 50 and 75 % in two stages, beside dense",
        None,
        {
            "smoke": _stage_parts(f"{_CUT} -t mrpc -p baseline -e 1", f"{_CUT} -e 1", ("head_neuron", "tile-kn")),
            "standard": _stage_parts(_MRPC, f"{_TUNE} -b 32 -e 2", _SEVEN),
            "full": _stage_parts(_MRPC, f"{_TUNE} -b 32 -e 4 --seeds 1,2,3,4,5", tuple(_MINILM_PATTERNS)),
        },
        pretrained=True,
    ),
    "squad": Study(
        "SQuAD from pretrained weights, dense and with half of the heads and neurons gone",
        None,
        {
            "smoke": (
                Part("dense", f"{_SPANS} {_CUT_SPANS} -p baseline -e 1"),
                Part("structured", f"{_SPANS} {_CUT_SPANS} {_HALF} -s 0 -ps 1 -pe 2 -e 2"),
            ),
            "standard": (
                Part("dense", f"{_SPANS} -p baseline -e 10"),
                Part("structured", f"{_SPANS} {_HALF} -s 0 -ps 4 -pe 8 -e 10"),
            ),
            "full": (
                Part("dense", f"{_SPANS} -p baseline -e 10 --seeds 1,2,3"),
                Part("structured", f"{_SPANS} {_HALF} -s 0 -ps 4 -pe 8 -e 10 --seeds 1,2,3"),
            ),
        },
        pretrained=True,
    ),
    "saliency": Study(
        "the strategies of ShrinkBench and DeepCuts at 64, 91.4 and 96 %, tickets, and the overlap of their masks",
        None,
        {
            "smoke": _saliency_parts(
                {"sst2": "--num-layers 1 --train-examples 64 --dense-epochs 1 -e 1 --seeds 1,2 --score-batches 1"},
                "--num-layers 1 --train-examples 64 -e 1 --controls random",
                "LayerMagWeight,LayerSmoothGrad",
                "64",
            ),
            "standard": _saliency_parts(
                {
                    "sst2": "--num-layers 3 --train-examples 2000 --dense-epochs 4 -e 1 --seeds 1,2,3",
                    "cola": "--train-examples 2000 --dense-epochs 6 -e 1 --seeds 1,2,3",
                    "stsb": "--train-examples 1000 --dense-epochs 6 -e 1 --seeds 1,2,3",
                },
                "--num-layers 3 --train-examples 2000 -e 3 --seeds 1,2,3",
            ),
            "full": _saliency_parts(
                {task: "--dense-epochs 3 -e 3 --seeds 1,2,3,4,5" for task in ("sst2", "cola", "stsb")},
                "-e 3 --rounds 10 --seeds 1,2,3,4,5",
            ),
        },
        pretrained=True,
    ),
    "ag_news": Study(
        "AG News: 20, 30 and 40 % of the heads and neurons removed, shrunk, in 32, 16 and 8 bits",
        None,
        {
            "smoke": (Part("compress", _SHORT_NEWS, "compress"),),
            "standard": (Part("compress", _SOME_NEWS, "compress"),),
            "full": (Part("compress", _ALL_NEWS, "compress"),),
        },
        pretrained=True,
    ),
    "explanations": Study(
        "AG News: what the compression of study ag_news does to explanations; goes on in that study's folder",
        None,
        {
            "smoke": (Part("compress", f"{_SHORT_NEWS} {_FEW_EXPLAINED}", "pipeline"),),
            "standard": (Part("compress", f"{_SOME_NEWS} {_EXPLAINED}", "pipeline"),),
            "full": (Part("compress", f"{_ALL_NEWS} --token-documents 1000 {_EXPLAINED}", "pipeline"),),
        },
        pretrained=True,
    ),
    "sst2": Study(
        "accuracy against sparsity on SST-2, tiny from scratch, the published step schedule resampled",
        None,
        {
            "smoke": (Part("sst2", f"{_SST2} -p {FOUR} -e 3 -ps 1 -pe 3 -b 32 -ml 32 --train-examples 300"),),
            "standard": (Part("sst2", f"{_SST2} -p {FOUR} -e 8 -ps 1 -pe 8 -b 96 -ml 48"),),
            "full": (Part("sst2", f"{_SST2} -p {FIVE} -e 25 -ps 4 -pe 23 -b 96 -ml 128 --seeds 1,2,3"),),
        },
    ),
    "pretrained": Study(
        "MRPC and STS-B from pretrained weights, dense and down to 5 % of the weights, beside random",
        None,
        {
            "smoke": (
                Part("mrpc-dense", f"{_CUT} -t mrpc -p baseline -e 1"),
                Part("mrpc", f"{_CUT} -t mrpc -p magnitude,random -e 1 -ps 1 -pe 1 -f 0.95"),
            ),
            "standard": (
                Part("mrpc-6-layers", f"{_MRPC} --seeds 42,1,2"),
                Part("stsb-6-layers", f"{_TUNE} -b 32 -t stsb -p baseline -e 2"),
                *_pretrained_parts("mrpc"),
                *_pretrained_parts("stsb"),
            ),
            "full": tuple(Part(f"{task}-6-layers", f"{_TUNE} -t {task} {_LONG}") for task in ("mrpc", "stsb")),
        },
        pretrained=True,
    ),
    "accuracy": ACCURACY,
    "latency": LATENCY,
    "movement": MOVEMENT,
    "units": UNITS,
}


def about(names: Sequence[str] = ()) -> str:
    """Of one study what it asks and its parts at each scale, else of all of them what they ask; a line each."""
    if len(names) != 1 or names[0] not in STUDIES:
        asked = "\n".join(f"  {name}: {study.question}" for name, study in STUDIES.items())
        return f"Runs a study, or goes on with it. `gated-bert study NAME -h` names its parts.\n{asked}"
    study = STUDIES[names[0]]
    parts = "\n".join(f"  {scale}: {', '.join(part.name for part in study.parts[scale])}" for scale in SCALES)
    return f"{names[0]}: {study.question}. Parts at each scale:\n{parts}"
