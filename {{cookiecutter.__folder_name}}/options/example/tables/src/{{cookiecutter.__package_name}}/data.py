"""Step 1, raw data: measurements of tumours as a laboratory might hand them over, in two CSV files with real faults.

Source: the Breast Cancer Wisconsin (Diagnostic) data set, 569 samples, as shipped with scikit-learn
(`sklearn.datasets.load_breast_cancer`): nothing is downloaded. Sizes are in pixels of a clinic's scanner here, and the
faults are put in with a seed: cells without a number, with a decimal comma or a unit; rows that are there twice; a
row without its end, and one with a comma too many.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer

from .folders import whole_folder

MEASURES = [str(name).replace(" ", "_") for name in load_breast_cancer().feature_names]
CLINICS = pd.DataFrame(
    {
        "clinic": ["north", "south", "west"],
        "mm_per_pixel": [0.25, 0.5, 0.2],
        "calibrated_on": ["2024-01-02", "2023-11-15", "2024-02-20"],
    }
)


def write_raw_data(folder: Path) -> bool:
    """Write `folder`/measurements.csv (sample, clinic, taken_on, 30 measures, diagnosis) and `folder`/clinics.csv.

    Returns False, and writes nothing, if the data is already there. The folder appears whole or not at all.
    """
    if folder.exists():
        return False
    random = np.random.default_rng(0)
    samples = load_breast_cancer()
    table = pd.DataFrame(samples.data, columns=MEASURES)
    count = len(table)
    clinic = random.integers(len(CLINICS), size=count)
    scale = CLINICS["mm_per_pixel"].to_numpy()[clinic]
    for name in MEASURES:  # lengths and areas are in pixels, the other measures have no unit
        power = 2 if "area" in name else 1 if "radius" in name or "perimeter" in name else 0
        table[name] = (table[name] / scale**power).round(6)
    text = table.astype(str).to_numpy(dtype=object)
    for number, cell in enumerate(random.choice(text.size, size=800, replace=False)):
        value = text.flat[cell]
        text.flat[cell] = ("", "?", value.replace(".", ","), f"{value} px")[number % 4]
    raw = pd.DataFrame(text, columns=MEASURES)
    days = pd.Timestamp("2024-03-01") + pd.to_timedelta(random.integers(365, size=count), unit="D")
    raw.insert(0, "sample", np.arange(1, count + 1))
    raw.insert(1, "clinic", CLINICS["clinic"].to_numpy()[clinic])
    raw.insert(2, "taken_on", days.strftime("%Y-%m-%d"))
    raw["diagnosis"] = np.where(samples.target == 0, "malignant", "benign")
    raw = pd.concat([raw, raw.sample(12, random_state=0)]).sample(frac=1, random_state=0)
    lines = raw.to_csv(index=False).splitlines()
    lines.insert(100, lines[200] + ",remark, with a comma")
    lines.insert(300, lines[400][:60])
    with whole_folder(folder) as partial:
        (partial / "measurements.csv").write_text("\n".join(lines) + "\n")
        CLINICS.to_csv(partial / "clinics.csv", index=False)
    return True
