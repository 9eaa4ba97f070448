"""What several test files share: TPC-H data spread over three nodes, a cluster over it, and DuckDB over the same files."""

import os
import subprocess

import answers
import cluster
import pytest

SCALE = os.environ.get("BOWSHOT_TEST_SCALE", "0.05")
NODES = {"node-1": "eu", "node-2": "eu", "node-3": "us"}


@pytest.fixture(scope="session")
def tpch_folder(tmp_path_factory):
    """`<folder>/<node>/<table>/…parquet`: every file on one node only."""
    folder = tmp_path_factory.mktemp("tpch")
    generator = cluster.BINARY.with_name("bowshot-datagen")
    started = []
    for part, node in enumerate(NODES, start=1):
        arguments = ["--scale", SCALE, "--part", str(part), "--parts", str(len(NODES)), "--out", folder / node]
        started.append(subprocess.Popen([generator, "tpch", *arguments], stdout=subprocess.DEVNULL))
    assert [process.wait() for process in started] == [0] * len(NODES)
    return folder


@pytest.fixture(scope="session")
def tpch_cluster(tpch_folder, tmp_path_factory):
    nodes = [cluster.Node(node, {"data": tpch_folder / node}, region) for node, region in NODES.items()]
    with cluster.Cluster(tmp_path_factory.mktemp("tpch-cluster"), nodes, default_schema="tpch") as running:
        for table in answers.TPCH_TABLES:
            running.create_table(f"tpch.{table}", f"node://*/data/{table}/")
        yield running


@pytest.fixture(scope="session")
def duckdb_tpch(tpch_folder):
    return answers.duckdb_over(tpch_folder, answers.TPCH_TABLES)
