"""One command line for each command, as its help shows it, and those to begin with."""

from __future__ import annotations

_PLAN = "-d embedded -m tiny -e 8 -b 64 -l 1e-3 -ps 3 -pe 7 -f 0.9"
_MODEL = "results/results_magnitude_sst2/model"

EXAMPLES = {
    "train": f"gated-bert train -p movement {_PLAN}",
    "sweep": f"gated-bert sweep -p baseline,magnitude,movement {_PLAN} -parallel",
    "stages": "gated-bert stages -p taylor --pattern head_neuron --stages 25,50,75 -d embedded -m tiny -e 2",
    "oneshot": "gated-bert oneshot --strategy GlobalMagWeight,LayerGradCAM --compression 2,4 -d embedded -m tiny -e 4",
    "lottery": "gated-bert lottery -p magnitude -f 0.7 -d embedded -m tiny -e 4 -b 64 -l 1e-3",
    "watch": "gated-bert watch results --web 8000",
    "compare": "gated-bert compare results other_results -o comparison",
    "study": "gated-bert study embedded --scale smoke",
    "compress": "gated-bert compress -t sst2 -d embedded -m tiny -l 1e-3 --dense-epochs 4 -e 2 --levels 20,40 -o study",
    "shrink": "gated-bert shrink results/results_taylor_sst2/model shrunk",
    "trim-vocabulary": f"gated-bert trim-vocabulary {_MODEL} small_model -d embedded",
    "patterns": "gated-bert patterns -f 0.5 -o patterns.png",
    "iou": "gated-bert iou results/results_magnitude_sst2 results/results_movement_sst2",
    "activation-change": "gated-bert activation-change --config configs/evaluate_config.json -d embedded",
    "export": f"gated-bert export {_MODEL} model.onnx --fused",
    "quantize": f"gated-bert quantize {_MODEL} int8.onnx --precision int8",
    "predict": f"gated-bert predict {_MODEL} reviews.csv --text-column review -o predictions.csv",
    "inspect": f"gated-bert inspect {_MODEL}",
    "benchmark": f"gated-bert benchmark {_MODEL} other.onnx -d embedded",
    "latency-table": f"gated-bert latency-table {_MODEL} -o latency.json",
    "explain": f"gated-bert explain {_MODEL} reviews.csv --text-column review -o explained",
    "sp-lime": "gated-bert sp-lime explanations --pick 20",
    "compare-explanations": "gated-bert compare-explanations explanations explanations_pruned",
    "pos": "gated-bert pos explanations explanations_pruned",
    "student": "gated-bert student explanations -d embedded",
    "pipeline": "gated-bert pipeline -t ag_news -d embedded -m tiny -l 1e-3 --dense-epochs 4 -e 2 --levels 20 -o study",
    "download": "gated-bert download glue data",
}
"""Name of a command → a whole command line."""

SPEEDUPS = "gated-bert compress -t sst2 -d embedded -m tiny -l 1e-3 --dense-epochs 4 -e 0 --speedups 1.5,3 -o family"
"""Of `compress`, with the words that make it another command."""

FIRST = {
    EXAMPLES["sweep"]: "train and prune by three methods, with data that comes along, and compare",
    "gated-bert watch results --web 8000": "see it as it goes on, in a browser",
    f"gated-bert inspect {_MODEL}": "what became of a model: sizes, sparsity, masks",
    f"gated-bert export {_MODEL} model.onnx": "write it for deployment; shrink and quantize make it smaller",
    "gated-bert compare results -o comparison": "tables, plots and a report of any finished runs",
}
"""Command lines to begin with → what they do."""


def example_of(prog: str) -> str:
    """The example for a command as its help calls it, "" where there is none."""
    words = prog.split()
    if words[0] != "gated-bert":
        return EXAMPLES["sweep"].replace("gated-bert sweep", words[0])
    if "--speedups" in words:
        return SPEEDUPS
    return EXAMPLES.get(words[1], "") if len(words) > 1 else ""
