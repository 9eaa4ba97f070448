"""compare_answers.py FOLDER REFERENCE: compares `<query>-<engine>-<mode>.arrow` with the reference engine's cold answer, or its hot one.

Prints a JSON object of the differences by `<query>-<engine>-<mode>`; an empty one means that all agree.
"""

import glob
import json
import os
import sys

import pyarrow

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "sql-tests", "clients"))
import answers  # noqa: E402  the comparison of the client tests


def rows_of(path):
    with pyarrow.OSFile(path, "rb") as source:
        table = pyarrow.ipc.open_file(source).read_all()
    return list(zip(*(column.to_pylist() for column in table.columns)))


def main():
    folder, reference = sys.argv[1:]
    differences = {}
    for path in sorted(glob.glob(os.path.join(folder, "*.arrow"))):
        name = os.path.basename(path)[: -len(".arrow")]
        query = name.split("-")[0]
        references = [os.path.join(folder, f"{query}-{reference}-{mode}.arrow") for mode in ("cold", "hot")]
        expected = next(filter(os.path.exists, references), None)
        found = answers.difference(rows_of(path), rows_of(expected)) if expected else f"not compared: {reference} gave no answer"
        if found:
            differences[name] = found
    print(json.dumps(differences))


if __name__ == "__main__":
    main()
