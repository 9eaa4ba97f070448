"""Tables of two regions whose secret values are known one by one: a text, number, date or nested value that is found wherever it goes.

Every table has the same columns. `id`, `ref`, `grp`, `city`, `age` and `qty` are harmless: few values, or numbers that tell nothing. The others are
secret: a canary in every row but the two of each file whose values lie below and above all canaries, since the catalog knows each file's bounds.
"""

import datetime
import decimal
import pathlib
import random
import struct

import pyarrow
import pyarrow.parquet
import traffic_recorder
from traffic_recorder import DAY_UPPER, OWNERS

NODES = {"eu-1": "eu", "eu-2": "eu", "us-1": "us", "us-2": "us"}
FILES_A_NODE = 2
# Rows, and the regions that the table is pinned to. The rows of `ledger_*` are group keys, minima and maxima, which may cross: no canaries.
TABLES = {
    **{f"{name}_{region}": (rows, [region]) for region in ("eu", "us") for name, rows in (("people", 2000), ("orders", 3000), ("visits", 1000))},
    **{f"ledger_{region}": (1000, [region]) for region in ("eu", "us")},
    "items": (2000, []),
    "pairs": (1000, ["eu", "us"]),
}
CITIES = ["Athens", "Boston", "Cairo", "Dakar", "Essen", "Fargo"]
EPOCH = datetime.datetime(1970, 1, 1)
SCHEMA = pyarrow.schema([
    ("id", pyarrow.int64()), ("ref", pyarrow.int64()), ("grp", pyarrow.int32()), ("city", pyarrow.string()), ("age", pyarrow.int32()),
    ("qty", pyarrow.int64()), ("name", pyarrow.string()), ("note", pyarrow.string()), ("ssn", pyarrow.int64()),
    ("salary", pyarrow.decimal128(18, 2)), ("weight", pyarrow.float64()), ("seen", pyarrow.timestamp("us")), ("born", pyarrow.date32()),
    ("tags", pyarrow.list_(pyarrow.string())), ("home", pyarrow.struct([("street", pyarrow.string()), ("zip", pyarrow.int64())])),
])  # fmt: skip
LOW = {
    "name": "!low", "note": "!low", "ssn": -5, "salary": decimal.Decimal("0.01"), "weight": 1.0, "seen": datetime.datetime(2000, 1, 1),
    "born": datetime.date(1990, 1, 1), "tags": ["!low"], "home": {"street": "!low", "zip": 0},
}  # fmt: skip
HIGH = {
    "name": "~high", "note": "~high", "ssn": 1 << 51, "salary": decimal.Decimal("99999999999999.99"), "weight": 1e12,
    "seen": datetime.datetime(2200, 1, 1), "born": datetime.date(9000, 1, 1), "tags": [], "home": None,
}  # fmt: skip


def owner_of(table):
    regions = TABLES[table][1]
    return None if table.startswith("ledger") else "open" if not regions else "both" if len(regions) > 1 else regions[0]


class Planter:
    """Makes values, and keeps what the canaries among them are known by."""

    def __init__(self, seed):
        self.chance = random.Random(f"canaries {seed}")
        kinds = [*traffic_recorder.UPPER, "date", "text"]
        self.planted = {kind: {owner: set() for owner in OWNERS} for kind in kinds}
        # Those that lie in the other region and may leave it: who records must see them.
        self.node, self.abroad = None, {kind: set() for kind in kinds}

    def note(self, kind, owner, value):
        self.planted[kind][owner].add(value)
        if owner in ("open", "both") and NODES[self.node] == "us":
            self.abroad[kind].add(value)

    def text(self, owner, what):
        made = f"{'canary' if owner else 'ledger'}-{owner}-{what}-{self.chance.randrange(8)}-{self.chance.getrandbits(64):016x}"
        if owner:
            self.note("text", owner, made)
        return made

    def bits(self, kind, owner):
        """64 of them."""
        low = self.chance.getrandbits(32)
        if not owner:
            return (traffic_recorder.UPPER[kind] - 16) << 32 | low
        self.note(kind, owner, low)
        return traffic_recorder.upper(kind, owner) << 32 | low

    def day(self, owner):
        days = DAY_UPPER << 16 | self.chance.getrandbits(14) << 2 | OWNERS.index(owner or "both")
        if owner:
            self.note("date", owner, days)
        return (EPOCH + datetime.timedelta(days=days)).date()

    def double(self, owner):
        return struct.unpack("<d", struct.pack("<q", self.bits("double", owner)))[0]

    def secrets(self, owner):
        return {
            "name": self.text(owner, "name"),
            "note": None if self.chance.random() < 0.1 else self.text(owner, "note"),
            "ssn": self.bits("integer", owner),
            "salary": decimal.Decimal(self.bits("decimal", owner)).scaleb(-2),
            "weight": self.double(owner),
            "seen": EPOCH + datetime.timedelta(microseconds=self.bits("timestamp", owner)),
            "born": self.day(owner),
            "tags": [self.text(owner, "tag") for _ in range(self.chance.randrange(3))],
            "home": {"street": self.text(owner, "street"), "zip": self.bits("integer", owner)},
        }

    def row(self, number, count, owner, bound):
        chance = self.chance
        harmless = {
            "id": number, "ref": chance.randrange(count), "grp": None if chance.random() < 0.05 else chance.randrange(8),
            "city": chance.choice(CITIES), "age": chance.randrange(90), "qty": chance.randrange(1, 10),
        }  # fmt: skip
        return harmless | (bound or self.secrets(owner))


def nodes_of(table):
    regions = TABLES[table][1]
    return [node for node, region in NODES.items() if not regions or region in regions]


def write(folder, seed):
    """The tables in `<folder>/<node>/<table>/`. Gives what is planted in them, {kind: {owner: [value]}}, and how many of each kind must be seen to
    cross when all rows that may are asked for.

    Stored without compression and dictionaries: a file that crossed as it is would be read too.
    """
    planter, people = Planter(seed), []
    for table, (count, _) in TABLES.items():
        nodes, owner = nodes_of(table), owner_of(table)
        parts = [(node, part) for part in range(FILES_A_NODE) for node in nodes]
        # What `note` of orders and visits names is a person of the region: a key that is secret itself.
        known = people if table.startswith(("orders", "visits")) else None
        if table.startswith("people"):
            people = []
        for place, (node, part) in enumerate(parts):
            planter.node = node
            numbers = range(place, count, len(parts))
            rows = [planter.row(number, count, owner, {0: LOW, 1: HIGH}.get(at)) for at, number in enumerate(numbers)]
            for row in rows:
                if known and row["note"] and row["note"].startswith("canary"):
                    row["note"] = planter.chance.choice(known)
            people += [row["name"] for row in rows] if table.startswith("people") else []
            file = pathlib.Path(folder) / node / table / f"part-{node}-{part}.parquet"
            file.parent.mkdir(parents=True, exist_ok=True)
            stored = pyarrow.Table.from_pylist(rows, SCHEMA)
            pyarrow.parquet.write_table(stored, file, row_group_size=200, compression="none", use_dictionary=False)
    planted = {kind: {owner: sorted(values) for owner, values in owners.items()} for kind, owners in planter.planted.items()}
    return planted, {kind: len(values) for kind, values in planter.abroad.items()}
