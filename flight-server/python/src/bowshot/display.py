"""Arrow tables as notebooks and terminals show them: the first rows, cut to a page, and how many there are."""

import html

from bowshot import limits

_STYLE = (
    "<style>.bowshot td, .bowshot th {text-align: left; vertical-align: top}"
    " .bowshot .number {text-align: right} .bowshot .null {opacity: .5}</style>"
)


def page(table):
    """(columns, types, rows of texts, footer) of what is shown of a table. A text of None is a NULL."""
    names = table.column_names[: limits.SHOWN_COLUMNS_MAX]
    # By place: names may be there twice.
    shown = table.slice(0, limits.SHOWN_ROWS_MAX).select(range(len(names)))
    columns = [[_text(value) for value in column.to_pylist()] for column in shown.columns]
    footer = f"{table.num_rows:,} row{'' if table.num_rows == 1 else 's'}"
    if table.num_rows > shown.num_rows:
        footer += f", the first {shown.num_rows} are shown"
    if table.num_columns > len(names):
        footer += f"; {len(names)} of {table.num_columns} columns"
    return names, [str(field.type) for field in shown.schema], list(zip(*columns, strict=True)), footer


def as_html(table):
    """A table as HTML; all that comes from the server is escaped."""
    names, types, rows, footer = page(table)
    numeric = [_is_numeric(name) for name in types]
    heads = "".join(f'<th title="{html.escape(kind)}">{html.escape(name)}</th>' for name, kind in zip(names, types, strict=True))
    body = "".join("<tr>" + "".join(_cell(text, right) for text, right in zip(row, numeric, strict=True)) + "</tr>" for row in rows)
    return (
        f'{_STYLE}<table class="bowshot"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table><small>{html.escape(footer)}</small>'
    )


def as_text(table):
    """A table as text in a fixed width."""
    names, types, rows, footer = page(table)
    cells = [[_one_line(name) for name in names], *([_one_line("NULL" if text is None else text) for text in row] for row in rows)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(names))]
    numeric = [_is_numeric(name) for name in types]
    lines = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width) for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, footer])


def _cell(text, right):
    if text is None:
        return '<td class="null">NULL</td>'
    opening = '<td class="number">' if right else "<td>"
    return f"{opening}{html.escape(text)}</td>"


def _text(value):
    if value is None:
        return None
    text = value.hex() if isinstance(value, bytes) else str(value)
    return text if len(text) <= limits.SHOWN_TEXT_MAX else text[: limits.SHOWN_TEXT_MAX - 1] + "…"


def _one_line(text):
    return text.replace("\r", "\\r").replace("\n", "\\n").replace("\t", "\\t")


def _is_numeric(kind):
    return kind.startswith(("int", "uint", "float", "double", "halffloat", "decimal"))
