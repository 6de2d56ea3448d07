"""Step 1, raw data: scans of handwritten digits, one PNG file each, and a CSV file with their labels.

Source: UCI's Optical Recognition of Handwritten Digits, test part (1,797 digits by 13 people), as shipped with
scikit-learn (`sklearn.datasets.load_digits`): nothing is downloaded.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.datasets import load_digits

from .folders import whole_folder


def write_raw_data(folder: Path) -> bool:
    """Write `folder`/images/NNNN.png (8 x 8 pixels, 8-bit grey) and `folder`/labels.csv (file, label).

    Returns False, and writes nothing, if the data is already there. The folder appears whole or not at all.
    """
    if folder.exists():
        return False
    digits = load_digits()
    files = [f"images/{number:04}.png" for number in range(len(digits.images))]
    with whole_folder(folder) as partial:
        (partial / "images").mkdir()
        # The scans have 17 grey levels, 0 to 16, white ink on black.
        for file, scan in zip(files, digits.images, strict=True):
            Image.fromarray((scan * (255 / 16)).round().astype(np.uint8)).save(partial / file)
        pd.DataFrame({"file": files, "label": digits.target}).to_csv(partial / "labels.csv", index=False)
    return True
