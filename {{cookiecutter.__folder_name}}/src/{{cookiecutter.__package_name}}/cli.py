"""The command line: one command a step, and `demo` for all of them in order."""

import argparse
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from . import settings
from .errors import UserError

STARTED = time.time()
PROGRAM = __name__.partition(".")[0].replace("_", "-")
DATA, MANIFEST = Path("data/raw"), Path("data/manifest.parquet")
TUNING, TRAINING, PREDICTIONS = Path("outputs/tuning"), Path("outputs/training"), Path("outputs/demo")
BEST_PARAMETERS_FILE = TUNING / "best_parameters.json"
CONFUSION = Path("outputs/confusion.png")
# What Ray prints that a reader can do nothing about. It reads these when it is loaded.
QUIET = {
    "RAY_DEDUP_LOGS_SKIP_REGEX": "worker processes have been started on node",  # trials that start, on few cores
    "RAY_AIR_NEW_OUTPUT": "0",  # Ray Tune's box of settings: `tune` prints a table of its own
}
DEMO_TRIALS, DEMO_EPOCHS = 2, 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 if all went well, 1 if more rows failed than --max-failure-rate allows, 2 for wrong usage or a plan that
        can't run, 3 if the run broke off, 130 if it was stopped with Ctrl-C or SIGTERM.
    """
    options = _parser().parse_args(arguments)
    if not options.verbose:
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        for name in ("gcsfs", "asyncio"):  # pages, of what it raises, too, and of tasks that it leaves
            logging.getLogger(name).setLevel(logging.CRITICAL)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # as Ray does, once it has started
    try:
        return int(options.run(options))
    except Exception as problem:
        if options.verbose:
            raise
        # What happened on a worker arrives as text, its traceback first, then its reason, then what came of it.
        story, *_ = f"{type(problem).__name__}: {problem}".split("\nThe above exception was the direct cause")
        *_, reason = story.strip().splitlines()
        _, is_the_users, advice = story.rpartition("UserError: ")
        advice = " ".join(advice.split()) if is_the_users else reason
        print(f"error: {advice}", file=sys.stderr)
        if is_the_users:
            return 2
        print(f"Where it happened is shown by: {PROGRAM} --verbose {options.command} ...", file=sys.stderr)
        return 3
    except (KeyboardInterrupt, SystemExit):  # of Ctrl-C, Ray Train makes an exit; of SIGTERM, Ray does
        print("Stopped. Give the same command again: what is finished is kept.", file=sys.stderr)
        return 130


# The steps are imported when they run: Ray and torch take seconds to load, and --help needs neither.


def run_data(options: argparse.Namespace) -> int:
    from .data import write_raw_data

    written = write_raw_data(options.output)
    print(f"Raw data: {options.output}" + ("" if written else " (was there already)"))
    return 0


def run_preprocess(options: argparse.Namespace) -> int:
    from .preprocessing import preprocess
    from .runtime import ray_session

    if options.engine == "pandas":
        rows = preprocess(options.input, options.output, "pandas")
    else:
        with ray_session(verbose=options.verbose):
            rows = preprocess(options.input, options.output, "modin")
    print(f"Manifest: {options.output}, {rows} rows")
    return 0


def run_tune(options: argparse.Namespace) -> int:
    from .runtime import ray_session
    from .tuning import BEST_PARAMETERS, tune_parameters

    parameters = {"epochs": options.epochs} if options.epochs else {}
    tuned = tune_parameters(
        str(options.input),
        options.output,
        trials=options.trials,
        parameters=parameters,
        num_workers=options.num_workers,
        start_ray=partial(ray_session, verbose=options.verbose, dashboard=True),
    )
    _print_table(tuned["table"])
    print(f"Best parameters: {options.output / BEST_PARAMETERS}")
    return 0


def run_train(options: argparse.Namespace) -> int:
    from .runtime import ray_session
    from .training import train

    parameters = _parameters(options.parameters)
    metrics = train(
        str(options.input),
        options.output,
        parameters=parameters,
        num_workers=options.num_workers,
        start_ray=partial(ray_session, verbose=options.verbose),
    )
    _print_table(metrics["epochs"])
    best = metrics["best"]
    print(f"Model: {options.output}, of epoch {best['epoch']}, accuracy on the test split {best['test_accuracy']:.1%}")
    return 0


def run_evaluate(options: argparse.Namespace) -> int:
    from .evaluation import evaluate

    accuracy, rows = evaluate(options.manifest, options.predictions, options.plot)
    print(f"Accuracy on {rows} held-out rows: {accuracy:.1%}; confusion matrix: {options.plot}")
    return 0


def run_predict(options: argparse.Namespace) -> int:
    from .inference import predict
    from .run_folder import is_finished
    from .runtime import ray_session

    finished_before = is_finished(options.output)
    summary = predict(
        options.input,
        options.checkpoint,
        options.output,
        batch_size=options.batch_size,
        concurrency=options.concurrency,
        num_cpus=options.num_cpus,
        num_gpus=options.num_gpus,
        started=STARTED,
        start_ray=partial(ray_session, verbose=options.verbose),
    )
    if not finished_before:
        print(f"Predictions: {options.output}/predictions, {summary['rows']} rows, {summary['failed']} failed")
        if "held_up_by" in summary:
            print(
                f"Speed: {summary['rows_per_second_steady']:.0f} rows/s, {summary['rows_per_second']:.0f} with "
                f"start-up; held up by: {summary['held_up_by']}; "
                f"peak memory here: {summary['peak_memory_bytes'] / 2**30:.1f} GiB"
            )
    if summary["failed"] > options.max_failure_rate * summary["rows"]:
        print(f"error: more rows failed than --max-failure-rate {options.max_failure_rate:g} allows", file=sys.stderr)
        return 1
    return 0


def run_demo(options: argparse.Namespace) -> int:
    from .data import write_raw_data
    from .evaluation import evaluate
    from .inference import predict
    from .model import CHECKPOINT_FILE
    from .preprocessing import preprocess
    from .runtime import ray_session
    from .training import train
    from .tuning import tune_parameters

    checkpoint = TRAINING / CHECKPOINT_FILE
    with ray_session(verbose=options.verbose, dashboard=True):
        print(f"1/5 Raw data in {DATA}", flush=True)
        write_raw_data(DATA)
        print(f"2/5 Manifest of it with Modin in {MANIFEST}", flush=True)
        if not MANIFEST.exists():
            preprocess(DATA, MANIFEST)
        print(f"3/5 Tuning with Ray Tune, two short trials, into {TUNING}", flush=True)
        tune_parameters(str(MANIFEST), TUNING, trials=DEMO_TRIALS, parameters={"epochs": DEMO_EPOCHS})
        print(f"4/5 Training with Ray Train, into {TRAINING}", flush=True)
        train(str(MANIFEST), TRAINING, parameters=_parameters())
        print(f"5/5 Batch inference with Ray Data, into {PREDICTIONS}", flush=True)
        predict(str(MANIFEST), str(checkpoint), str(PREDICTIONS))
    accuracy, rows = evaluate(MANIFEST, PREDICTIONS, CONFUSION)
    program = os.path.relpath(sys.argv[0])  # as it can be typed here, whether or not an environment is active
    print(
        f"""
Accuracy on {rows} held-out rows: {accuracy:.1%}

The project      {Path.cwd()}
The predictions  {PREDICTIONS}/predictions/*.parquet
Pictures         {TUNING}/trials.png, {TRAINING}/curve.png, {CONFUSION}
Run next         {program} predict --input {MANIFEST} --checkpoint {checkpoint} --output outputs/mine
Change next      {os.path.relpath(Path(__file__).with_name("predictor.py"))}: your own model, see README.md"""
    )
    return 0


def run_doctor(options: argparse.Namespace) -> int:
    from .doctor import examine
    from .runtime import ray_session

    checks = []
    resources = (options.concurrency, options.num_cpus, options.num_gpus)
    with ray_session(verbose=options.verbose):
        for check in examine(PROGRAM, options.checkpoint, options.output, *resources):
            checks.append(check)
            if not options.json:
                print(check, flush=True)
    if options.json:
        print(json.dumps([asdict(check) for check in checks], indent=2))
    return 0 if all(check.ok for check in checks) else 2


def run_submit(options: argparse.Namespace) -> int:
    from .submit import submit

    command = [each for number, each in enumerate(options.job) if number or each != "--"]
    if not command or command[0] == "submit":
        raise UserError("which command? Such as: submit -- predict --input ... --checkpoint ... --output ...")
    try:
        job = _parser().parse_args(command)  # what is wrong with it is said here, before it travels
    except SystemExit as end:
        return int(end.code or 0)
    paths = [str(getattr(job, name)) for name in ("input", "checkpoint", "output") if getattr(job, name, None)]
    return submit(command, paths, options.address, follow=not options.no_wait)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description="From raw data to predictions on Ray, a command a step.")
    parser.add_argument("--verbose", action="store_true", help="show what Ray and its workers log, and tracebacks")
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")

    demo = commands.add_parser("demo", help="all of the steps, in order, on the example's data")
    demo.set_defaults(run=run_demo)

    data = commands.add_parser("data", help="the example's raw data")
    data.add_argument("--output", type=Path, default=DATA, metavar="DIR", help="default: %(default)s")
    data.set_defaults(run=run_data)

    preprocess = commands.add_parser("preprocess", help="from raw data to a Parquet manifest")
    preprocess.add_argument("--input", type=Path, default=DATA, metavar="DIR", help="default: %(default)s")
    preprocess.add_argument("--output", type=Path, default=MANIFEST, metavar="PATH", help="default: %(default)s")
    preprocess.add_argument("--engine", choices=("modin", "pandas"), default="modin", help="default: %(default)s")
    preprocess.set_defaults(run=run_preprocess)

    tune = commands.add_parser("tune", help="try other parameters, and write the best where `train` takes them")
    tune.add_argument("--input", type=Path, default=MANIFEST, metavar="PATH", help="manifest; default: %(default)s")
    tune.add_argument("--output", type=Path, default=TUNING, metavar="DIR", help="default: %(default)s")
    tune.add_argument("--trials", type=_positive_int, default=8, metavar="N", help="default: %(default)s")
    tune.add_argument("--epochs", type=_positive_int, metavar="N", help="at most, for a trial; default: as `train`")
    tune.add_argument(
        "--num-workers", type=_positive_int, default=1, metavar="N", help="workers of one trial; default: %(default)s"
    )
    tune.set_defaults(run=run_tune)

    train = commands.add_parser("train", help="train the model and write its checkpoint")
    train.add_argument("--input", type=Path, default=MANIFEST, metavar="PATH", help="manifest; default: %(default)s")
    train.add_argument("--output", type=Path, default=TRAINING, metavar="DIR", help="default: %(default)s")
    train.add_argument(
        "--parameters", type=Path, metavar="FILE", help=f"JSON, by name; default: {BEST_PARAMETERS_FILE}, if there"
    )
    train.add_argument(
        "--num-workers", type=_whole_number, default=1, metavar="N", help="0 trains in this process; default: 1"
    )
    train.set_defaults(run=run_train)

    predict = commands.add_parser("predict", help="predict every row of an input, each exactly once")
    predict.add_argument("--input", required=True, metavar="PATH", help="folder, glob, file, URI or Parquet manifest")
    predict.add_argument("--checkpoint", required=True, metavar="PATH", help="what `train` wrote")
    predict.add_argument("--output", required=True, metavar="DIR", help="a new folder, or that of a run to go on with")
    predict.add_argument(
        "--batch-size", type=_positive_int, metavar="N", help="rows in one call; default: what a first try finds fast"
    )
    _add_resources(predict)
    predict.add_argument(
        "--max-failure-rate",
        type=_rate,
        default=settings.MAX_FAILURE_RATE,
        metavar="X",
        help="share of rows that may fail before the exit code is 1; default: %(default)s",
    )
    predict.set_defaults(run=run_predict)

    evaluate = commands.add_parser("evaluate", help="compare predictions with the labels that training did not see")
    evaluate.add_argument("--manifest", type=Path, default=MANIFEST, metavar="PATH", help="default: %(default)s")
    evaluate.add_argument("--predictions", type=Path, default=PREDICTIONS, metavar="DIR", help="default: %(default)s")
    evaluate.add_argument("--plot", type=Path, default=CONFUSION, metavar="FILE", help="default: %(default)s")
    evaluate.set_defaults(run=run_evaluate)

    doctor = commands.add_parser("doctor", help="is this machine, or the cluster at RAY_ADDRESS, fit for `predict`?")
    doctor.add_argument("--checkpoint", metavar="PATH", help="a file that every machine must be able to read")
    doctor.add_argument("--output", metavar="DIR", help="a folder that every machine must be able to write in")
    _add_resources(doctor)
    doctor.add_argument("--json", action="store_true", help="for machines: a list of checks")
    doctor.set_defaults(run=run_doctor)

    submit = commands.add_parser(
        "submit", help="run one of these commands on a cluster, as a Ray job: submit -- predict ..."
    )
    submit.add_argument(
        "--address",
        metavar="URL",
        help="the cluster's dashboard; default: $RAY_API_SERVER_ADDRESS or http://127.0.0.1:8265",
    )
    submit.add_argument("--no-wait", action="store_true", help="end when the job is sent, not when it ends")
    submit.add_argument("job", nargs=argparse.REMAINDER, metavar="-- COMMAND ...")
    submit.set_defaults(run=run_submit)
    return parser


def _add_resources(command: argparse.ArgumentParser) -> None:
    command.add_argument("--concurrency", type=_concurrency, metavar="N|MIN:MAX", help="predictors; default: what fits")
    command.add_argument("--num-cpus", type=_amount, metavar="X", help="CPUs a predictor; default: 1")
    command.add_argument("--num-gpus", type=_amount, metavar="X", help="GPUs a predictor; default: see settings.py")


def _parameters(file: Path | None = None) -> dict[str, Any]:
    """The parameters in a JSON file: the one that is given, or those that `tune` found best, if it ran."""
    if file is None and not BEST_PARAMETERS_FILE.exists():
        return {}
    try:
        parameters = json.loads((file or BEST_PARAMETERS_FILE).read_text())
    except (OSError, ValueError) as problem:
        raise UserError(f"--parameters {file}: {problem}") from None
    if not isinstance(parameters, dict):
        raise UserError(f"--parameters {file}: it must be an object, a value by name")
    print(f"Parameters: those in {file or BEST_PARAMETERS_FILE}.")
    return parameters


def _print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows with the same names, as columns of a width each."""
    lines = [list(rows[0])]
    lines += [[f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def _whole_number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0 up")
    return int(text)


def _positive_int(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1 up")
    return int(text)


def _concurrency(text: str) -> tuple[int, int]:
    smallest, _, largest = text.partition(":")
    bounds = _positive_int(smallest), _positive_int(largest or smallest)
    if bounds[0] > bounds[1]:
        raise argparse.ArgumentTypeError(f"{text}: the smallest number comes first")
    return bounds


def _amount(text: str) -> float:
    # Ray takes parts of a CPU or GPU, but only whole numbers above one.
    return _number(text, lambda amount: amount <= 1 or amount.is_integer(), "from 0 to 1, nor a whole one above")


def _rate(text: str) -> float:
    return _number(text, lambda rate: rate <= 1, "from 0 to 1")


def _number(text: str, fits: Callable[[float], bool], range_: str) -> float:
    with suppress(ValueError):
        number = float(text)
        if number >= 0 and fits(number):
            return number
    raise argparse.ArgumentTypeError(f"{text} is not a number {range_}")
