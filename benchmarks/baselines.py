"""Is a plain scikit-learn model better than each example's own, on the rows that this is measured by?

    python benchmarks/baselines.py PROJECT ...

Each PROJECT is a made project in which `demo` has run: `nox -s benchmark_accuracy` makes them. The baseline sees the
splits train and validation, and is measured on test, as the project's own model is. Ends with exit code 1 if an example
has less than it promises, or a baseline is better by more than a point.
"""

import json
import subprocess
import sys
from pathlib import Path

LEAST = {"images": 0.97, "tables": 0.95, "text": 0.85}
POINT = 0.01

SCRIPT = """
import json
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
    example = "images"
    rows = np.stack([np.asarray(Image.open(f"data/{path}")).ravel() / 255 for path in table["path"].to_pylist()])
elif "features" in table.column_names:
    sys.path.insert(0, "src")
    from my_ray_project.sparse import from_vectors
    example = "text"
    rows = from_vectors(table["features"])
else:
    example = "tables"
    rows = table.drop_columns(["id", "label", "split"]).to_pandas().to_numpy()
seen, held_out = np.flatnonzero(split != "test"), np.flatnonzero(split == "test")
model = LogisticRegression(max_iter=2000, C=10 if example == "text" else 1)
if example != "text":
    model = make_pipeline(SimpleImputer(), StandardScaler(), model)
model.fit(rows[seen], label[seen])
baseline = (model.predict(rows[held_out]) == label[held_out]).mean()
predicted = pd.read_parquet("outputs/demo/predictions").set_index("id")["label"]
own = (predicted.loc[table["id"].to_pandas()[held_out]].to_numpy() == label[held_out].to_numpy()).mean()
print(json.dumps([example, len(held_out), own, baseline]))
"""


def main() -> int:
    fell_short = []
    print("| example | held-out rows | the project's model | logistic regression |\n| --- | --- | --- | --- |")
    for project in map(Path, sys.argv[1:]):
        python = (project / ".nox/demo/bin/python").absolute()
        said = subprocess.run([python, "-c", SCRIPT], cwd=project, check=True, stdout=subprocess.PIPE).stdout
        example, rows, own, baseline = json.loads(said)
        print(f"| {example} | {rows} | {own:.1%} | {baseline:.1%} |", flush=True)
        if own < LEAST[example] or own < baseline - POINT:
            fell_short.append(example)
    if fell_short:
        print(f"error: less than promised: {', '.join(fell_short)}", file=sys.stderr)
    return bool(fell_short)


if __name__ == "__main__":
    sys.exit(main())
