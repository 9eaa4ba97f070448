"""Folders and disks that are taken, away, full or damaged: nothing is written where it would be lost, a refusal names the place, and nodes go on."""

import contextlib
import os
import pathlib
import re
import stat
import subprocess

import adbc_driver_manager
import cluster
import pytest

# Root may write everywhere: the worker goes without that, for the modes of folders to count.
WITHOUT_RIGHTS = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"] if os.geteuid() == 0 else []
# A file system of its own that is soon full.
SMALL_DISK = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=2m none "$0" && exec "$@"']
NOTICED_SECONDS = 10


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("disks")
    (folder / "full").mkdir()
    nodes = [
        cluster.Node("node-1", {"data": folder / "data"}, kernel_device="off", prefix=WITHOUT_RIGHTS),
        cluster.Node("node-2", {"full": folder / "full"}, kernel_device="off", prefix=[*SMALL_DISK, folder / "full"]),
    ]
    with cluster.Cluster(folder / "cluster", nodes, settings="[coordinator]\ntables_volume = 'data'\n") as started:
        started.volume = folder / "data"
        started.rows("CREATE TABLE kept (n BIGINT)")
        started.rows("INSERT INTO kept VALUES (1), (2), (3)")
        yield started


@pytest.fixture(autouse=True)
def nodes_stay_live(running):
    """Whatever a test does to a disk, both nodes are live after it, and the rows are there."""
    yield
    live = {"node-1": "live", "node-2": "live"}
    cluster.wait_until("both nodes are live", NOTICED_SECONDS, lambda: running.node_states() == live)
    cluster.wait_until("the rows are there", NOTICED_SECONDS, lambda: answered(running, "SELECT sum(n) FROM kept") == [(6,)])


def answered(running, sql):
    with contextlib.suppress(adbc_driver_manager.Error):
        return running.rows(sql)


def refusal(running, sql):
    with pytest.raises(adbc_driver_manager.Error) as caught:
        running.rows(sql)
    said = str(caught.value)
    assert "lost node" not in said and "(Internal;" not in said, said
    return said


def started_and_ended(arguments, folder, **environment):
    """The output of a program that must end by itself, with a failure."""
    ended = subprocess.run([cluster.BINARY, *arguments], capture_output=True, text=True, timeout=30, cwd=folder, env={**os.environ, **environment})
    assert ended.returncode == 1, ended
    return ended.stderr


def second_server(running, data_dir):
    ports = [f"127.0.0.1:{cluster.free_port()}" for _ in range(3)]
    arguments = ["server", "--data-dir", data_dir, "--listen", ports[0], "--http-listen", ports[1], "--control-listen", ports[2]]
    return started_and_ended(arguments, running.folder, BOWSHOT__COORDINATOR__CLUSTER_TOKEN=cluster.CLUSTER_TOKEN)


def test_a_folder_has_one_server(running):
    data_dir = running.folder / "coordinator"
    log = running.server.log_text()
    assert f"data_dir={data_dir}" in re.sub(r"\x1b\[[0-9;]*m", "", log) and "an empty one is made" in log
    # The second one names the folder by another way.
    said = second_server(running, "coordinator")
    assert f"the catalog folder {data_dir} is in use by coordinator, process {running.server.pid}" in said, said
    running.server.kill()
    running.restart_server()
    assert running.server.log_text().count("an empty one is made") == 1


def test_a_volume_has_one_worker(running):
    flags = ["worker", "--node-id", "node-9", "--listen", f"127.0.0.1:{cluster.free_port()}", "--coordinator", f"http://127.0.0.1:{running.control_port}"]
    token = {"BOWSHOT__WORKER__CLUSTER_TOKEN": cluster.CLUSTER_TOKEN}
    said = started_and_ended([*flags, "--volume", f"mine={running.volume}"], running.folder, **token)
    assert f"volume 'mine' of node node-9 in {running.volume} is in use by worker node-1, process {running.workers['node-1'].pid}" in said, said
    said = started_and_ended([*flags, "--volume", f"a={running.folder}", "--volume", f"b={running.folder}/."], running.folder, **token)
    assert "the volumes 'a' and 'b' of node node-9 are one folder" in said, said
    running.workers["node-1"].kill()
    running.restart_worker("node-1")


def test_a_volume_that_vanishes_is_not_made_anew(running):
    volume, away = running.volume, running.volume.with_name("away")
    marker = (volume / ".bowshot/volume").read_text().strip()
    volume.rename(away)
    said = refusal(running, "INSERT INTO kept VALUES (4)")
    assert "(FailedPrecondition;" in said, said
    assert f"volume 'data' of node node-1 in {volume} is not there: the folder has vanished" in said and marker in said, said
    assert not volume.exists()
    assert running.node_states()["node-1"] == "live"
    noticed = f"volume 'data' of node node-1 in {volume} is not there"
    cluster.wait_until("reads say so", NOTICED_SECONDS, lambda: noticed in refusal(running, "SELECT sum(n) FROM kept"))
    # A disk that is not mounted leaves an empty folder, which another worker's life does not make the volume either.
    volume.mkdir()
    cluster.wait_until("the marker is missed", NOTICED_SECONDS, lambda: "has no marker file" in refusal(running, "INSERT INTO kept VALUES (4)"))
    running.restart_worker("node-1")
    assert "has no marker file" in refusal(running, "INSERT INTO kept VALUES (4)")
    assert noticed in refusal(running, "SELECT sum(n) FROM kept")
    assert running.node_states()["node-1"] == "live"
    assert not list(volume.glob(".bowshot/[!l]*")), "something was written into a folder that is not the volume"
    for left in [*volume.glob(".bowshot/*"), volume / ".bowshot", volume]:
        left.rmdir() if left.is_dir() else left.unlink()
    away.rename(volume)
    cluster.wait_until("the volume is there again", NOTICED_SECONDS, lambda: answered(running, "SELECT sum(n) FROM kept") == [(6,)])
    running.rows("CREATE TABLE after AS SELECT n FROM kept")
    assert running.rows("SELECT sum(n) FROM after") == [(6,)]
    running.rows("DROP TABLE after")


def test_a_folder_without_rights_is_no_lost_node(running):
    tables = running.volume / ".bowshot/tables"
    tables.chmod(0o555)
    try:
        said = refusal(running, "CREATE TABLE denied AS SELECT 1 AS n")
    finally:
        tables.chmod(0o755)
    assert running.node_states() == {"node-1": "live", "node-2": "live"}
    assert f"node node-1: {tables}/" in said and "Permission denied" in said and "nothing was stored" in said, said
    # Nobody was taken out for it.
    assert running.rows("SELECT sum(n) FROM kept") == [(6,)]
    running.rows("CREATE TABLE granted AS SELECT 1 AS n")
    running.rows("DROP TABLE granted")


def test_a_full_disk_is_no_lost_node(running):
    # Tables lie in the volume that the server's settings name: its file is read anew at a start.
    settings = running.folder / "server.toml"
    before = settings.read_text()
    settings.write_text(before.replace("'data'", "'full'"))
    running.restart_server()
    try:
        running.rows("CREATE TABLE small AS SELECT 1 AS n")
        said = refusal(running, "INSERT INTO small SELECT CAST(random() * 1000000000000 AS BIGINT) FROM generate_series(1, 2000000)")
        assert "(ResourceExhausted;" in said, said
        assert "node node-2" in said and f"{running.volume.with_name('full')}/.bowshot/tables/" in said and "No space left on device" in said, said
        assert running.node_states()["node-2"] == "live"
        assert running.rows("SELECT count(*) FROM small") == [(1,)]
        running.rows("INSERT INTO small VALUES (2)")
        assert running.rows("SELECT count(*) FROM small") == [(2,)]
        running.rows("DROP TABLE small")
    finally:
        settings.write_text(before)
        running.restart_server()


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_the_catalog_is_its_owners_and_comes_back_from_a_backup(running):
    data_dir = running.folder / "coordinator"
    assert mode(data_dir) == 0o700
    assert {path.name: mode(path) for path in data_dir.glob("catalog.sqlite*")} == {
        name: 0o600 for name in ("catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm")
    }
    backups = running.folder / "backups"
    backups.mkdir()
    backup = lambda *arguments: subprocess.run([cluster.BINARY, "backup", *arguments], capture_output=True, text=True, timeout=60, cwd=running.folder)  # noqa: E731
    made = backup("--data-dir", data_dir, "--to", backups)
    assert made.returncode == 0, made.stderr
    copy = pathlib.Path(made.stdout.strip())
    assert copy.parent == backups and mode(copy) == 0o600 and list(backups.iterdir()) == [copy]
    assert "is there already" in backup("--data-dir", data_dir, "--to", copy).stderr
    assert "there is no catalog in" in backup("--data-dir", backups, "--to", "other.sqlite").stderr
    running.rows("CREATE TABLE later AS SELECT 1 AS n")
    running.server.end()
    # Of a server that does not run, by its settings.
    assert backup("--data-dir", data_dir, "--to", backups / "stopped.sqlite").returncode == 0
    catalog = data_dir / "catalog.sqlite"
    damaged = bytearray(catalog.read_bytes())
    damaged[-4000:] = b"\xab" * 4000
    for beside in data_dir.glob("catalog.sqlite-*"):
        beside.unlink()
    catalog.write_bytes(damaged)
    said = second_server(running, data_dir)
    assert f"the catalog {catalog} is damaged" in said and "bowshot backup" in said, said
    catalog.write_bytes(copy.read_bytes())
    running.server.start()
    running.wait_ready()
    assert running.rows("SELECT table_name FROM system.tables WHERE table_schema = 'public' ORDER BY 1") == [("kept",)]
    # What was stored after the backup is on a disk and in no table.
    unknown = lambda: [line for line in running.server.log_text().splitlines() if "that the catalog does not know" in line]  # noqa: E731
    cluster.wait_until("the log says so", NOTICED_SECONDS, unknown)
    assert len(unknown()) == 1 and "node-1" in unknown()[0] and "files=1" in re.sub(r"\x1b\[[0-9;]*m", "", unknown()[0]), unknown()
