"""SQL in notebooks: `%sql` and `%%sql`, after `%load_ext bowshot`.

%sql grpc://127.0.0.1:47470            connects; `%bowshot connect … --user ana --schema tpch` says more
%sql SELECT count(*) FROM orders       shows the result, an Arrow table
%sql found << SELECT * FROM orders     keeps it in a variable
%%sql --param day=date(1995, 6, 17)    binds `$day`; `--param day` binds the variable of that name
SELECT * FROM orders
WHERE o_orderdate = $day
"""

import argparse
import atexit
import getpass
import re
import shlex

import adbc_driver_manager
import pyarrow
from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, line_magic, magics_class, no_var_expand

import bowshot
from bowshot import display, errors, interrupts, limits
from bowshot.sql_parameters import numbered

_ADDRESS = re.compile(r"grpc(\+tls|\+tcp)?://\S+")
_TARGET = re.compile(r"\s*([A-Za-z_]\w*)\s*<<\s*(.*)", re.DOTALL)
# A value is one word, or has its blanks in quotes or brackets.
_VALUE = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\([^()]*\)|\[[^\[\]]*\]|[^\s'"()\[\]])+"""
_PARAMETER = re.compile(rf"\s*--param\s+([A-Za-z_]\w*)(?:\s*=\s*({_VALUE}))?(?=\s|$)")


class _Arguments(argparse.ArgumentParser):
    """Says what is wrong instead of ending the program."""

    def error(self, message):
        raise UsageError(f"{message}\n{self.format_usage().strip()}")


def _connect_arguments():
    parser = _Arguments(prog="%bowshot connect", add_help=False)
    parser.add_argument("uri")
    parser.add_argument("--user")
    parser.add_argument("--token-from", metavar="VARIABLE", dest="token", help="variable of the notebook that holds a token")
    parser.add_argument("--schema")
    parser.add_argument("--ca")
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    parser.add_argument("--skip-verification", action="store_true")
    return parser


@magics_class
class BowshotMagics(Magics):
    """The magics of one shell, over one connection."""

    connection = None

    @line_magic("bowshot")
    def bowshot(self, line):
        """`%bowshot connect <address> [--user …] [--schema …]`, or `%bowshot close`.

        A password is asked for, so that no notebook keeps it.
        """
        verb, *words = shlex.split(line) or [""]
        if verb == "connect":
            self._told(lambda: self._connect(_connect_arguments().parse_args(words)))
        elif verb == "close" and not words:
            self.close()
        else:
            raise UsageError("write %bowshot connect <address> [--user …] [--schema …], or %bowshot close")

    # A shell writes values of variables into the lines of magics where they hold $name: ours are bound.
    @no_var_expand
    @line_cell_magic("sql")
    def sql(self, line, cell=None):
        """Runs a statement: `%sql [name <<] [--param name[=value]]… statement`, or the statement in the cell below. An address connects."""
        text = line.strip()
        if cell is None and _ADDRESS.match(text):
            return self.bowshot(f"connect {text}")
        target, values, text = self._options(text)
        if cell is not None:
            text = f"{text}\n{cell}" if text else cell
            target, text = (target, text) if target else _target(text)
        if not text.strip():
            raise UsageError("there is no statement: write %sql SELECT …, or %%sql with the statement below it")
        result = self._told(lambda: self._run(text, values))
        if target is None:
            return result
        self.shell.user_ns[target] = result
        return None

    def close(self):
        """Closes the connection, if there is one."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()

    def _connect(self, arguments):
        parameters = vars(arguments)
        if parameters["user"] is not None:
            parameters["password"] = getpass.getpass(f"Password of {parameters['user']}: ")
        if parameters["token"] is not None:
            parameters["token"] = self._value(parameters["token"])
        connection = bowshot.connect(parameters.pop("uri"), **parameters)
        self.close()
        self.connection = connection

    def _options(self, text):
        """(variable to keep the result in, values of parameters, the rest of the line)."""
        target, text = _target(text)
        values = {}
        while match := _PARAMETER.match(text):
            name, expression = match.groups()
            values[name] = self._value(expression or name)
            text = text[match.end() :].lstrip()
        if text.startswith("--param"):
            raise UsageError("write --param name, for the variable of that name, or --param name=value; a value with blanks is quoted")
        if target is None:
            target, text = _target(text)
        return target, values, text

    def _value(self, expression):
        try:
            return self.shell.ev(expression)
        except Exception as error:
            raise UsageError(f"{expression} has no value: {error}") from None

    def _run(self, sql, values):
        if self.connection is None:
            raise UsageError("not connected: %sql grpc://<host>:<port> first")
        text, bound = numbered(sql, values)
        with self.connection.cursor() as cursor:
            cursor.execute(text, bound or None)
            with cursor.fetch_record_batch() as reader:
                table = _read(reader, cursor.adbc_cancel)
        # A statement without columns has done something, and there is nothing to show.
        return table if table.num_columns else None

    def _told(self, work):
        """What `work` gives; an error as the text that the server, or we, have for it, without a stack that shows neither."""
        try:
            return work()
        except (adbc_driver_manager.Error, pyarrow.ArrowException, OSError, ValueError) as error:
            raise UsageError(errors.server_text(error)) from None


def _target(text):
    match = _TARGET.match(text)
    return (match[1], match[2]) if match else (None, text)


def _read(reader, cancel):
    kept, bytes_held = [], 0
    for batch in interrupts.batches(reader, cancel):
        bytes_held += batch.nbytes
        if bytes_held > limits.NOTEBOOK_RESULT_BYTES_MAX:
            raise ValueError(
                f"the result is larger than {limits.NOTEBOOK_RESULT_BYTES_MAX >> 20} MiB: add LIMIT, or read it batch by batch"
                " with bowshot.connect"
            )
        kept.append(batch)
    return pyarrow.Table.from_batches(kept, reader.schema)


def _text_of(table, printer, cycle):
    printer.text(display.as_text(table))


def load(shell):
    """Adds the magics to a shell, and shows Arrow tables well."""
    magics = BowshotMagics(shell)
    shell.register_magics(magics)
    shell.display_formatter.formatters["text/html"].for_type(pyarrow.Table, display.as_html)
    shell.display_formatter.formatters["text/plain"].for_type(pyarrow.Table, _text_of)
    atexit.register(magics.close)


def unload(shell):
    """Closes the connection, and shows Arrow tables as before."""
    magics = shell.magics_manager.registry.get("BowshotMagics")
    if magics is not None:
        atexit.unregister(magics.close)
        magics.close()
    for kind in ("text/html", "text/plain"):
        shell.display_formatter.formatters[kind].pop(pyarrow.Table, None)
    for kind, name in (("line", "sql"), ("cell", "sql"), ("line", "bowshot")):
        shell.magics_manager.magics[kind].pop(name, None)
