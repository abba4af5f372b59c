"""The map `vip_filter`: one bit for each address that the programs look up."""

from collections import Counter

from ebpf_lb.datapath.writer.hashes import filter_bit
from ebpf_lb.datapath.writer.kernel_map import MappedWords


class VipFilter:
    """Bits are set and never cleared: several addresses share one."""

    def __init__(self, words: MappedWords, stats: Counter[str]) -> None:
        self._words = words
        self._stats = stats

    def add(self, address: bytes) -> bool:
        """False if its bit was there: then the address may have an entry somewhere, else not."""
        index, bit = filter_bit(address, self._words.count)
        word = self._words.load(index)
        if word >> bit & 1:
            return False
        self._words.store(index, 0, word | 1 << bit)
        self._stats["vip_filter"] += 1
        return True
