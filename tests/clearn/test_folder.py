"""The run folder: what is whole is found, what is damaged is named and left out, and rows survive a kill."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from clearn.errors import StateError, UserError
from clearn.folder import LEDGER, SCORES, STATUS, RunFolder
from clearn.state import checksum, encode, freeze, thaw

torch.set_num_threads(1)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path / "a" / "run")
    made.create()
    return made


def blob(value: float) -> bytes:
    return encode(freeze({"model/a": torch.full((5,), value)}))


def with_states(folder: RunFolder, n: int) -> RunFolder:
    for step in range(1, n + 1):
        folder.write_state(step, blob(step))
        folder.add_rows(SCORES, [{"step": step, "probe": f"task {i}"} for i in range(1, step + 1)])
        folder.add_rows(LEDGER, [{"kind": "figures", "step": step}])
    return folder


def names(folder: RunFolder) -> list[str]:
    return sorted(path.name for path in (folder.path / "state").iterdir())


def test_a_state_is_written_beside_its_checksum_and_read_back(folder: RunFolder) -> None:
    digest = folder.write_state(3, blob(3))
    assert names(folder) == ["0003.safetensors", "0003.safetensors.sha256"]
    assert (folder.path / "state/0003.safetensors.sha256").read_text() == checksum(blob(3)) + "\n" == digest + "\n"
    whole = folder.read_state(3)
    assert (whole.step, whole.sha256) == (3, digest)
    assert torch.equal(torch.as_tensor(thaw(whole.frozen)["model/a"]), torch.full((5,), 3.0))


def test_the_newest_whole_state_is_found_at_any_number_of_steps(folder: RunFolder) -> None:
    assert folder.newest() == (None, [])
    for step in (1, 2, 999, 1000, 9999, 10000, 12345):
        folder.write_state(step, blob(step))
        whole, wrong = folder.newest()
        assert whole is not None
        assert (whole.step, wrong) == (step, [])


def test_files_that_are_not_states_are_no_trouble(folder: RunFolder) -> None:
    with_states(folder, 2)
    strangers = ("0001x.safetensors", "1 copy.safetensors", "notes.txt")
    for name in (*strangers, "0002.safetensors.part", "0003.safetensors.sha256"):
        (folder.path / "state" / name).write_bytes(b"?")
    whole, _ = folder.newest()
    assert whole is not None
    assert whole.step == 2
    folder.drop_after(1)
    assert set(names(folder)) == {"0001.safetensors", "0001.safetensors.sha256", *strangers}


@pytest.mark.parametrize("at", [0, 9, 60, -1])
def test_a_flipped_byte_is_named_and_the_state_before_it_taken(folder: RunFolder, at: int) -> None:
    with_states(folder, 3)
    path = folder.state_path(3)
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    whole, wrong = folder.newest()
    assert whole is not None
    assert whole.step == 2
    assert len(wrong) == 1
    assert wrong[0].startswith(
        f"{path} is damaged: its SHA-256 is {checksum(bytes(content))[:12]}…, {checksum(blob(3))[:12]}… was"
    )


def test_every_damaged_state_is_named_newest_first(folder: RunFolder) -> None:
    with_states(folder, 4)
    folder.state_path(4).write_bytes(blob(4)[:-3])  # cut short
    (folder.path / "state/0003.safetensors.sha256").unlink()  # killed between the two writes
    folder.state_path(2).write_bytes(b"")
    whole, wrong = folder.newest()
    assert whole is not None
    assert whole.step == 1
    assert [str(folder.state_path(step)) in text for step, text in zip((4, 3, 2), wrong, strict=True)] == [True] * 3
    assert "is not whole: No such file or directory" in wrong[1]


def test_a_checksum_that_is_no_text_is_damage_too(folder: RunFolder) -> None:
    with_states(folder, 2)
    (folder.path / "state/0002.safetensors.sha256").write_bytes(b"\xff\xfe\x00")
    whole, wrong = folder.newest()
    assert whole is not None
    assert (whole.step, len(wrong)) == (1, 1)


def test_a_whole_file_of_another_program_is_refused(folder: RunFolder) -> None:
    folder.write_state(1, b"not ours, but its checksum is right")
    with pytest.raises(StateError, match="not a state that clearn wrote"):
        folder.read_state(1)
    assert folder.newest()[0] is None


def test_rows_come_back_in_order_and_a_row_cut_short_is_left_out(folder: RunFolder) -> None:
    assert folder.rows(SCORES) == []
    folder.add_rows(SCORES, [{"step": 1, "probe": "Ä"}, {"step": 2}])
    whole = (folder.path / SCORES).read_bytes()
    for end in range(len(whole) - 11, len(whole) + 1):
        (folder.path / SCORES).write_bytes(whole[:end])
        kept = [{"step": 1, "probe": "Ä"}] + ([{"step": 2}] if end >= len(whole) - 1 else [])
        assert folder.rows(SCORES) == kept


@pytest.mark.parametrize(
    "damage", [b"\xff\xfe", b"\x00", b"{", b'{"step": 1}{"step": 1}', b"[]", b"3", b'"text"', b'{"kind": "bytes"}']
)
def test_a_damaged_row_hides_itself_and_what_follows(folder: RunFolder, damage: bytes) -> None:
    (folder.path / SCORES).write_bytes(b'{"step":1}\n' + damage + b'\n{"step":3}\n')
    assert folder.rows(SCORES) == [{"step": 1}]
    folder.drop_after(5)
    assert (folder.path / SCORES).read_bytes() == b'{"step":1}\n'


def test_dropping_removes_states_rows_and_remains_after_a_step(folder: RunFolder) -> None:
    with_states(folder, 3)
    (folder.path / "state/0001.safetensors.part").write_bytes(b"half")
    with (folder.path / LEDGER).open("a") as file:
        file.write('{"kind": "fig')
    folder.drop_after(2)
    assert names(folder) == [f"000{i}.safetensors{end}" for i in (1, 2) for end in ("", ".sha256")]
    assert [row["step"] for row in folder.rows(SCORES)] == [1, 2, 2]
    assert (folder.path / LEDGER).read_text() == '{"kind":"figures","step":1}\n{"kind":"figures","step":2}\n'
    folder.drop_after(0)
    assert names(folder) == []
    assert folder.rows(SCORES) == folder.rows(LEDGER) == []


def test_rows_after_a_cut_row_can_be_appended_once_it_is_dropped(folder: RunFolder) -> None:
    (folder.path / SCORES).write_text('{"step":1}\n{"ste')
    folder.drop_after(1)
    folder.add_rows(SCORES, [{"step": 2}])
    assert folder.rows(SCORES) == [{"step": 1}, {"step": 2}]


def test_status_says_how_far_the_run_is(folder: RunFolder) -> None:
    folder.put_status("running", 2, 5)
    assert folder.get_json(STATUS) == {"state": "running", "step": 2, "steps": 5, "message": None}
    assert json.loads((folder.path / STATUS).read_text())["step"] == 2


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1", b"[1]", b"null"])
def test_a_damaged_small_file_is_as_if_it_were_not_there(folder: RunFolder, content: bytes) -> None:
    assert folder.get_json(STATUS) is None
    (folder.path / STATUS).write_bytes(content)
    assert folder.get_json(STATUS) is None


def test_a_file_in_the_folders_place_is_a_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    for path in (tmp_path / "taken", tmp_path / "taken" / "run"):
        with pytest.raises(
            UserError, match=r"cannot write the run folder .*taken.*; choose another place with out=FOLDER"
        ):
            RunFolder(path).create()
    assert (tmp_path / "taken").read_text() == "mine"


def test_making_a_folder_twice_changes_nothing(folder: RunFolder) -> None:
    with_states(folder, 1)
    folder.create()
    assert names(folder) == ["0001.safetensors", "0001.safetensors.sha256"]
    assert not (folder.path / ".writable").exists()
