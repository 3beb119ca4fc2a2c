"""What can be said of a picture without looking at it."""

from pathlib import Path

import numpy as np
from PIL import Image


def is_drawn(path: str | Path) -> bool:
    """Whether lines and texts cover more than a hundredth of the background, in several colours."""
    _, counts = np.unique(np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3), axis=0, return_counts=True)
    return len(counts) > 5 and counts.sum() - counts.max() > counts.sum() / 100
