"""How the contenders decode an image. Without torch: a process that only decodes need not load it."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = 224


def decode(row: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """uint8 (224, 224, 3), RGB, of the image at row["path"]."""
    with Image.open(BytesIO(Path(row["path"]).read_bytes())) as image:
        return {"image": np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))}
