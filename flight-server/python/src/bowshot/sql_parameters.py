"""Parameters by name in a statement's text: `$name` becomes `$1`, and the values are bound, never written into the text."""

import re

# What is no parameter comes first: texts, names in quotes and comments hold dollars of their own.
_TOKEN = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | --[^\n]* | /\*.*?\*/ | \$(?P<name>[A-Za-z_]\w*)""",
    re.VERBOSE | re.DOTALL,
)


def numbered(sql, values):
    """The statement with numbers for names, and its values in their order.

    Raises
    ------
    ValueError
        For a name without a value, and a value that the statement does not name: both are slips of the pen.
    """
    order = []

    def number(match):
        name = match["name"]
        if name is None:
            return match[0]
        if name not in values:
            raise ValueError(f"the statement has a parameter ${name}, which is not given: add --param {name}=<value>")
        if name not in order:
            order.append(name)
        return f"${order.index(name) + 1}"

    text = _TOKEN.sub(number, sql)
    if unused := sorted(values.keys() - set(order)):
        raise ValueError(f"the statement has no parameter ${unused[0]}: write ${unused[0]} where its value belongs")
    return text, [values[name] for name in order]
