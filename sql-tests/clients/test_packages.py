"""The wheel with the program in it, the wheel without, and an installed program under ./demo. `deploy/package` makes them for others."""

import os
import re
import subprocess
import sys
import zipfile

import cluster
import pytest

PACKAGE = cluster.REPOSITORY / "flight-server" / "python"
VERSION = re.search(r'^version = "(.+)"$', (cluster.REPOSITORY / "Cargo.toml").read_text(), re.MULTILINE)[1]


def build(folder, program=None):
    """The wheel that hatchling builds into `folder`."""
    environment = {name: value for name, value in os.environ.items() if name != "BOWSHOT_PROGRAM"}
    if program:
        environment["BOWSHOT_PROGRAM"] = str(program)
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    built = subprocess.run(command, cwd=PACKAGE, env=environment, capture_output=True, text=True)
    if built.returncode:
        raise RuntimeError(built.stderr)
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_a_wheel_brings_the_program_and_the_client(tmp_path):
    wheel = build(tmp_path / "dist", cluster.BINARY)
    assert re.fullmatch(rf"bowshot-{VERSION}-py3-none-manylinux_2_\d+_\w+\.whl", wheel.name)
    prefix = tmp_path / "installed"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index", "--prefix", str(prefix)]
    subprocess.run([*install, str(wheel)], check=True)
    answered = subprocess.run([prefix / "bin" / "bowshot", "--version"], check=True, capture_output=True, text=True)
    assert answered.stdout == f"bowshot {VERSION}\n"
    assert list(prefix.glob("lib/python*/site-packages/bowshot/connection.py"))


def test_a_wheel_without_the_program_fits_any_machine(tmp_path):
    wheel = build(tmp_path)
    assert wheel.name == f"bowshot-{VERSION}-py3-none-any.whl"
    names = zipfile.ZipFile(wheel).namelist()
    assert {"bowshot/__init__.py", "bowshot/LICENSE"} <= set(names) and not [name for name in names if ".data/" in name]


def test_a_program_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RuntimeError, match="BOWSHOT_PROGRAM names .*nowhere, which is no file"):
        build(tmp_path, tmp_path / "nowhere")


@pytest.fixture
def demo(tmp_path):
    """Runs ./demo where a program called bowshot is installed that says it has this version."""

    def run(version, *arguments):
        installed = tmp_path / "bowshot"
        installed.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "bowshot {version}" || echo "installed: $*"\n')
        installed.chmod(0o755)
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        return subprocess.run([cluster.REPOSITORY / "demo", *arguments], env=environment, check=True, capture_output=True, text=True)

    return run


def test_the_demo_takes_an_installed_program_of_its_version(demo):
    ran = demo(VERSION, "--scale", "0.01")
    assert ran.stdout == "installed: demo --scale 0.01\n"
    assert f"version {VERSION} (./demo --from-source builds this checkout)" in ran.stderr


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("version", "asked"), [("0.0.1", []), (VERSION, ["--from-source"])])
def test_the_demo_builds_where_another_version_is_installed_or_it_is_asked_to(demo, version, asked):
    ran = demo(version, *asked, "--help")
    assert "installed:" not in ran.stdout and "--workers" in ran.stdout
