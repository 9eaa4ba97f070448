"""The clients that README names are those that run here."""

import version_matrix


def test_readme_names_the_clients_that_run():
    _, written, _ = version_matrix.parts()
    assert written == version_matrix.table(), "sql-tests/clients/version_matrix.py --write brings it up to date"
