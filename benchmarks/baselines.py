"""How good is a plain scikit-learn model on the rows that each example's model is measured by?

    python benchmarks/baselines.py PROJECT ...

Each PROJECT is a made project in which `demo` has run. The baseline sees the splits train and validation, and is
measured on test, as the project's own model is.
"""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

table = pq.read_table("data/manifest.parquet")
split, label = table["split"].to_pandas(), table["label"].to_pandas()
if "path" in table.column_names:
    from PIL import Image
    rows = np.stack([np.asarray(Image.open(f"data/{path}")).ravel() / 255 for path in table["path"].to_pylist()])
elif "features" in table.column_names:
    sys.path.insert(0, "src")
    from my_ray_project.sparse import from_vectors
    rows = from_vectors(table["features"])
else:
    rows = table.drop_columns(["id", "label", "split"]).to_pandas().to_numpy()
seen, held_out = np.flatnonzero(split != "test"), np.flatnonzero(split == "test")
model = LogisticRegression(max_iter=2000, C=10 if "features" in table.column_names else 1)
if not hasattr(rows, "tocsr"):
    model = make_pipeline(SimpleImputer(), StandardScaler(), model)
model.fit(rows[seen], label[seen])
baseline = (model.predict(rows[held_out]) == label[held_out]).mean()
predicted = pd.read_parquet("outputs/demo/predictions").set_index("id")["label"]
own = (predicted.loc[table["id"].to_pandas()[held_out]].to_numpy() == label[held_out].to_numpy()).mean()
print(f"| {own:.3f} | {baseline:.3f} |")
"""


def main() -> None:
    for project in map(Path, sys.argv[1:]):
        print(project.name, flush=True)
        subprocess.run([sys.executable, "-c", SCRIPT], cwd=project, check=True)


if __name__ == "__main__":
    main()
