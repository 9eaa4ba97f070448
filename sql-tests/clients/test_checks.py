"""What is wrong with settings is known before a start: `bowshot config check` and a start say it in the same words, all of it, and no secret."""

import os
import pty
import re
import select
import socket
import subprocess
import time

import authority
import cluster
import pytest

TOKEN = "cluster-token-of-checks"
# Looks like a hash, and its end is missing.
CUT_HASH = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA"


def bowshot(folder, *arguments, prefix=(), seconds=60, **variables):
    environment = {**os.environ, "RUST_LOG": "warn", **variables}
    return subprocess.run([*prefix, cluster.BINARY, *map(str, arguments)], cwd=folder, env=environment, capture_output=True, text=True, timeout=seconds)


def problems(said):
    return sorted(line for line in said.stderr.splitlines() if line.startswith("error: "))


def server_settings(more="", listen="127.0.0.1", **coordinator):
    ports = [cluster.free_port() for _ in range(3)]
    lines = "".join(f"{name} = {value}\n" for name, value in {"cluster_token": f'"{TOKEN}"', "data_dir": '"catalog"', **coordinator}.items())
    return (
        f'[server]\nlisten = "{listen}:{ports[0]}"\nhttp_listen = "127.0.0.1:{ports[1]}"\n'
        f'[coordinator]\nlisten = "127.0.0.1:{ports[2]}"\n{lines}{more}\n'
    )  # fmt: skip


def worker_settings(more="", **worker):
    values = {
        "node_id": '"node-1"', "cluster_token": f'"{TOKEN}"', "listen": f'"127.0.0.1:{cluster.free_port()}"',
        "coordinator": f'"http://127.0.0.1:{cluster.free_port()}"', **worker,
    }  # fmt: skip
    return "[worker]\n" + "".join(f"{name} = {value}\n" for name, value in values.items()) + more


def checked(tmp_path, text, role, prefix=()):
    """What the check and a start say of settings, which both refuse."""
    (tmp_path / "settings.toml").write_text(text)
    check = bowshot(tmp_path, "--config", "settings.toml", "config", "check", prefix=prefix)
    start = bowshot(tmp_path, "--config", "settings.toml", role, prefix=prefix)
    for said in [check, start]:
        assert said.returncode == 1, said.stdout + said.stderr
        assert "panicked" not in said.stderr, said.stderr
    return check, start


def test_good_settings_have_no_problem(tmp_path):
    (tmp_path / "server.toml").write_text(server_settings())
    said = bowshot(tmp_path, "--config", "server.toml", "config", "check")
    assert (said.returncode, said.stderr) == (0, ""), said.stderr
    assert "all settings of a server can be used" in said.stdout
    (tmp_path / "data").mkdir()
    (tmp_path / "worker.toml").write_text(worker_settings(volumes='{ data = "data" }'))
    said = bowshot(tmp_path, "--config", "worker.toml", "config", "check")
    assert said.returncode == 0 and "all settings of a worker can be used" in said.stdout, said.stderr
    # A coordinator that is not there yet is waited for.
    assert re.search("^note: coordinator http://127.0.0.1:\\d+", said.stderr), said.stderr
    assert not (tmp_path / "catalog").exists() and not list((tmp_path / "data").iterdir()), "a check makes nothing"


SERVER = [
    (server_settings(cluster_token='"too short"'), ["coordinator.cluster_token is shorter than 16"]),
    (server_settings(cluster_token='"a token with blanks in it"'), ["cannot travel in a header"]),
    (server_settings(f'[auth]\nmode = "required"\nusers = {{ ana = "{CUT_HASH}" }}'), ["auth.users.ana is not a password hash", "hash-password"]),
    (server_settings('[auth]\nmode = "required"\nusers = { ana = "a password" }'), ["auth.users.ana is not a password hash"]),
    (server_settings('[auth]\nmode = "required"\ntokens = { ana = "a token of sixteen" }\nadministrators = ["eve"]'), ["auth.administrators names 'eve'"]),
    (server_settings(listen="0.0.0.0"), ["auth.mode is 'off'", "other machines"]),
    (server_settings('[tls]\ncertificate = "no.pem"\nkey = "no.key"'), ["tls.certificate: no.pem cannot be read", "tls.key: no.key cannot be read"]),
    (server_settings('[coordinator.cluster_tls]\ncertificate = "no.pem"\nkey = "no.key"\nca = "no-ca.pem"'), ["cluster_tls.certificate: no.pem", "cluster_tls.ca: no-ca.pem"]),
    (server_settings('[[coordinator.storage]]\nurl = "s3://a"\naccess_key_id = "id"'), ["s3://a", "access key id without a secret"]),
    (server_settings('[[coordinator.storage]]\nurl = "s3://a"\nendpoint = "http://minio:9000"'), ["s3://a", "allow_http"]),
    (server_settings('[[coordinator.storage]]\nurl = "s3://a"\n[[coordinator.storage]]\nurl = "s3://a/"'), ["s3://a/ stands twice"]),
    (server_settings(region='"Europe West"'), ["coordinator.region 'Europe West'"]),
    (server_settings(memory_bytes=10**18), ["coordinator.memory_bytes is 1000 PB"]),
    (server_settings(data_dir='"settings.toml"'), ["the catalog folder", "settings.toml", "cannot be written"]),
    (server_settings(spill_dir='"no/such/folder"'), ["the folder for spilled data", "coordinator.spill_dir"]),
    (server_settings("[coordinator.query]\ncompression = \"gzip\""), ["coordinator.query.compression cannot be 'gzip'"]),
]  # fmt: skip
WORKER = [
    (worker_settings(cluster_token='""'), ["worker.cluster_token is not set"]),
    (worker_settings(cluster_token='"short"'), ["worker.cluster_token is shorter than 16"]),
    (worker_settings(node_id='""'), ["a worker needs a name"]),
    (worker_settings(node_id='"coordinator"'), ["the coordinator's own name"]),
    (worker_settings(coordinator='"coordinator"'), ["is not a URL like http://host:47472"]),
    (worker_settings(coordinator='"https://127.0.0.1:1"'), ["worker.cluster_tls is not set"]),
    (worker_settings(volumes='{ data = "gone" }'), ["volume 'data'", "does not exist"]),
    (worker_settings(volumes='{ data = "settings.toml" }'), ["volume 'data'", "is not a folder"]),
    (worker_settings(volumes='{ a = ".", b = "." }'), ["the volumes 'a' and 'b'", "are one folder"]),
    (worker_settings(volume_regions='{ dta = "us" }'), ["there is no volume 'dta'"]),
    (worker_settings(listen='"0.0.0.0:1"', insecure_cluster="true"), ["worker.advertise"]),
    (worker_settings(advertise='"host-1"'), ["worker.advertise is 'host-1'", "host:port"]),
    (worker_settings(cache_bytes=10**18), ["worker.cache_bytes is 1000 PB"]),
    (worker_settings(kernel_device='"all"'), ["worker.kernel_device cannot be 'all'"]),
    (worker_settings(spill_dir='"no/such/folder"'), ["worker.spill_dir"]),
]  # fmt: skip


@pytest.mark.parametrize("role, text, words", [("server", *case) for case in SERVER] + [("worker", *case) for case in WORKER])
def test_a_start_and_the_check_refuse_in_the_same_words(tmp_path, role, text, words):
    check, start = checked(tmp_path, text, role)
    assert problems(check) == problems(start)
    assert all(word in check.stderr for word in words), check.stderr


def test_all_that_is_wrong_is_told_at_once_and_no_secret(tmp_path):
    secrets = {"password": "a-password-in-the-wrong-place", "token": "fixed-tok", "cluster": "cl-secret", "bucket": "bucket-secret-key"}
    port = cluster.free_port()
    text = f"""
[server]
listen = "127.0.0.1:{port}"
http_listen = "127.0.0.1:{port}"
[auth]
mode = "required"
users = {{ ana = "{secrets['password']}", bob = "{CUT_HASH}" }}
tokens = {{ robot = "{secrets['token']}" }}
administrators = ["eve"]
[tls]
certificate = "no.pem"
key = "no.key"
[coordinator]
cluster_token = "{secrets['cluster']}"
listen = "0.0.0.0:{port}"
region = "Europe West"
memory_bytes = {10**18}
spill_dir = "no/such/folder"
[[coordinator.storage]]
url = "s3://a"
secret_access_key = "{secrets['bucket']}"
endpoint = "http://minio"
"""
    check, start = checked(tmp_path, text, "server")
    assert problems(check) == problems(start)
    assert len(problems(check)) >= 15, check.stderr
    shared = [line for line in problems(check) if f"are both port {port}" in line]
    assert len(shared) == 3, check.stderr
    doctor = bowshot(tmp_path, "--config", "settings.toml", "doctor")
    assert all(line.removeprefix("error: ") in doctor.stdout for line in problems(check)), doctor.stdout
    for secret in [*secrets.values(), CUT_HASH]:
        assert secret not in check.stdout + check.stderr + start.stdout + start.stderr + doctor.stdout + doctor.stderr, secret


@pytest.mark.parametrize(
    "wrong",
    ["[coordinator]\ncluster_token = @secret@", "[coordinator]\ncluster_token = ['@secret@']", "[auth]\nusers = '@secret@'", "[auth]\ntokens = '@secret@"],
)
def test_a_mistyped_secret_is_not_quoted(tmp_path, wrong):
    check, start = checked(tmp_path, wrong.replace("@secret@", "unquoted-secret-0"), "server")
    assert problems(check) and problems(check) == problems(start)
    assert "unquoted-secret" not in check.stderr + start.stderr


def test_every_unknown_setting_is_told(tmp_path):
    (tmp_path / "settings.toml").write_text("[server]\nliste = 'x'\n[coordinator]\nregin = 'eu'\ncluster_token = 'short'\n[wroker]\na = 1\n")
    said = bowshot(tmp_path, "--config", "settings.toml", "config", "check")
    assert said.returncode == 1
    for word in ["'server.liste'", "'coordinator.regin'", "'wroker'", "coordinator.cluster_token is shorter"]:
        assert word in said.stderr, said.stderr


def read_only(folder):
    """Starts a command line in which `folder` is an empty file system that nobody may write; nothing where that cannot be had here."""
    prefix = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs -o ro none "{folder}" && exec "$@"', "sh"]
    if subprocess.run([*prefix, "true"], capture_output=True).returncode != 0:
        pytest.skip("file systems cannot be mounted here")
    return prefix


def test_a_read_only_file_system_is_found(tmp_path):
    (tmp_path / "disk").mkdir()
    prefix = read_only(tmp_path / "disk")
    for settings, word in [(server_settings(data_dir='"disk"'), "the catalog folder"), (server_settings(data_dir='"disk/below/it"'), "cannot be created"),
                           (server_settings(spill_dir='"disk"'), "spilled data")]:  # fmt: skip
        check, start = checked(tmp_path, settings, "server", prefix)
        assert problems(check) == problems(start)
        assert word in check.stderr and "Read-only file system" in check.stderr, check.stderr
    # A volume may be read-only: it is served as it is.
    (tmp_path / "worker.toml").write_text(worker_settings(volumes='{ data = "disk" }'))
    said = bowshot(tmp_path, "--config", "worker.toml", "config", "check", prefix=prefix)
    assert said.returncode == 0 and "is served as it is: Read-only file system" in said.stderr, said.stderr
    doctor = bowshot(tmp_path, "--config", "worker.toml", "doctor", prefix=prefix)
    assert re.search(r"^volume +data: disk on .*/disk \(tmpfs\), .* not writable: Read-only", doctor.stdout, re.M), doctor.stdout


def test_a_temporary_folder_that_cannot_be_written_is_a_note(tmp_path):
    (tmp_path / "disk").mkdir()
    prefix = read_only(tmp_path / "disk")
    (tmp_path / "server.toml").write_text(server_settings())
    said = bowshot(tmp_path, "--config", "server.toml", "config", "check", prefix=prefix, TMPDIR=str(tmp_path / "disk"))
    assert said.returncode == 0 and "queries that spill fail" in said.stderr, said.stderr


def test_certificates_of_others_and_plain_addresses_beside_tls(tmp_path):
    bowshot(tmp_path, "certs", "certs", "--node", "node-1,region=eu", "--node", "node-2,region=us")
    files = {name: f'{{ certificate = "certs/{name}.pem", key = "certs/{key}.key", ca = "certs/ca.pem" }}' for name, key in
             [("node-1", "node-1"), ("node-2", "node-2"), ("coordinator", "node-1")]}  # fmt: skip
    mixed = '{ certificate = "certs/node-1.pem", key = "certs/node-2.key", ca = "certs/ca.pem" }'
    for worker, word in [
        ({"cluster_tls": files["node-2"], "region": '"us"'}, "node-2"),
        ({"cluster_tls": files["node-1"], "region": '"us"'}, "region"),
        ({"cluster_tls": mixed, "region": '"eu"'}, "the two must be issued together"),
        ({"cluster_tls": files["node-1"], "region": '"eu"'}, "write https://"),
    ]:
        secure = {} if word == "write https://" else {"coordinator": '"https://127.0.0.1:1"'}
        check, start = checked(tmp_path, worker_settings(**{**worker, **secure}), "worker")
        assert problems(check) == problems(start)
        assert word in check.stderr, check.stderr


def test_certificates_that_ended_or_end_soon(tmp_path):
    made = authority.Authority(tmp_path)
    made.issue("ended", "server", authority.SERVER, days=-1)
    made.issue("soon", "server", authority.SERVER, days=3)
    tls = '[tls]\ncertificate = "{0}.pem"\nkey = "{0}.key"'
    check, start = checked(tmp_path, server_settings(tls.format("ended")), "server")
    assert problems(check) == problems(start) and "ended.pem expired on" in check.stderr, check.stderr
    (tmp_path / "settings.toml").write_text(server_settings(tls.format("soon")))
    said = bowshot(tmp_path, "--config", "settings.toml", "config", "check")
    assert said.returncode == 0 and "note: tls.certificate ends on" in said.stderr, said.stderr


def test_a_port_of_another_process_is_told_with_its_name(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = re.sub(r"(http_listen = \"127.0.0.1):\d+", rf"\1:{port}", server_settings())
        check, start = checked(tmp_path, text, "server")
        assert problems(check) == problems(start)
        assert f"port {port} is taken by process {os.getpid()} (" in check.stderr, check.stderr
        doctor = bowshot(tmp_path, "--config", "settings.toml", "doctor").stdout
        assert re.search(rf"^port +127.0.0.1:{port} for .*server.http_listen\): taken by process {os.getpid()} ", doctor, re.M), doctor


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checks")
    nodes = [cluster.Node(f"node-{number}", {"data": folder / f"data-{number}"}) for number in [1, 2]]
    with cluster.Cluster(folder / "cluster", nodes, "[coordinator]\nreplication_grace_ms = 600000\n") as started:
        yield started


def own_settings(running, node="node-1", **changes):
    """The settings of a worker of the running cluster as variables."""
    settings = {
        "NODE_ID": node, "REGION": "eu", "CLUSTER_TOKEN": cluster.CLUSTER_TOKEN, "COORDINATOR": f"http://127.0.0.1:{running.control_port}",
        "LISTEN": f"127.0.0.1:{running.worker_ports['node-1']}", "VOLUMES": f'{{data="{running.nodes["node-1"].volumes["data"]}"}}', "KERNEL_DEVICE": "off", **changes,
    }  # fmt: skip
    return {f"BOWSHOT__WORKER__{name}": value for name, value in settings.items()}


def test_while_a_process_runs_its_own_locks_and_ports_are_notes(running, tmp_path):
    server = {
        "BOWSHOT__SERVER__LISTEN": f"127.0.0.1:{running.port}", "BOWSHOT__SERVER__HTTP_LISTEN": f"127.0.0.1:{running.http_port}",
        "BOWSHOT__COORDINATOR__LISTEN": f"127.0.0.1:{running.control_port}", "BOWSHOT__COORDINATOR__DATA_DIR": str(running.folder / "coordinator"),
        "BOWSHOT__COORDINATOR__CLUSTER_TOKEN": cluster.CLUSTER_TOKEN,
    }  # fmt: skip
    for variables, process, count in [(server, running.server, 4), (own_settings(running), running.workers["node-1"], 2)]:
        said = bowshot(tmp_path, "config", "check", **variables)
        assert said.returncode == 0, said.stderr
        notes = [line for line in said.stderr.splitlines() if line.startswith("note: ") and str(process.pid) in line]
        assert len(notes) == count, said.stderr
        assert any("is in use by" in line for line in notes), said.stderr
    doctor = bowshot(tmp_path, "doctor", **server).stdout
    for line in [r"^data_dir +.* free, writable, its catalog is whole$", rf"^port +.*taken by process {running.server.pid} \(bowshot\)$",
                 r"^open files +\d+ at most, \d+ connections", r"^verdict +nothing"]:  # fmt: skip
        assert re.search(line, doctor, re.M), doctor
    doctor = bowshot(tmp_path, "doctor", **own_settings(running)).stdout
    for line in [
        rf"^volume +data: .* free, writable, marker [0-9a-f-]{{36}}, served by worker node-1, process {running.workers['node-1'].pid}$",
        r"^spill +of the worker: .* free, writable$", r"^coordinator +http://.* takes this node in, release \d+\.\d+\.\d+, .*clock", r"^open files +\d+ at most",
    ]:  # fmt: skip
        assert re.search(line, doctor, re.M), doctor


def other_node(running, tmp_path, **changes):
    """A worker's settings that are its own, but for what is changed."""
    return own_settings(running, **{"LISTEN": f"127.0.0.1:{cluster.free_port()}", "VOLUMES": f'{{data="{tmp_path}"}}', **changes})


def refused_lines(running):
    return [line for line in running.server.log_text().splitlines() if "a node was refused" in line]


def test_a_wrong_token_is_told_at_both_ends(running, tmp_path):
    before = running.metric("bowshot_nodes_refused_total", reason="token")
    wrong = other_node(running, tmp_path, NODE_ID="stranger", CLUSTER_TOKEN="not-the-token-of-it")
    check = bowshot(tmp_path, "config", "check", **wrong)
    for _ in range(2):
        start = bowshot(tmp_path, "worker", **wrong)
        assert start.returncode == 1 and problems(start) == problems(check)
    assert check.returncode == 1 and "the cluster token is missing or wrong" in check.stderr
    assert "refuses this node" in bowshot(tmp_path, "doctor", **wrong).stdout
    # Each call counts, an address has one line a minute.
    assert running.metric("bowshot_nodes_refused_total", reason="token") >= before + 4
    lines = refused_lines(running)
    assert len(lines) == 1 and "WARN" in lines[0] and "peer=127.0.0.1:" in lines[0] and "stranger" in lines[0], lines
    assert "not-the-token-of-it" not in running.server.log_text()


def test_a_taken_name_is_told_before_the_start(running, tmp_path):
    before = running.metric("bowshot_nodes_refused_total", reason="name")
    wrong = other_node(running, tmp_path)
    check, start = bowshot(tmp_path, "config", "check", **wrong), bowshot(tmp_path, "worker", **wrong)
    assert (check.returncode, start.returncode) == (1, 1)
    assert problems(check) == problems(start) and "node id 'node-1' is already in use" in check.stderr, check.stderr
    assert running.metric("bowshot_nodes_refused_total", reason="name") == before + 2


def test_no_command_fails_without_a_reader(running, tmp_path):
    for arguments in [["certs", "made", "--node", "node-1", "--node", "node-2"], ["doctor"], ["config", "show"], ["config", "check"], ["--help"],
                      ["backup", "--to", "copy", "--data-dir", running.folder / "coordinator"], ["sql", "--url", running.uri, "-c", "SHOW TABLES"],
                      ["explain", "--url", running.uri, "SELECT 1"], ["queries", "--url", running.uri, "ls", "--all"], ["hash-password"]]:  # fmt: skip
        reader, writer = os.pipe()
        os.close(reader)
        said = subprocess.run([cluster.BINARY, *map(str, arguments)], cwd=tmp_path, input="a password\n", stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
        os.close(writer)
        assert "panicked" not in said.stderr and said.returncode >= 0, (arguments, said.stderr)
    # What a command does beside printing is done.
    assert {"node-1.key", "node-2.pem", "ca.pem"} <= {path.name for path in (tmp_path / "made").iterdir()}
    said = subprocess.run([cluster.BINARY, "config", "show"], cwd=tmp_path, stdout=open("/dev/full", "w"), stderr=subprocess.PIPE, text=True)
    assert said.returncode == 1 and "No space left" in said.stderr, said.stderr


def typed(folder, *lines):
    """What a terminal shows of `bowshot hash-password`, and the exit status."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.execv(cluster.BINARY, [str(cluster.BINARY), "hash-password"])
    shown = b""
    lines = list(lines)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            shown += os.read(terminal, 4096)
        except OSError:
            break
        if lines and shown.endswith(b": "):
            os.write(terminal, lines.pop(0).encode() + b"\n")
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    return shown.decode(), os.waitstatus_to_exitcode(status)


def test_a_password_is_not_shown_at_a_terminal(tmp_path):
    shown, status = typed(tmp_path, "hidden word", "hidden word")
    assert status == 0 and "$argon2id$" in shown and "hidden" not in shown, shown
    shown, status = typed(tmp_path, "hidden word", "hidden wrod")
    assert status == 1 and "are not the same" in shown and "hidden" not in shown, shown


DEBUG_STRUCT = re.compile(r"\b[A-Z]\w+ ?\{ ?\w+: |\b(Some|Ok|Err)\(|\w+\(\d+\.\d+|Instant|: None\b")


def test_logs_say_what_becomes_of_nodes_in_words(running):
    cluster.wait_until("both nodes are told of", 10, lambda: running.server.log_text().count("a node is live") >= 2)
    running.rows("SELECT 1")
    for process in [running.server, *running.workers.values()]:
        for line in process.log_text().splitlines():
            assert not DEBUG_STRUCT.search(line), line
    assert "kernels are measured" in running.workers["node-1"].log_text()


def test_metrics_say_what_an_operator_asks_first(running):
    running.rows("CREATE TABLE counted AS SELECT value AS n FROM generate_series(1, 100000) AS t(value)")
    for _ in range(3):
        running.rows("SELECT sum(n) FROM counted", kernel="host")
    metric = running.metric
    cluster.wait_until("the cache was told of", 10, lambda: metric("bowshot_cache_hits_total") > 0 and metric("bowshot_cache_bytes") > 0)
    assert metric("bowshot_nodes", state="live") == 2 and metric("bowshot_nodes", state="dead") == 0
    assert metric("bowshot_cache_misses_total") > 0
    cluster.wait_until("files are counted anew", 15, lambda: metric("bowshot_files", state="available") >= 1)
    assert metric("bowshot_files", state="missing") == 0
    for node in ["node-1", "node-2"]:
        assert metric("bowshot_memory_limit_bytes", node=node) > 1e8 and metric("bowshot_cache_limit_bytes", node=node) > 1e8
        assert metric("bowshot_spill_limit_bytes", node=node) == 1e11
        free = os.statvfs(running.nodes[node].volumes["data"])
        assert abs(metric("bowshot_volume_free_bytes", node=node, volume="data") - free.f_bavail * free.f_frsize) < 5e9
        assert metric("bowshot_volume_up", node=node) == 1
    assert metric("bowshot_memory_limit_bytes", node="coordinator") > 1e8
    assert metric("bowshot_queries", state="queued") == 0
    assert metric("bowshot_queries_total", state="finished") >= 4
    assert metric("process_resident_memory_bytes") > 1e7 and metric("process_open_fds") > 5
    before = metric("bowshot_connections")
    with running.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        cursor.fetchall()
        assert metric("bowshot_connections") == before + 1


def test_every_metric_is_documented_and_has_its_kind(running):
    text = running.http("/metrics")
    names = {line.split()[2]: line.split()[3] for line in text.splitlines() if line.startswith("# TYPE ")}
    assert all(f"# HELP {name} " in text for name in names), text
    assert all(name.endswith("_total") == (kind == "counter") for name, kind in names.items()), names
    page = (cluster.REPOSITORY / "docs" / "metrics.md").read_text()
    documented = set(re.findall(r"^\| `([a-z_]+)", page, re.M))
    assert set(names) <= documented, set(names) - documented


def test_a_lost_node_is_seen_in_metrics_and_log(running):
    files = running.metric("bowshot_files", state="available")
    held = running.rows("SELECT node_id FROM system.files WHERE table_name = 'counted'")[0][0]
    running.workers[held].kill()
    cluster.wait_until("the node is dead", 20, lambda: running.metric("bowshot_nodes", state="dead") == 1)
    assert running.metric("bowshot_nodes", state="live") == 1
    cluster.wait_until("its file is missing", 15, lambda: running.metric("bowshot_files", state="missing") >= 1)
    assert running.metric("bowshot_files", state="available") < files
    # A dead node's last words are no figures of now.
    assert running.metric("bowshot_memory_limit_bytes", node=held) == 0
    # The log looks once a second.
    told = [f'a node is suspect: it gets no new tasks node="{held}"', f'a node is lost: nothing was heard of it, and what it holds is missing node="{held}"']
    cluster.wait_until("the log says so", 5, lambda: all(text in running.server.log_text() for text in told))
    running.workers[held].start()
    running.wait_live(held)
    cluster.wait_until("its file is there again", 15, lambda: running.metric("bowshot_files", state="missing") == 0)
    left = next(node for node in running.workers if node != held)
    running.workers[left].end()
    cluster.wait_until("its end is told", 20, lambda: f'a node has ended node="{left}"' in running.server.log_text())
    assert f'a node is lost: nothing was heard of it, and what it holds is missing node="{left}"' not in running.server.log_text()
    assert "bowshot worker has ended" in running.workers[left].log_text()
