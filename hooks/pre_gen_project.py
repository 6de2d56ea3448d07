"""Refuse answers and folders that can't become a working project: one line on stderr, and nothing is left behind."""

import itertools
import json
import keyword
import os
import re
import sys

# The answers arrive as data. The line breaks matter: a closing quote next to these would end the literal.
ANSWERS = json.loads(
    r"""
{{ cookiecutter | tojson }}
"""
)
# Those of the command line and of the person's settings, as they were before cookiecutter rendered them.
UNRENDERED = json.loads(
    r"""
{{ _cookiecutter | default({}) | tojson }}
"""
)
# What the project needs, by the names of distributions and of imports: its own name must be none of them, and in small
# letters, as some file systems know no others.
PACKAGES = """
adal adlfs aiobotocore aiohappyeyeballs aiohttp aiohttp-cors aioitertools aiosignal annotated-types argcomplete
ast-serialize attr attrs azure azure-common azure-core azure-identity azure-mgmt-compute azure-mgmt-core
azure-mgmt-network azure-mgmt-resource azure-storage-blob boto3 botocore certifi cffi cfgv charset-normalizer click
cloudpickle colorama colorful colorlog conftest contourpy cryptography cuda cuda-bindings cuda-pathfinder cuda-toolkit
cycler dask dateutil decorator dependency-groups distlib editables filelock fonttools frozenlist fsspec functorch gcsfs
google google-api-core google-api-python-client google-auth google-auth-httplib2 google-auth-oauthlib google-cloud-core
google-cloud-storage google-cloud-storage-control google-crc32c google-resumable-media googleapiclient
googleapis-common-protos grpc grpc-google-iam-v1 grpcio grpcio-status hatchling httplib2 humanize identify idna
importlib-metadata iniconfig isodate isympy jinja2 jmespath joblib jsonschema jsonschema-specifications jwt kiwisolver
lazy-importer librt locket markupsafe matplotlib modin mpl-toolkits mpmath msal msal-extensions msgpack msrest
msrestazure multidict mypy mypy-extensions mypyc narwhals networkx nodeenv nox numpy nvidia nvidia-cublas
nvidia-cuda-cupti nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft nvidia-cufile nvidia-curand
nvidia-cusolver nvidia-cusparse nvidia-cusparselt-cu13 nvidia-nccl-cu12 nvidia-nccl-cu13 nvidia-nvjitlink
nvidia-nvshmem-cu13 nvidia-nvtx oauthlib opencensus opencensus-context opentelemetry opentelemetry-api
opentelemetry-exporter-prometheus opentelemetry-proto opentelemetry-sdk opentelemetry-semantic-conventions packaging
pandas pandas-stubs partd pathlib-abc pathspec pil pillow pip platformdirs pluggy pre-commit prometheus-client propcache
proto proto-plus protobuf psutil py py-spy py4j pyarrow pyasn1 pyasn1-modules pycparser pydantic pydantic-core pygments
pyjwt pylab pyparsing pyspark pytest python-dateutil python-discovery pytz pyyaml ray referencing requests
requests-oauthlib rpds rpds-py ruff s3fs s3transfer safetensors scikit-learn scipy setuptools six sklearn smart-open
sympy tensorboardx test tests threadpoolctl tlz tomlkit toolz torch torchgen triton trove-classifiers types-psutil
types-pyyaml typing-extensions typing-inspection tzdata universal-pathlib upath uritemplate urllib3 uv virtualenv wheel
wrapt xgboost xgboost-cpu yaml yarl zipp
"""

# What the commands in the made project's documents, and in its environment, have by these names.
COMMANDS = """
activate alias aws az bash break builtin cat cd command continue curl deactivate dmypy do docker done echo elif else
eval exec exit export f2py fg fi function gcloud git hash java kill kubectl ls normalizer noxfile pip3 pwd pygmentize
python python3 pythonw read return rsync serve set sh shift source ssh stubgen stubtest sudo then time torchrun trap ttx
tune type unset until uvx wait
"""
# What YAML reads as true, false or nothing, and what Windows gives to no file.
WORDS = ("false", "n", "no", "null", "off", "on", "true", "y", "yes")
DEVICES = ["aux", "con", "nul", "prn", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10))]

# Control characters, separators of lines and of paragraphs, what turns the direction of the text around it, and halves
# of characters.
UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# cookiecutter runs this in the answers of the command line, and cruft in all of them, at each update. It is run in this
# file, too: the pattern must not have what it finds.
JINJA = re.compile(r"[{][#%{]|^\s*#%")
ATOM = r"[A-Za-z0-9_!#$%&'*+/=?^`|~-]+"
EMAIL = re.compile(rf"{ATOM}(\.{ATOM})*@[\w-]+(\.[\w-]+)*")

# What the template makes folders of.
FOLDERS = (".devcontainer", ".github", "cluster", "docs", "src", "tests")


def too_old(answers):
    """Yield what is too old here to read the rest of this file, or of the template."""
    if sys.version_info < (3, 10):  # noqa: UP036
        running = ".".join(map(str, sys.version_info[:2]))
        yield f"cookiecutter runs on Python {running} here: install it with Python 3.10 or newer"
    if "cookiecutter" in answers["__package_name"]:  # not rendered: the private variables came with cookiecutter 2
        yield "this cookiecutter is too old for the template: pip install --upgrade cookiecutter (2.1 or newer)"


def problems(answers):
    """Yield what is wrong with the answers, a sentence each."""
    for question in ("project_name", "project_slug", "description", "author_name", "author_email"):
        answer = answers[question]
        if not answer.strip():
            yield f"{question} is empty: type at least one letter"
        elif UNSEEN.search(answer):
            yield f"{question} has a line break or another control character: type it as one line of text"
        elif JINJA.search(answer) or (question != "project_slug" and JINJA.search(UNRENDERED.get(question, ""))):
            yield f"{question} has Jinja in it, which cookiecutter would run: type no brace next to another, a % or a #"
        elif answer != answer.strip():
            yield f"{question} begins or ends with a space: type it without"
        elif len(answer) > 200:
            yield f"{question} has {len(answer)} letters: type at most 200"
    slug = answers["project_slug"]
    package = slug.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", slug) or len(slug) > 40:
        yield (
            f"project_slug {slug!r} can't be a package: type at most 40 lower-case letters, digits and single "
            "dashes, a letter first, such as my-ray-project"
        )
    elif keyword.iskeyword(package):
        yield f"project_slug {slug!r} is a keyword of Python: type another, such as {slug}-project"
    elif package in sys.stdlib_module_names or slug in PACKAGES.split():
        yield f"project_slug {slug!r} would hide the package {slug}: type another, such as {slug}-project"
    elif slug in COMMANDS.split():
        yield f"project_slug {slug!r} would hide the command {slug}: type another, such as {slug}-project"
    elif slug in WORDS:
        yield f"project_slug {slug!r} is no name in YAML: type another, such as {slug}-project"
    elif slug in DEVICES:
        yield f"project_slug {slug!r} can't be a folder on Windows: type another, such as {slug}-project"
    if not EMAIL.fullmatch(answers["author_email"]):
        yield f"author_email {answers['author_email']!r} is no e-mail address: type one, such as you@example.com"


def changed(answers):
    """Yield what `--replay` took from an older or newer cookiecutter.json: it takes all of it, and checks nothing."""
    try:  # a relative path is the person's, and this is another folder; cruft says no path, and needs no check
        path = os.path.join(os.environ.get("PWD", ""), answers["_repo_dir"], "cookiecutter.json")
        with open(path, encoding="utf-8") as file:
            questions = json.load(file)
    except (KeyError, OSError):
        return
    for name in filter(answers.get, questions):
        here, replayed = questions[name], answers[name]
        if name[0] == "_":
            same = here == replayed or "cookiecutter." in str(here)
        else:
            same = not isinstance(here, list) or replayed in here
        if not same:
            yield f"{name}={replayed} is of another version of the template: answer anew, without --replay"


def in_the_way():
    """Yield what an existing folder has where the template can't write, or would write over what is not its own."""
    if os.path.lexists("options"):
        yield "there is a folder options/, a name that the template needs while it writes: rename it until it is done"
    for name in FOLDERS:
        if os.path.lexists(name) and not os.path.isdir(name):
            yield f"{name} is a file here, and a folder in the template: rename it"


if __name__ == "__main__":
    found = next(itertools.chain(too_old(ANSWERS), problems(ANSWERS), changed(ANSWERS), in_the_way()), None)
    if found:
        print(f"error: {found}", file=sys.stderr)
        sys.exit(1)
    if os.listdir():
        # An existing folder: cookiecutter keeps this file with --skip-if-file-exists, and writes "yes" over it without.
        os.mkdir("options")
        with open("options/overwrite", "w", encoding="utf-8") as file:
            file.write("no\n")
