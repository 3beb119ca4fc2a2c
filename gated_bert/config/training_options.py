"""How a run trains."""

from __future__ import annotations

from dataclasses import dataclass

from gated_bert.config.option import OUTPUT, RUN, TRAINING, FilledIn, option
from gated_bert.config.recipes import RECIPES
from gated_bert.config.tracker_names import TRACKERS


@dataclass(frozen=True)
class TrainingOptions:
    """Optimiser, precision, devices and resume points."""

    recipe: str | None = option(None, "a published recipe for what is not said otherwise", "--recipe", group=RUN,
                                choices=tuple(RECIPES), names=tuple(RECIPES))  # fmt: skip
    epochs: int = option(25, "training epochs; 0 prunes a trained model at once, without training", "-e", "--epochs",
                         group=RUN, low=0)  # fmt: skip
    learning_rate: FilledIn[float] = option(None, "peak learning rate", "-l", "--learning-rate", group=RUN,
                                            metavar="RATE", low=0, high=1, open_low=True)  # fmt: skip
    optimizer: str = option("adamw", "adamw, adam, sgd", "--optimizer", group=TRAINING,
                            choices=("adamw", "adam", "sgd"))  # fmt: skip
    weight_decay: float = option(0.01, "weight decay", "--weight-decay", group=TRAINING, metavar="RATE", low=0, high=1)
    momentum: float = option(0.9, "momentum of sgd", "--momentum", group=TRAINING, metavar="RATE", low=0, high=0.9999)
    warmup_ratio: float = option(0.1, "fraction of the steps that warm up", "--warmup", group=TRAINING,
                                 metavar="FRACTION", low=0, high=1, fraction=True)  # fmt: skip
    lr_schedule: str = option("linear", "after the warm-up: linear (to 0), constant, or cyclic (from the peak to a "
                              "tenth of it in every cycle)", "--lr-schedule", group=TRAINING, metavar="NAME",
                              choices=("linear", "cyclic", "constant"))  # fmt: skip
    lr_cycle_epochs: float | None = option(None, "epochs of a cycle, from the pruning start; by default one for every "
                                           "pruning event", "--lr-cycle", group=TRAINING, metavar="EPOCHS", low=0,
                                           open_low=True)  # fmt: skip
    freeze: str = option("none", "what is not trained: none, embeddings (with their layer norm)", "--freeze",
                         group=TRAINING, metavar="PART", choices=("none", "embeddings"))  # fmt: skip
    clip_norm: float | None = option(1.0, "largest gradient norm, or none", "--clip-norm", group=TRAINING,
                                     metavar="NORM", low=0, open_low=True, nothing="none")  # fmt: skip
    seed: int = option(42, "seed of the run", "--seed", group=TRAINING, low=0, high=2**31 - 1, any_model=True)
    precision: str = option("float32", "float32, mixed_bfloat16, mixed_float16, or auto: mixed_bfloat16 where the "
                            "processor or GPU computes in it", "--precision", group=TRAINING, metavar="POLICY",
                            choices=("float32", "mixed_bfloat16", "mixed_float16", "auto"))  # fmt: skip
    jit_compile: bool = option(False, "compile training with XLA, as JAX always does", "--jit-compile", group=TRAINING)
    devices: int | str = option(1, "devices that share each batch of a run, or all", "--devices", group=TRAINING)
    checkpoint_steps: int = option(200, "steps between two resume points; more where writing them would take over 5 % "
                                   "of the time", "--checkpoint-steps", group=TRAINING, low=1)  # fmt: skip
    checkpoint_dir: str | None = option(None, "where resume points are kept besides, to outlive the machine: a folder "
                                        "on another disk, or a URL such as s3://bucket/folder", "--checkpoint-dir",
                                        group=TRAINING, metavar="PLACE")  # fmt: skip
    resource_seconds: float = option(0.0, "seconds between two readings of memory and processor; 0: no log",
                                     "--resource-log", group=TRAINING, metavar="SECONDS", low=0,
                                     high=86400)  # fmt: skip
    track: tuple[str, ...] = option((), "follow the run in one or more of tensorboard, mlflow, wandb", "--track",
                                    group=OUTPUT, metavar="TRACKER", choices=TRACKERS)  # fmt: skip

    def device_count(self, there: int) -> int:
        """How many devices share a batch, where `there` are so many."""
        return self.devices if isinstance(self.devices, int) else there
