"""The tables example's preprocessing in Ray Data: blocks are read, cleaned and joined as they come, and the repeated
samples are found by a shuffle.

    python ray_data_preprocessing.py --input DIR --output DIR
"""

import argparse
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import ray
import ray.data
from my_ray_project.preprocessing import AREAS, COLUMNS, LABELS, LENGTHS, MEASURES, MISSING, SPLIT_OF_TEN


def clean(table: pd.DataFrame, clinics: pd.DataFrame) -> pd.DataFrame:
    whole = table[table["diagnosis"].isin(LABELS)].merge(clinics, on="clinic", how="left")
    texts = whole[MEASURES].astype("object").mask(whole[MEASURES].isin(MISSING))
    numbers = texts.replace({r"\s*px$": "", ",": "."}, regex=True).astype("float64")
    numbers[LENGTHS] = numbers[LENGTHS].mul(whole["mm_per_pixel"], axis=0)
    numbers[AREAS] = numbers[AREAS].mul(whole["mm_per_pixel"] ** 2, axis=0)
    taken, calibrated = (pd.to_datetime(whole[name].astype(str)) for name in ("taken_on", "calibrated_on"))
    numbers["days_since_calibration"] = (taken - calibrated).dt.days.astype("float64")
    numbers.insert(0, "id", whole["sample"].astype("int64"))
    numbers.insert(1, "label", whole["diagnosis"].astype("object"))
    numbers.insert(2, "split", (numbers["id"] % 10).map(dict(enumerate(SPLIT_OF_TEN))))
    return numbers


def once(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop_duplicates("id")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--input", type=Path)
    parser.add_argument("--output")
    options = parser.parse_args()
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    clinics = pd.read_csv(options.input / "clinics.csv")
    strings = pa.csv.ConvertOptions(column_types=dict.fromkeys(COLUMNS["measurements.csv"], pa.string()))
    rows = ray.data.read_csv(
        str(options.input / "measurements.csv"),
        parse_options=pa.csv.ParseOptions(invalid_row_handler=lambda _: "skip"),
        convert_options=strings,
    )
    cleaned = rows.map_batches(clean, batch_format="pandas", batch_size=None, fn_kwargs={"clinics": clinics})
    shuffled = cleaned.repartition(8, keys=["id"])
    shuffled.map_batches(once, batch_format="pandas", batch_size=None).write_parquet(options.output)
    ray.shutdown()


if __name__ == "__main__":
    main()
