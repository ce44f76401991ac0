"""A conversion that is killed or runs out of disk goes on later; a target is whole or absent."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conversions import command, to_hugging_face, to_megatron, verified
from random_models import change, random_folder

from engine.errors import RunError
from tools.convert import conversion
from tools.convert.cuts import Cuts
from tools.convert.megatron_target import MegatronTarget
from tools.convert.opening import open_source


def finished_files(target: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of writing of each file that has a record."""
    root = target.with_name(target.name + ".partial")
    names = [file.name.removesuffix(".json") for file in (root / "records").glob("*.json")]
    stats = {name: (root / "target" / name).stat() for name in names}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}


def interrupt(tmp_path: Path, files: int, number: signal.Signals) -> tuple[tuple, int, str]:
    """Start a conversion of many files, and send it a signal when exactly so many are finished.

    Returns its arguments, exit status and errors.
    """
    source = random_folder(tmp_path / "source", "qwen2, tied", num_hidden_layers=48)
    target = tmp_path / "target"
    arguments = ("hf-to-megatron", "--from", source, "--to", target, "--file-size", "0.00003")
    slow = (Path(__file__).with_name("standing_still.py"), files)
    process = command(*arguments, "--workers", "1", program=slow)
    try:
        while process.poll() is None and len(finished_files(target)) < files:
            time.sleep(0.002)
    finally:
        process.send_signal(number)
        _, errors = process.communicate(timeout=240)
    assert len(finished_files(target)) == files and not target.exists()
    return arguments, process.returncode, errors


@pytest.mark.slow
def test_a_killed_conversion_goes_on_and_keeps_what_was_finished(tmp_path):
    arguments, status, _ = interrupt(tmp_path, 5, signal.SIGKILL)
    assert status == -signal.SIGKILL
    source, target = tmp_path / "source", tmp_path / "target"
    before = finished_files(target)
    again = command(*arguments)
    output, errors = again.communicate(timeout=240)
    assert again.returncode == 0, errors
    kept = {n: ((target / n).stat().st_ino, (target / n).stat().st_mtime_ns) for n in before}
    assert kept == before
    assert len(list(target.glob("*.distcp"))) > len(before)
    assert f"{target}: " in output and "each written once" in output
    assert verified(source, target).tensors > 0
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["source", "target"]


class Interrupted(Exception):
    pass


@pytest.fixture
def interrupted(mixture, tmp_path, monkeypatch) -> Path:
    """A target whose conversion ended in the middle of its fourth file."""
    convert, begun = conversion.Conversion._convert, []

    def end(self, leftovers, planned):
        begun.append(planned)
        if len(begun) == 4:
            (leftovers.target / planned.name).write_bytes(b"half")
            raise Interrupted
        return convert(self, leftovers, planned)

    with monkeypatch.context() as patch:
        patch.setattr(conversion.Conversion, "_convert", end)
        with pytest.raises(Interrupted):
            to_megatron(mixture, tmp_path / "target", 2, 2, 2, workers=1)
    assert not (tmp_path / "target").exists()
    assert len(finished_files(tmp_path / "target")) == 3
    return tmp_path / "target"


def test_finished_files_are_kept_and_the_others_written(mixture, interrupted):
    before = finished_files(interrupted)
    to_megatron(mixture, interrupted, 2, 2, 2)
    for name, (inode, _) in before.items():
        assert (interrupted / name).stat().st_ino == inode
    verified(mixture, interrupted)


@pytest.mark.parametrize("damage", ["flip", "cut", "delete"])
def test_a_finished_file_that_was_damaged_since_is_written_again(mixture, interrupted, damage):
    name = min(finished_files(interrupted))
    file = interrupted.with_name("target.partial") / "target" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 4
    if damage == "delete":
        file.unlink()
    else:
        file.write_bytes(content if damage == "flip" else content[:-2000])
    to_megatron(mixture, interrupted, 2, 2, 2)
    verified(mixture, interrupted)


def test_leftovers_of_another_conversion_are_not_gone_on_with(mixture, interrupted, folders):
    with pytest.raises(RunError, match=r"left from another conversion \(its options differs\)"):
        to_megatron(mixture, interrupted, 2, 1, 2)
    with pytest.raises(RunError, match=r"left from another conversion \(its source differs\)"):
        to_megatron(folders["deepseek_v3 with prediction head"], interrupted, 2, 2, 2)


def test_what_was_refused_before_it_began_does_not_stand_in_the_way(mixture, small_disk):
    fill(small_disk, 300_000)
    with pytest.raises(RunError, match="too small"):
        to_megatron(mixture, small_disk / "target")
    there = to_megatron(mixture, small_disk.parent / "there")
    (small_disk / "filler").unlink()
    verified(there, to_hugging_face(there, small_disk / "target"))


def test_the_first_error_is_told_however_late_it_is_delivered(mixture, tmp_path):
    source = shutil.copytree(mixture, tmp_path / "source")
    bad = "model.layers.1.mlp.experts.3.gate_proj.weight"
    change(source, bad, lambda tensor: tensor * float("nan"))
    opened = open_source(source)
    target = MegatronTarget(opened, Cuts(), 20_000)
    converting = conversion.Conversion(opened, target, tmp_path / "target", workers=3)
    stop = converting._stop = threading.Event()
    set_now = stop.set
    stop.set = lambda: (set_now(), time.sleep(0.3))  # the thread stands still right there
    with pytest.raises(RunError, match=rf"{bad} has .* NaN"):
        converting.run()


def test_a_source_that_changed_since_is_not_gone_on_with(tmp_path, monkeypatch):
    source, target = random_folder(tmp_path / "source", "qwen2, tied"), tmp_path / "target"
    with monkeypatch.context() as patch:
        patch.setattr(conversion.Conversion, "_finish", lambda *_: (_ for _ in ()).throw(OSError()))
        with pytest.raises(OSError):
            to_megatron(source, target)
    change(source, "model.norm.weight", lambda tensor: tensor + 1)
    with pytest.raises(RunError, match=r"its source differs"):
        to_megatron(source, target)


def test_two_conversions_into_one_place_do_not_mix(mixture, interrupted):
    import fcntl

    with (interrupted.with_name("target.partial") / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="another process is converting"):
            to_megatron(mixture, interrupted, 2, 2, 2)


def test_a_target_that_exists_is_refused_untouched(mixture, tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("target", "link"):
        with pytest.raises(RunError, match="exists: a conversion never writes over anything"):
            to_megatron(mixture, tmp_path / name)
    assert {entry.name for entry in tmp_path.iterdir()} == {"target", "link"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 2 MB and a bit."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2100k", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"mounting a small disk is not permitted: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, free: int) -> Path:
    filler, stat = disk / "filler", os.statvfs(disk)
    filler.write_bytes(bytes(max(0, stat.f_bavail * stat.f_frsize - free)))
    return filler


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(mixture, small_disk):
    fill(small_disk, 300_000)
    with pytest.raises(RunError, match=r"too small: [\d,]+ bytes are needed and [\d,]+ are free"):
        to_megatron(mixture, small_disk / "target")
    assert not list((small_disk / "target.partial" / "target").iterdir())
    assert not (small_disk / "target").exists()


@pytest.mark.parametrize("convert", [to_megatron, to_hugging_face])
def test_wherever_the_disk_runs_full_the_conversion_goes_on_when_there_is_room(
    mixture, small_disk, tmp_path, monkeypatch, convert
):
    source = mixture if convert is to_megatron else to_megatron(mixture, tmp_path / "there")
    monkeypatch.setattr(conversion.Conversion, "_check_room", lambda *_: None)  # others write, too
    failed = 0
    for room in (40_000, 150_000, 300_000, 420_000, 480_000, 510_000, 540_000):
        filler = fill(small_disk, room)
        try:
            convert(source, small_disk / "target")
        except RunError as error:
            assert re.search("No space left on device|the disk is full", str(error)), error
            assert not (small_disk / "target").exists()
            failed += 1
        filler.unlink()
        if (small_disk / "target").exists():
            break
    assert failed >= 3
    if not (small_disk / "target").exists():
        convert(source, small_disk / "target")
    verified(source, small_disk / "target")


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_finished_and_says_so(tmp_path):
    arguments, status, errors = interrupt(tmp_path, 3, signal.SIGINT)
    assert status == 130
    last = errors.strip().splitlines()[-1]
    assert last == "interrupted; the same command goes on where this one stopped"
    target = tmp_path / "target"
    before = finished_files(target)
    again = command(*arguments)
    assert again.wait(timeout=240) == 0
    assert all((target / name).stat().st_ino == inode for name, (inode, _) in before.items())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hf-to-megatron", "megatron-to-hf"])
def test_a_limit_on_file_size_is_told_in_one_sentence(mixture, tmp_path, kind):
    source = mixture
    if kind == "megatron-to-hf":
        source = to_megatron(mixture, tmp_path / "there")
    limit = 200_000
    limited = command(
        *(kind, "--from", source, "--to", tmp_path / "target"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    _, errors = limited.communicate(timeout=240)
    assert limited.returncode == 1
    assert errors.startswith("error: cannot write ") and "File too large" in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "target").exists()


@pytest.mark.slow
def test_the_command_line_converts_verifies_inspects_and_refuses(mixture, tmp_path):
    def done(*arguments: object) -> tuple[int, str, str]:
        process = command(*arguments)
        output, errors = process.communicate(timeout=240)
        return process.returncode, output, errors

    there = tmp_path / "there"
    assert done("hf-to-megatron", "--from", mixture, "--to", there, "--tp", 2)[0] == 0
    code, output, errors = done("verify", "--from", mixture, "--to", there, "--logits")
    assert code == 0, errors
    assert "tensors equal" in output and "logits of 41 tokens differ by" in output
    code, output, _ = done("inspect", there)
    assert code == 0 and "qwen3_moe, 3 layers, 7 experts" in output
    assert done("megatron-to-hf", "--from", mixture, "--to", tmp_path / "x")[2] == (
        f"error: --from: expected a megatron checkpoint, found a Hugging Face folder at {mixture}\n"
    )
    assert done("hf-to-megatron", "--from", mixture, "--to", there)[0] == 1
    record = json.loads((there / "conversion.json").read_text())
    assert record["options"] == {"format": "megatron", "tp": 2, "pp": 1, "ep": 1}
