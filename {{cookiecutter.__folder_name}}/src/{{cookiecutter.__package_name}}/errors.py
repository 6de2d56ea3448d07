"""The one error that is the user's to mend, and how others are said."""


class UserError(Exception):
    """Wrong usage, wrong input, or a plan that can't run: one clear line and exit code 2, no traceback."""


def reason(problem: Exception) -> str:
    """What went wrong, in one line: the system's words for it, or the first line of what a library says."""
    return getattr(problem, "strerror", None) or str(problem).partition("\n")[0]
