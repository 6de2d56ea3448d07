"""Lay the folders of the chosen answers over the project, and say what to type next."""

import os
import sys

# Answers to questions with a fixed choice: cookiecutter takes no others. options/ is laid out by question and answer,
# and each folder in it like the project.
CHOSEN = (
    "options/example/{{ cookiecutter.example }}",
    "options/accelerator/{{ cookiecutter.accelerator }}",
    "options/cluster/{{ cookiecutter.cluster }}",
)
PYTHON = "{{ cookiecutter.python_version }}"
CRUFT = "{{ '_commit' in cookiecutter }}" == "True"


def lay_options():
    """Move the files of the chosen folders to their places in the project, and remove the rest of options/.

    What is there already stays with --skip-if-file-exists, as cookiecutter's own files do: see pre_gen_project.py.
    """
    with open("options/overwrite", encoding="utf-8") as file:
        overwrite = file.read() == "yes\n"
    for chosen in CHOSEN:
        for folder, _, names in os.walk(chosen):
            target = os.path.relpath(folder, chosen)
            os.makedirs(target, exist_ok=True)
            for name in names:
                there = os.path.join(target, name)
                if not os.path.isdir(there) and (overwrite or not os.path.lexists(there)):
                    os.replace(os.path.join(folder, name), there)
    for folder, _, names in os.walk("options", topdown=False):
        for name in names:
            os.remove(os.path.join(folder, name))
        os.rmdir(folder)


def next_commands(project):
    """The lines that run the new project, for this machine's shell."""
    if os.name == "nt":
        return [
            f'cd "{project}"',
            "py -m venv .venv",
            '.venv\\Scripts\\pip install --quiet "nox[uv]"',
            ".venv\\Scripts\\nox -s demo",
        ]
    quoted = "'" + project.replace("'", "'\"'\"'") + "'"
    return [f"cd {quoted}", "python3 -m venv .venv", '.venv/bin/pip install --quiet "nox[uv]"', ".venv/bin/nox -s demo"]


if __name__ == "__main__":
    lay_options()
    if CRUFT:  # `cruft update` and `diff` make projects that nobody will see, in folders of their own
        sys.exit()
    sys.stdout.reconfigure(errors="backslashreplace")  # a folder's name that the terminal can't show is no failure
    running = ".".join(map(str, sys.version_info[:2]))
    if running != PYTHON:
        print(f"\nThe project asks for Python {PYTHON}, and this is {running}: uv fetches {PYTHON} if it is missing.")
    print("\nYour project is ready. Next:\n")
    for command in next_commands(os.getcwd()):
        print(f"    {command}")
