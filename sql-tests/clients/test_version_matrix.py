"""The clients that docs/clients.md names are those that run here."""

import version_matrix


def test_the_page_names_the_clients_that_run():
    _, written, _ = version_matrix.parts()
    assert written == version_matrix.table(), "sql-tests/clients/version_matrix.py --write brings it up to date"
