"""A Service port's name in the map, and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpf_lb.datapath.writer import format_name, parse_name
from ebpf_lb.model.values import Protocol
from ebpf_lb.plan.forwarding import (
    ServicePortName,
)

names = st.from_regex(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True)


@given(
    st.builds(
        ServicePortName, names, names, st.one_of(st.just(""), names), st.sampled_from(Protocol)
    )
)
def test_names_come_back(name: ServicePortName) -> None:
    assert parse_name(format_name(name)) == name


@pytest.mark.parametrize("text", ["", "a/b", "a/b:c", "a/b:c/ICMP", "a/b/c/TCP"])
def test_other_texts_are_no_names(text: str) -> None:
    with pytest.raises(ValueError, match="is not namespace/name"):
        parse_name(text)
