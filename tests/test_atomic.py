"""Files are replaced as a whole or not at all, and nothing is left beside them."""

import pytest

from jaxmodels.atomic import replacing, write_text


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "config.json"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")  # cannot be encoded
    with pytest.raises(KeyError), replacing(path) as file:
        file.write(b"half of the new one")
        raise KeyError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_text_is_utf8_in_a_folder_that_is_made(tmp_path):
    write_text(tmp_path / "new" / "names.json", '["Žižek"]')
    write_text(tmp_path / "new" / "names.json", '["Žižek", "Gödel"]')
    assert (tmp_path / "new" / "names.json").read_bytes().decode() == '["Žižek", "Gödel"]'
