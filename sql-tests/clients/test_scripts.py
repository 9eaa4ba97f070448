"""The answers written in the scripts below slt/ are DuckDB's, not ours."""

import complete_slt


def test_every_written_answer_is_duckdbs(capsys):
    different = complete_slt.main(["--check"])
    assert different == 0, capsys.readouterr().out
