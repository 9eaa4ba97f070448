"""Puts the program `bowshot` into the wheel where BOWSHOT_PROGRAM names its file, so that `pip install bowshot` brings both.

Without it the wheel is the client alone and fits any machine: installers take it where no wheel with the program fits theirs.
"""

import os
import pathlib
import platform
import re
import subprocess

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ProgramHook(BuildHookInterface):
    def initialize(self, version, build_data):
        if version == "editable":
            return
        licence = pathlib.Path(self.root).parents[1] / "LICENSE"
        if licence.is_file():
            build_data["force_include"][str(licence)] = "bowshot/LICENSE"
        program = os.environ.get("BOWSHOT_PROGRAM")
        if not program:
            return
        if not pathlib.Path(program).is_file():
            raise FileNotFoundError(f"BOWSHOT_PROGRAM names {program}, which is no file: build it with deploy/package")
        build_data["shared_scripts"][str(pathlib.Path(program).resolve())] = "bowshot"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform_tag(program)}"


def platform_tag(program):
    """The oldest C library that has all symbols of the program, as PEP 600 writes it."""
    needed = subprocess.run(["readelf", "--version-info", "--wide", program], check=True, capture_output=True, text=True).stdout
    versions = {tuple(map(int, found)) for found in re.findall(r"\bGLIBC_(\d+)\.(\d+)\b", needed)}
    if not versions:
        raise ValueError(f"{program} needs no version of the GNU C library: wheels for other systems are not made yet")
    major, minor = max(versions)
    return f"manylinux_{major}_{minor}_{platform.machine()}"
