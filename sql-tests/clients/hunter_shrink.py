"""Makes a finding of `hunter.py` small: fewer rows, and a shorter statement, that still differ in the same way.

A statement is cut as text: runs of tokens whose brackets match are left out, bracketed parts are replaced by what they hold or by a constant. What no
engine understands any more does not differ, so it is not taken.
"""

import re
import time

TOKEN = re.compile(r"'(?:[^']|'')*'|ORDER BY|GROUP BY|DISTINCT ON|\w+(?:\.\w+)*|<>|<=|>=|\|\||\s+|.")
# What needs an order for its answer to be one, and what may follow that order.
NEEDING = ("OVER", "LIMIT", "DISTINCT ON", "string_agg")
NAMED_WINDOW = "w"
AFTER_ORDER = ("LIMIT", "OFFSET", "ROWS", "RANGE", "GROUPS")
BARE = re.compile(r"\bDECIMAL\b(?! *\()")
PLACEHOLDERS = ("NULL", "1", "true", "'a'")


def tokens_of(sql):
    return [token for token in TOKEN.findall(sql) if not token.isspace()]


def text_of(tokens):
    return " ".join(tokens).replace("( ", "(").replace(" )", ")").replace(" ,", ",")


def closing(tokens, start):
    """Where the bracket at `start` is closed."""
    depth = 0
    for at in range(start, len(tokens)):
        depth += {"(": 1, ")": -1}.get(tokens[at], 0)
        if depth == 0:
            return at
    return None


def balanced(tokens):
    depth = 0
    for token in tokens:
        depth += {"(": 1, ")": -1}.get(token, 0)
        if depth < 0:
            return False
    return depth == 0


def glued(tokens):
    """Each ORDER BY with its list as one token where the answer rests on it: it stays whole or goes with what needs it."""
    if not any(token in NEEDING for token in tokens):
        return tokens
    joined, at = [], 0
    while at < len(tokens):
        if tokens[at] != "ORDER BY":
            joined.append(tokens[at])
            at += 1
            continue
        end, depth = at, 0
        while end < len(tokens) and (depth or tokens[end] not in (")", *AFTER_ORDER)):
            depth += {"(": 1, ")": -1}.get(tokens[end], 0)
            end += 1
        joined.append(text_of(tokens[at:end]))
        at = end
    return joined


def spare_orders(tokens):
    """How many ORDER BY there are beyond those that are needed: with fewer, chance would decide."""
    ordered = lambda at: tokens[at + 1] == NAMED_WINDOW or any(token.startswith("ORDER BY") for token in tokens[at : closing(tokens, at)])
    bare = sum(token == "OVER" and tokens[at + 1 : at + 2] == ["("] and not ordered(at + 1) for at, token in enumerate(tokens))
    return sum(token.startswith("ORDER BY") for token in tokens) - sum(token in NEEDING for token in tokens) - 100 * bare


def bracket_cuts(tokens, start):
    """A bracketed part at `start`, and what is called with it, replaced by a constant or by what it holds."""
    end = closing(tokens, start) if tokens[start] == "(" else None
    if end is None or end - start < 2:
        return
    # A call before the bracket goes too.
    fronts = [start - 1, start] if start and re.fullmatch(r"[a-zA-Z]\w*", tokens[start - 1]) else [start]
    for front in fronts:
        for text in PLACEHOLDERS:
            yield tokens[:front] + [text] + tokens[end + 1 :]
        yield tokens[:front] + tokens[start + 1 : end] + tokens[end + 1 :]


def run_cuts(size):
    """What is left without `size` tokens whose brackets match."""

    def cuts(tokens, start):
        if start + size <= len(tokens) and balanced(tokens[start : start + size]):
            yield tokens[:start] + tokens[start + size :]

    return cuts


def shorter(sql, differs, deadline):
    """The shortest statement found in time for which `differs` holds."""
    tokens, tried, progress = glued(tokens_of(sql)), set(), True
    if not differs(text_of(tokens)):
        return sql

    def taken(candidate):
        text = text_of(candidate)
        # Without its digits a DECIMAL is another type in each engine.
        if text in tried or BARE.search(text) or spare_orders(candidate) < spare_orders(tokens) or time.monotonic() > deadline:
            return False
        tried.add(text)
        return differs(text)

    while progress and time.monotonic() < deadline:
        progress = False
        sizes = [len(tokens) >> shift for shift in range(1, 6)] + list(range(12, 0, -1))
        for cuts in [bracket_cuts, *map(run_cuts, sorted({size for size in sizes if size}, reverse=True))]:
            at = 0
            while at < len(tokens) and time.monotonic() < deadline:
                smaller = next((candidate for candidate in cuts(tokens, at) if taken(candidate)), None)
                if smaller is None:
                    at += 1
                else:
                    tokens, progress = smaller, True
    return text_of(tokens)


def fewer(files, differs, deadline):
    """The smallest bag of rows found in time for which `differs` holds. `files` are lists of rows."""
    size = max(1, sum(map(len, files)))
    while size and time.monotonic() < deadline:
        rows = [(number, row) for number, file in enumerate(files) for row in file]
        at, progress = 0, False
        while at < len(rows) and time.monotonic() < deadline:
            left = rows[:at] + rows[at + size :]
            candidate = [[row for known, row in left if known == number] for number in range(len(files))]
            if differs([file for file in candidate if file]):
                rows, files, progress = left, candidate, True
            else:
                at += size
        size = size if progress and size == 1 else size // 2
        files = [file for file in files if file]
    return files
