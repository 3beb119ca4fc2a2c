"""The names of what a record chooses from: matrices, patterns, scopes, schedules."""

from __future__ import annotations

ROLES = ("query", "key", "value", "attention_output", "ffn_intermediate", "ffn_output", "pooler", "classifier")
ENCODER_ROLES = ROLES[:6]
PATTERNS = ["element", "head", "head_dim", "neuron", "head_neuron", "k_tile", "qkv_row", "vector", "block", "row",
            "column", "tile", "tile_element"]  # fmt: skip
POOLINGS = ("mean", "l1", "l2", "published")
SCOPES = ("layer", "global", "role", "output")
SCHEDULES = ["linear", "cubic", "steps", "auto", "one_shot"]
TIED_ROLES = {
    "head": ROLES[:4],
    "head_dim": ROLES[:4],
    "neuron": ROLES[4:6],
    "head_neuron": ENCODER_ROLES,
    "qkv_row": ROLES[:3],
}
"""Pattern → the matrices of a block that its units run through."""
TASK_TYPES = ("classification", "regression", "token_classification", "multi_label_classification")
TICKET_CONTROLS = ("random", "reinitialized")
REMOVAL_ORDERS = ("obs", "magnitude", "random")
"""What says which heads and neurons go for a speed: what that costs with the update of what stays; or, with none, to
compare with, the norm of their weights, or chance."""
