"""`bowshot doctor`: what a machine brings to a worker, in words."""

import os
import re
import subprocess

import cluster


def doctor(**settings):
    environment = {**os.environ, **settings}
    return subprocess.run([cluster.BINARY, "doctor"], env=environment, capture_output=True, text=True, check=True).stdout


def test_it_names_cores_memory_and_every_adapter():
    said = doctor()
    assert re.search(rf"^processor +{os.cpu_count()} cores?, (AVX-512|AVX2|portable)$", said, re.M), said
    assert re.search(r"^reads +[\d.]+ GB/s on one core, [\d.]+ GB/s on all$", said, re.M), said
    # ./check installs a software adapter.
    assert re.search(r"^  \S.*\(software, Vulkan\)$", said, re.M), said
    assert re.search(r"^    limits   .* a binding, .* of workgroup memory$", said, re.M), said


def test_it_says_why_a_card_is_not_used_and_what_settings_change():
    assert "device       none: the setting worker.kernel_device is off" in doctor(BOWSHOT__WORKER__KERNEL_DEVICE="off")
    assert "where a query asks for it" in doctor(BOWSHOT__WORKER__KERNEL_DEVICE="software")
    assert "5 GB for the column cache" in doctor(BOWSHOT__WORKER__CACHE_BYTES="5000000000")
