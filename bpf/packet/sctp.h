/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * SCTP's checksum after a change of ports. Addresses are not in it, so most packets need nothing.
 *
 * It is a CRC32c over the whole packet, and a CRC is linear: the checksums of two messages of one
 * length differ by the CRC of their difference. Ours differ in the first 4 bytes only, so that CRC is
 * those 4 bytes pushed through as many zero bytes as the packet has: one matrix for each binary digit
 * of the length (crc32c_shifts), whatever the payload. (RFC 9260, appendix A.)
 */
#pragma once

#include "path/hook.h"

#define SCTP_CHECKSUM 8

INLINE __u32 crc32c_shift_by(__u32 value, const struct crc32c_shift *shift)
{
	__u32 result = 0;

#pragma unroll
	for (int bit = 0; bit < 32; bit++)
		result ^= shift->column[bit] & -(value >> bit & 1);
	return result;
}

/* rule: CO-27 */
INLINE int mend_sctp_checksum(struct __sk_buff *skb)
{
	struct packet packet;
	__u32 value = ctx_note(skb, NOTE_SCTP_CHANGE);
	__u32 where = ctx_note(skb, NOTE_SEND);

	if (read_packet(skb, &packet) != PARSE_OK)
		return drop(skb, REASON_REWRITE_FAILED);

	__u32 length =
		transport_bytes((void *)(long)skb->data, (void *)(long)skb->data_end, &packet);
	__u32 place = (packet.l4_offset & MAX_L4_OFFSET) + SCTP_CHECKSUM;
	__u32 checksum = 0;

	if (bpf_skb_load_bytes(skb, place, &checksum, sizeof(checksum)))
		return drop(skb, REASON_REWRITE_FAILED);
	/* zero: the sender's device was to fill it in, and will */
	if (checksum) {
#pragma unroll
		for (int digit = 0; digit < 16; digit++) {
			struct crc32c_shift *shift;

			if (!(length >> digit & 1))
				continue;
			shift = crc32c_shift_get(digit);
			if (!shift)
				return drop(skb, REASON_REWRITE_FAILED);
			value = crc32c_shift_by(value, shift);
		}
		checksum ^= value;
		if (bpf_skb_store_bytes(skb, place, &checksum, sizeof(checksum), 0))
			return drop(skb, REASON_REWRITE_FAILED);
	}
	return send_by(skb, where);
}
