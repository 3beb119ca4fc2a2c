"""Texts without labels that `wanda` and `sparsegpt` look at in place of training examples."""

import keras
import numpy as np
import pytest

from gated_bert import GatedBertConfig, load_model, train
from gated_bert.cli.main import main
from gated_bert.support.errors import UserError
from gated_bert.tasks.calibration_texts import calibration_examples
from gated_bert.tasks.data import load_task_data
from gated_bert.tasks.task import TASKS

SIZES = {"model_size": "tiny", "num_layers": 1, "d_model": 16, "num_heads": 2, "dff": 32}


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dense")
    config = GatedBertConfig(
        pruning_method="baseline", data="embedded", epochs=1, train_examples=64, batch_size=16, **SIZES
    )
    return train(config, folder / "run").folder / "model"


def pruned(dense, folder, task="sst2", **options):
    config = GatedBertConfig(
        data="embedded", task=task, epochs=0, pretrained=str(dense), end_sparsity=0.6,
        batch_size=16, train_examples=64, **{"pruning_method": "sparsegpt", **SIZES, **options},
    )  # fmt: skip
    model = load_model(train(config, folder).folder / "model").model
    return [keras.ops.convert_to_numpy(layer.raw_kernel) for layer in model.gated_layers()]


@pytest.mark.nightly
def test_the_same_texts_without_labels_prune_as_training_examples_do(dense, tmp_path):
    usual = GatedBertConfig(data="embedded", train_examples=64, batch_size=16)
    texts = load_task_data(usual).train.texts
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n")
    (tmp_path / "texts.csv").write_text("label,sentence\n" + "".join(f'no label at all,"{text}"\n' for text in texts))
    ours, theirs, other = (pruned(dense, tmp_path / name, calibration_file=file and str(tmp_path / file))
                           for name, file in (("a", "texts.txt"), ("b", None), ("c", "texts.csv")))  # fmt: skip
    for first, second, third in zip(ours, theirs, other, strict=True):
        # Batches are put together in another order, which sums feel.
        np.testing.assert_allclose(first, second, atol=1e-4)
        np.testing.assert_array_equal(first, third)
    (tmp_path / "few.txt").write_text("a dull film\nanother film\n")
    few = pruned(dense, tmp_path / "d", calibration_file=str(tmp_path / "few.txt"))
    assert any(np.abs(first - second).max() > 1e-3 for first, second in zip(ours, few, strict=True))


@pytest.mark.nightly
def test_only_so_many_texts_are_looked_at(dense, tmp_path):
    (tmp_path / "few.txt").write_text("a dull film\nanother film\n")
    (tmp_path / "more.txt").write_text("a dull film\nanother film\nthe best of all films\n")
    few, more = (pruned(dense, tmp_path / name, calibration_texts=2, calibration_file=str(tmp_path / f"{name}.txt"))
                 for name in ("few", "more"))  # fmt: skip
    for first, second in zip(few, more, strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(("name", "content", "said"), [
    ("nowhere.txt", None, "no such file"),
    ("empty.txt", "", "empty"),
    ("blank.txt", "\n\n", ""),
    ("x.pdf", "x", "not a"),
    ("other.csv", "a,b\n1,2\n", "no column"),
])  # fmt: skip
def test_what_holds_no_texts_is_refused_before_a_run(dense, tmp_path, capsys, name, content, said):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    words = ["oneshot", "-e", "0", "-pt", str(dense), "-t", "sst2", "-d", "embedded", "--strategy", "wanda",
             "--sparsities", "50", "-o", str(tmp_path / "out"), "--calibration-file", str(path)]  # fmt: skip
    assert main(words) == 2
    found = capsys.readouterr().err
    assert name in found and said in found and found.count("\n") == 1
    assert not list((tmp_path / "out").rglob("*.keras"))


def test_a_file_that_no_method_looks_at_is_refused(dense, tmp_path, capsys):
    (tmp_path / "texts.txt").write_text("a good film\na bad film\n")
    texts = str(tmp_path / "texts.txt")
    words = ["-t", "sst2", "-d", "embedded", "-pt", str(dense), "-e", "0", "--calibration-file", texts]
    for methods in ("obert", "mask_tuning", "LayerMagGrad,magnitude"):
        command = ["oneshot", *words, "--strategy", methods, "--sparsities", "50", "-o", str(tmp_path / "out")]
        assert main(command) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"error: --calibration-file: '{texts}' is refused; allowed: with wanda, sparsegpt")
    assert main(["oneshot", *words, "--strategy", "wanda,obert", "--sparsities", "50", "--dry-run"]) == 0
    assert "--calibration-file: obert does not look at it" in capsys.readouterr().out


@pytest.mark.nightly
def test_methods_that_do_not_look_at_it_look_at_training_examples(dense, tmp_path):
    (tmp_path / "texts.txt").write_text("a good film\na bad film\n")
    texts = str(tmp_path / "texts.txt")
    for method, options in (("obert", {"obert_gradients": 2}), ("mask_tuning", {"pattern": "head_neuron"})):
        theirs, ours = (pruned(dense, tmp_path / f"{method}{bool(file)}", pruning_method=method, calibration_file=file,
                               schedule="one_shot", **options) for file in (None, texts))  # fmt: skip
        assert all(np.array_equal(*pair) for pair in zip(theirs, ours, strict=True))


def test_spans_are_not_calibrated_so(tmp_path):
    (tmp_path / "texts.txt").write_text("a\n")
    texts = str(tmp_path / "texts.txt")
    config = GatedBertConfig(task="squad", data="embedded", pruning_method="wanda", calibration_file=texts)
    with pytest.raises(UserError, match="--calibration-file: not for"):
        calibration_examples(config, TASKS["squad"])
