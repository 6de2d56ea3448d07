"""The one error that is the user's to mend."""


class UserError(Exception):
    """Wrong usage, wrong input, or a plan that can't run: one clear line and exit code 2, no traceback."""
