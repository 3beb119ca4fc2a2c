"""What stands in the records that commands read: the fields that are used, and their types.

Others may stand beside them, for a newer version or another tool may write more. `records.read_record` holds files to
these; the architecture, the task and the run have records of their own (`BertConfig`, `Task`, `GatedBertConfig`).
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict

Object = dict[str, Any]


class ModelConfig(TypedDict):
    """`config.json` of a model folder."""

    architecture: Object
    task: Object


class InputsOfRun(TypedDict, total=False):
    """What a model's later inputs take from the configuration of its training run."""

    max_len: int | None
    doc_stride: int | None
    n_best_size: int | None
    max_answer_length: int | None
    text_column: str | None
    text_pair_column: str | None
    label_column: str | None


class HowMade(TypedDict, total=False):
    """`metadata.json` of a model folder, and the same in the record of an exported file."""

    config: InputsOfRun | None
    model: str | None
    shrunk_from: Object
    row: Object


class _OnnxChecksum(TypedDict, total=False):
    sha256: str
    data_sha256: str


class MadeByActivations(TypedDict, total=False):
    """`metadata.json` of a model that was pruned by how activations change."""

    activation_change: Object


class OnnxRecord(_OnnxChecksum):
    """What stands beside an exported file; those of earlier versions have no checksum."""

    architecture: Object
    task: Object
    graph: str
    precision: str
    metadata: HowMade


class MacCount(TypedDict):
    """Multiply-accumulates of a token."""

    total: float
    per_layer: list[float]


class MacRecord(TypedDict):
    """Multiply-accumulates before and after pruning."""

    dense: MacCount
    open: MacCount
    shrunk: MacCount


class RunState(TypedDict, total=False):
    """What a command that goes on with a run has to know, whatever else its metadata hold."""

    status: str | None
    config: Object | None


class RunMetadata(RunState, total=False):
    """`metadata_*.json` of a run; `run_record` knows what tables and plots need beside the types."""

    method: str | None
    label: str | None
    model: str | None
    message: str | None
    data: Object | None
    task: Object | str | None
    seed: int | None
    versions: Object | None
    hardware: Object | None
    parameters: dict[str, float] | None
    macs_per_token: MacRecord | None
    one_shot: Object | None
    final: Object | None
    best: Object | None
    seconds: float | None
    order: float | None
    plots_failed: list[str]


class PlannedRun(TypedDict):
    """A run of a sweep, and the name of its folder."""

    name: str
    folder: str


class PlannedSweep(TypedDict):
    """`sweep.json`."""

    runs: list[PlannedRun]


class TrackedRun(TypedDict, total=False):
    """`tracking.json` of a run or sweep; each mapping is one of trackers' names."""

    group: str | None
    parents: dict[str, str]
    runs: dict[str, str]
    sent: dict[str, int]


class JobStatus(TypedDict, total=False):
    """`status.json` of a run."""

    job: str
    state: str
    message: str | None
    method: str
    task: str
    seed: int | None
    epoch: int
    epochs: int
    step: int
    steps: int
    metric: float | None
    metric_name: str | None
    sparsity: float | None
    pattern_sparsity: float | None
    target_sparsity: float | None
    seconds_left: float | None
    loss: float | None
    note: str | None
    pid: int


class StoredFile(TypedDict):
    """Where a file of a stored resume point lies, from the run's place on, and its bytes."""

    key: str
    size: int


class ResumePoint(TypedDict):
    """`resume-*.json` of a place for resume points."""

    place: tuple[int, int]
    files: dict[str, StoredFile]


class _OfLaterVersions(TypedDict, total=False):
    labels: list[str] | None
    teacher_digest: str | None


class Reached(TypedDict):
    """How far a checkpoint's run has come: epochs, and batches of the next one."""

    epoch: int
    batches: int


class Place(Reached, _OfLaterVersions):
    """Where a checkpoint's run stood; those of earlier versions have no labels, and no digest of the teacher."""

    seconds: float
    rows: list[Object]
    one_shot: dict[str, Object]
    stamp: str
    config: Object


class _Content(TypedDict):
    content: str


class AddedToken(_Content, total=False):
    """A token that is looked for before a text is cut."""

    special: bool
    single_word: bool
    lstrip: bool
    rstrip: bool
    normalized: bool


Spelling = str | AddedToken


class TokenizerClass(TypedDict, total=False):
    """What a model's own configuration says of its tokeniser."""

    do_lower_case: bool | None
    tokenizer_class: str | None


class TokenizerConfig(TokenizerClass, total=False):
    """`tokenizer_config.json` and `special_tokens_map.json` of transformers."""

    strip_accents: bool | None
    tokenize_chinese_chars: bool | None
    clean_text: bool | None
    do_basic_tokenize: bool | None
    wordpieces_prefix: str
    never_split: list[str] | None
    add_prefix_space: bool | None
    model_max_length: float | None
    pad_token: Spelling | None
    unk_token: Spelling | None
    cls_token: Spelling | None
    sep_token: Spelling | None
    mask_token: Spelling | None
    added_tokens_decoder: dict[str, AddedToken] | None
    additional_special_tokens: list[Spelling] | None
    extra_special_tokens: list[Spelling] | dict[str, Spelling] | None


class HuggingFaceConfig(TypedDict, total=False):
    """`config.json` of transformers, or Google's `bert_config.json`."""

    model_type: str | None
    architectures: list[str] | None
    hidden_act: str | None
    position_embedding_type: str | None
    is_decoder: bool | None
    num_hidden_layers: int
    hidden_size: int
    num_attention_heads: int
    intermediate_size: int
    vocab_size: int
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float
    embedding_size: int
    pad_token_id: int | None
    n_layers: int
    dim: int
    n_heads: int
    hidden_dim: int
    activation: str | None
    hidden_activation: str | None
    norm_eps: float
    local_attention: int
    global_attn_every_n_layers: int | None
    layer_types: list[str] | None
    rope_parameters: dict[str, Any] | None
    global_rope_theta: float | None
    local_rope_theta: float | None
    classifier_activation: str | None
    classifier_pooling: str | None
    problem_type: str | None
    num_labels: int | None
    id2label: dict[str, str] | None
    label2id: dict[str, int] | None


class ExplanationRecord(TypedDict):
    """`record.json` of a folder of explanations."""

    kind: Literal["words", "tokens"]
    model: str
    task: str
    labels: list[str]
    data: str | None
    documents: list[int]
    seed: int
    num_features: int | None
    num_samples: int
    max_len: int
    complete: bool


class ExplainedWord(TypedDict):
    """A word and its weight."""

    word: str
    weight: float
    positions: list[int]


ExplainedClass = TypedDict(
    "ExplainedClass",
    {"class": str, "intercept": float, "fidelity": float | None, "words": list[ExplainedWord]},
)


class ExplainedDocument(TypedDict):
    """A line of `documents.jsonl`."""

    document: int
    text: str
    label: str | None
    predicted: str
    probabilities: dict[str, float]
    explanations: list[ExplainedClass]


class OfTask(TypedDict):
    """A record that says what was learnt."""

    task: Object


class StudentRecord(OfTask):
    """`record.json` of a student."""

    xai_weight: float
    seed: int
    accuracy: float
    agreement: float
    parameters: int
    train_seconds: float


class BenchmarkedModel(TypedDict):
    """A model in `benchmark.json`."""

    model: str
    path: str


class BenchmarkRecord(TypedDict):
    """`benchmark.json`."""

    models: list[BenchmarkedModel]
    lengths: list[int]
    complete: bool


class JudgedRecord(TypedDict):
    """What a comparison of explanations knows of its models."""

    judging: Object
    judged_on: str | None
    models: dict[str, Object]


class PipelineStep(TypedDict):
    """A step that is done."""

    words: list[str]
    seconds: float


class StudyRecord(TypedDict):
    """What all in a study's folder has in common."""

    scale: str


class PipelineRecord(TypedDict):
    """What a pipeline has done."""

    steps: dict[str, PipelineStep]


class SavedSplits(TypedDict):
    """`dataset_dict.json` of a data set that the library `datasets` saved."""

    splits: list[str]


class _SavedFile(TypedDict):
    filename: str


class SavedState(TypedDict):
    """`state.json` of a split of it."""

    _data_files: list[_SavedFile]


class SimilarityRecord(TypedDict, total=False):
    """`similarity.json`."""

    data: str | None
    top_k: int
