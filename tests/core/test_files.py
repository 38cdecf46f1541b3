"""Folders that are whole or absent, with folders in them."""

from radiata_core.files import atomic_folder


def test_folders_inside_stay_open_and_their_files_readable(tmp_path):
    """Files of writers that make theirs for the owner alone, at any depth."""
    with atomic_folder(tmp_path / "a") as part:
        (part / "inner").mkdir(mode=0o755)
        (part / "inner" / "x").write_text("whole")
        (part / "inner" / "x").chmod(0o600)
    assert (tmp_path / "a" / "inner").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "a" / "inner" / "x").stat().st_mode & 0o777 == 0o644
