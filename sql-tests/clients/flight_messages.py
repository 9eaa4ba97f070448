"""Flight SQL's commands as bytes, and calls of a plain Flight client with them: for what no driver sends, or shows.

    ask(client, "CommandGetTables", {3: b"part%"})       # the answer as a table
    client.get_flight_info(descriptor("CommandStatementQuery", {1: b"SELECT 1"}))
"""

import pyarrow.flight


def varint(number):
    out = bytearray()
    while True:
        out.append(number & 0x7F | (0x80 if number > 0x7F else 0))
        number >>= 7
        if not number:
            return bytes(out)


def message(fields):
    """A protobuf message: field numbers with bytes, text, integers, booleans, or lists of them."""
    out = bytearray()
    for number, values in fields.items():
        for value in values if isinstance(values, list) else [values]:
            if isinstance(value, (bool, int)):
                out += varint(number << 3) + varint(int(value))
            else:
                data = value.encode() if isinstance(value, str) else value
                out += varint(number << 3 | 2) + varint(len(data)) + data
    return bytes(out)


def command(name, fields=None):
    """A command of Flight SQL, wrapped as it travels."""
    return message({1: f"type.googleapis.com/arrow.flight.protocol.sql.{name}", 2: message(fields or {})})


def descriptor(name, fields=None):
    return pyarrow.flight.FlightDescriptor.for_command(command(name, fields))


def connect(port, token=None):
    """A plain Flight client, and the options of its calls."""
    headers = [(b"authorization", f"Bearer {token}".encode())] if token else []
    return pyarrow.flight.connect(f"grpc://127.0.0.1:{port}"), pyarrow.flight.FlightCallOptions(headers=headers)


def ask(client, name, fields=None, options=None):
    """The answer to a command, all endpoints of it, as one table."""
    info = client.get_flight_info(descriptor(name, fields), options)
    tables = [client.do_get(endpoint.ticket, options).read_all() for endpoint in info.endpoints]
    return pyarrow.concat_tables(tables)


def query(client, sql, options=None):
    return ask(client, "CommandStatementQuery", {1: sql}, options)
