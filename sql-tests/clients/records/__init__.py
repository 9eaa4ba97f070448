"""Families of statements, from which `make_slt.py` makes scripts. A module of this package has `scripts()`, which gives (name, heading, queries) or
(name, heading, queries, statements before, statements after); a query is its text, or (text, pattern of the error) where it must fail."""

import re


def is_ordered(query):
    """Whether the rows of a query come in an order: it ends with ORDER BY outside of all parentheses."""
    depth, outside = 0, []
    for part in re.split(r"([()]|'(?:[^']|'')*')", query):
        if part == "(":
            depth += 1
        elif part == ")":
            depth -= 1
        elif depth == 0 and not part.startswith("'"):
            outside.append(part)
    return " ORDER BY " in " ".join(outside).replace("\n", " ")


def each(template, *choices):
    """A template filled with every combination of the choices, in order."""
    filled = [template]
    for position, options in enumerate(choices):
        filled = [text.replace(f"[{position}]", str(option)) for text in filled for option in options]
    return filled


def dealt(choices, *others):
    """Every choice once, beside the others in turn: pairs that differ in all places, where all combinations would be too many."""
    return [(choice, *(other[(number * (2 * place + 1) + place) % len(other)] for place, other in enumerate(others))) for number, choice in enumerate(choices)]
