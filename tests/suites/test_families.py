import pytest

from suites.errors import SuiteError
from suites.families import Family, family, family_names
from tests.suites.tasks import task


def test_ours_are_found_and_keep_the_contract():
    assert {"metaworld", "dm_control", "toy"} <= set(family_names())
    for name in ("metaworld", "dm_control", "toy"):
        found = family(name)
        assert isinstance(found, Family)
        assert found.name == name
        for names in found.sets().values():
            assert set(names) <= set(found.tasks())


def test_an_unknown_family_names_the_nearest():
    with pytest.raises(SuiteError, match="unknown family 'meta-world'; nearest: 'metaworld'"):
        family("meta-world")


def test_a_family_of_another_package_is_found(plugin):
    plugin("abacus", "abacus = abacus:Abacus", "from suites.toy import Toy\nclass Abacus(Toy):\n    name = 'abacus'\n")
    assert family("abacus").spaces(task("toy", "toy-reach")) == ((2,), 1)


def test_a_broken_family_is_named_with_its_reason_and_the_others_work(plugin):
    plugin("broken", "broken = broken:Broken", "import a_module_that_is_missing\n")
    with pytest.raises(SuiteError, match=r"'broken' from package broken .*No module named 'a_module_that_is_missing'"):
        family("broken")
    assert family("toy").name == "toy"


def test_a_family_that_lacks_the_contract_is_refused(plugin):
    plugin("partial", "partial = partial:Partial", "class Partial:\n    name = 'partial'\n")
    with pytest.raises(SuiteError, match="lacks part of the Family protocol"):
        family("partial")


def test_two_packages_giving_one_name_is_an_error(plugin):
    plugin("copycat", "toy = copycat:Toy", "from suites.toy import Toy\n")
    with pytest.raises(SuiteError, match=r"'toy' is given twice, by package .* and package .*uninstall"):
        family("toy")
