"""The answers written in the scripts below slt/ are DuckDB's, not ours."""

import complete_slt
import make_slt


def test_every_written_answer_is_duckdbs(capsys):
    different = complete_slt.main(["--check"])
    assert different == 0, capsys.readouterr().out


def test_scripts_of_families_are_as_made(capsys):
    assert make_slt.main(["--check"]) == 0, capsys.readouterr().out
