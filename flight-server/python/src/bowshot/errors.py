"""What a server said, without what drivers put around it."""

import re

# `INVALID_ARGUMENT: [FlightSQL] …text… (InvalidArgument; Prepare). Vendor code: 3`
_BEFORE = re.compile(r"^(?:[A-Z_]+: )?(?:\[Flight ?SQL(?: Statement)?\] )+|^[A-Z_]+: ")
_AFTER = re.compile(r" \([A-Za-z]+; [^()]*(?:\([^()]*\))?[^()]*\)(?:\. Vendor code: \d+)?$")


def server_text(error):
    """The text of an error of ADBC as the server, or the network below it, wrote it."""
    return _AFTER.sub("", _BEFORE.sub("", str(error)))


def reworded(error, text):
    """An error of the same kind and code with another text."""
    return type(error)(text, status_code=error.status_code, vendor_code=error.vendor_code, sqlstate=error.sqlstate, details=error.details)
