"""One path that data takes: data -> preprocessing -> training -> inference. A module a step."""
