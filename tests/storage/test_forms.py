"""What a stored thing says of itself."""

import pytest

import xbm_jax
from xbm_jax.errors import BankError
from xbm_jax.storage.forms import check_form, stamp


def test_a_thing_says_its_form_and_who_wrote_it():
    assert stamp(3) == {"format": 3, "version": xbm_jax.__version__}


@pytest.mark.parametrize("stored", [{}, {"format": 1}, {"format": 2, "version": "0.0"}])
def test_older_forms_and_things_without_one_are_read(stored):
    check_form("chip", stored, 2)


def test_a_newer_form_is_refused_with_who_wrote_it():
    version = xbm_jax.__version__
    with pytest.raises(BankError) as error:
        check_form("chip", {"format": 3, "version": "9.1"}, 2)
    wanted = f"chip.format = 3: 1 to 2, what this version, {version}, reads; version 9.1 wrote this"
    assert str(error.value) == wanted
    with pytest.raises(BankError, match=r"chip\.format = 2: 1, what .* an unnamed version wrote this"):
        check_form("chip", {"format": 2}, 1)


@pytest.mark.parametrize("form", [0, -1, "1", 1.0, True, None, [1]])
def test_what_is_no_number_of_a_form_is_refused(form):
    with pytest.raises(BankError, match=r"chip\.format"):
        check_form("chip", {"format": form}, 1)
