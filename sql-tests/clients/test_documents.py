"""What README and docs/getting-started.md tell a newcomer to type is typed here, block by block, in their order."""

import importlib.metadata
import os
import re
import shlex
import subprocess
import time

import cluster
import pyarrow
import pyarrow.parquet
import pytest
from answers import TPCH_TABLES

PAGES = ("README.md", "docs/getting-started.md")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DEMO_URL, DEMO_PORTS = "grpc://127.0.0.1:27600", 27600
# Where both pages say that the reader's own files lie.
FOLDER = "/srv/parquet"


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo that both pages start first."""
    command = [cluster.BINARY, "demo", "--scale", "0.01", "--port-base", str(DEMO_PORTS), "--data", tmp_path_factory.mktemp("demo"), "--no-query"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    every_table = " UNION ALL ".join(f"SELECT count(*) FROM tpch.{table}" for table in TPCH_TABLES)
    try:
        cluster.wait_until("the demo answers", 60, lambda: shell(DEMO_URL, "-c", every_table).returncode == 0)
        yield
    finally:
        process.terminate()
        process.wait(60)


def shell(url, *arguments, text=None):
    return subprocess.run([cluster.BINARY, "sql", "--url", url, *arguments], input=text, capture_output=True, text=True, timeout=120)


class Reader:
    """Types what a page says. A server of their own, once started, is the one that is asked from there on."""

    def __init__(self, folder):
        self.folder, self.url, self.server = folder, DEMO_URL, None

    def own_server(self, arguments):
        flights = self.folder / "parquet" / "flights"
        flights.mkdir(parents=True)
        pyarrow.parquet.write_table(pyarrow.table({"origin": ["ZRH", "OSL", "ZRH"], "delay": [1, 2, 3]}), flights / "2024.parquet")
        ports = [cluster.free_port() for _ in range(4)]
        names = ("SERVER__LISTEN", "SERVER__HTTP_LISTEN", "COORDINATOR__LISTEN", "WORKER__LISTEN")
        environment = {**os.environ, **{f"BOWSHOT__{name}": f"127.0.0.1:{port}" for name, port in zip(names, ports)}}
        command = [cluster.BINARY, *[argument.replace(FOLDER, str(self.folder / "parquet")) for argument in arguments]]
        self.server = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.url = f"grpc://127.0.0.1:{ports[0]}"
        cluster.wait_until("the server answers", 60, lambda: shell(self.url, "-c", "SELECT 1").returncode == 0)
        live = lambda: "live" in shell(self.url, "-c", "SELECT state FROM system.nodes").stdout
        cluster.wait_until("its worker is live", 60, live)

    def command(self, line):
        program, *arguments = shlex.split(line)
        match program, arguments:
            case "./demo", _:
                flags = subprocess.run([cluster.BINARY, "demo", "--help"], capture_output=True, text=True, check=True).stdout
                assert all(flag in flags for flag in arguments if flag.startswith("--")), line
            case "pip", ["install", *packages]:
                assert all(importlib.metadata.version(package) for package in packages)
            case ("bowshot" | "target/release/bowshot"), ["server", *_]:
                self.own_server(arguments)
            case ("bowshot" | "target/release/bowshot"), ["sql", *rest]:
                self.sees(shell(self.url, *rest, text="SELECT 1;\n"))
            case _:
                pytest.fail(f"how to try this is not known here: {line}")

    def sql(self, text):
        statements = self.folder / "statements.sql"
        statements.write_text(text)
        self.sees(shell(self.url, "-f", statements))

    def python(self, text):
        exec(compile(text.replace("grpc://127.0.0.1:47470", self.url), "the page", "exec"), {})

    def sees(self, ran):
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def ends(self):
        if self.server:
            self.server.terminate()
            self.server.communicate(timeout=60)
            self.server, self.url = None, DEMO_URL


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", PAGES)
def test_a_newcomer_types_what_the_page_says(page, demo, tmp_path):
    text = (cluster.REPOSITORY / page).read_text()
    typed = 0
    for number, section in enumerate(text.split("\n## ")):
        reader = Reader(tmp_path / str(number))
        reader.folder.mkdir()
        try:
            for language, block in BLOCK.findall(section):
                began = time.monotonic()
                match language:
                    case "sql":
                        reader.sql(block)
                    case "python":
                        reader.python(block)
                    case "shell":
                        for line in block.splitlines():
                            reader.command(line)
                    case "":
                        for line in block.splitlines():
                            if line.startswith("$ "):
                                reader.command(line[2:])
                            elif line.startswith("> "):
                                reader.sql(line[2:])
                    case _:
                        pytest.fail(f"{page} has a block of {language}, which nothing tries")
                typed += 1
                print(f"{page}: {block.splitlines()[0]!r} took {time.monotonic() - began:.1f} s")
        finally:
            reader.ends()
    assert typed >= 4, "the pages' blocks were not found"
