"""The study of speed: families of models by measured speed, beside those of magnitude and of random order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gated_bert.experiments.studies.part import Part, Study

_TRAINED = "-b 32 --dropout 0.1"
_SST2 = f"-t sst2 -ml 64 --train-examples 16000 {_TRAINED}"
_AG_NEWS = f"-t ag_news --allow-partial -ml 128 --train-examples 16000 {_TRAINED}"
_SPEEDUPS = "2,4,6,8,10,12"


def _families(
    task: str, common: str, dense: str, seeds: Sequence[int], more: Mapping[str, str], speedups: str = _SPEEDUPS
) -> tuple[Part, ...]:
    """A dense model for each seed, from it a family in 8 bits, and from the first seed's further ones.

    Args:
        task: the task's name.
        common: flags of all commands.
        dense: those of the dense models.
        seeds: of the dense models.
        more: name → flags of further families.
        speedups: of all but those that say their own.
    """
    parts = [Part(f"{task}-dense", f"{common} {dense} --seeds {','.join(map(str, seeds))}")]
    usual = f"--precision int8 --train-precision auto -l 2e-4 -e 2 --speedups {speedups}"
    for seed in seeds:
        parts.append(_family(f"{task}-{seed}", task, f"{common} {usual}", seed, len(seeds) > 1))
    for name, flags in more.items():
        own = f"{common} {flags}" if "--speedups" in flags else f"{common} {usual} {flags}"
        parts.append(_family(f"{task}-{name}", task, own, seeds[0], len(seeds) > 1))
    return tuple(parts)


def _family(name: str, task: str, flags: str, seed: int, several: bool) -> Part:
    folder = f"results_baseline_{task}" + f"_seed{seed}" * several
    model = f"{{study}}/{task}-dense/{folder}/model"
    return Part(name, f"{flags} -pt {model} --dense-epochs 0 --seed {seed}", "compress")


_CUT = "--num-layers 1 --train-examples 64 -b 16"
_MORE = {"magnitude": "--order magnitude", "random": "--order random"}
_AT_ONCE = {"at-once": "--precision fp32 -e 0 --speedups 1.25,1.5,2,3,4"}
_ORDERS_AT_ONCE = {f"at-once-{name}": f"{_AT_ONCE['at-once']} {flags}" for name, flags in _MORE.items()}

LATENCY = Study(
    "what is kept of the metric at 2 to 12 times the speed of the dense model, by second order, magnitude and chance",
    None,
    {
        "smoke": _families(
            "sst2", f"-t sst2 -ml 32 {_CUT}", "-p baseline -l 1e-4 -e 1 --precision auto", (1,),
            {"at-once": "--precision fp32 -e 0 --speedups 1.2,1.4 --texts 32 --search-steps 2 --length 32"},
            "3 --texts 32 --search-steps 2 --length 32 -e 1",
        ),
        "standard": (
            *_families("sst2", _SST2, "-p baseline -l 1e-4 -e 2 --precision auto", (1, 2, 3),
                       _MORE | _AT_ONCE | _ORDERS_AT_ONCE),
            *_families("ag_news", _AG_NEWS, "-p baseline -l 1e-4 -e 2 --precision auto", (1, 2, 3),
                       _MORE | _AT_ONCE | _ORDERS_AT_ONCE),
        ),
        "full": tuple(
            part
            for task, common in (("sst2", "-t sst2 -ml 64"), ("ag_news", "-t ag_news -ml 128"))
            for part in _families(
                task, f"{common} {_TRAINED}", "-p baseline -l 3e-5 -e 3", (1, 2, 3),
                _MORE | _AT_ONCE | _ORDERS_AT_ONCE,
            )
        ),
    },
    pretrained=True,
)  # fmt: skip
