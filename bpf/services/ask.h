/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * What would be decided on a new connection, for `ebpf-lb explain`: the question stands in a "packet" of
 * BPF_PROG_TEST_RUN behind its link header, and the verdict in its place afterwards. decide() changes
 * nothing, so neither does this (ebpf_lb/datapath/question.py).
 */
#pragma once

#include "services/decide.h"

INLINE int answer_question(struct __sk_buff *skb)
{
	struct question question;
	struct verdict verdict = {};
	struct packet packet = {};

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &question, sizeof(question)))
		return ACTION_PASS;
	packet.source = question.source;
	packet.destination = question.destination;
	packet.source_port = question.source_port;
	packet.destination_port = question.destination_port;
	packet.protocol = question.protocol;
	verdict.action = decide(&packet, question.client, TICK(), CHOOSE_LATER, 0, &verdict);
	BARRIER();
	if (verdict.action == ACTION_CHOOSE) {
		__u32 chosen = choose_backend(&packet, &verdict, 0);

		verdict.action =
			decide(&packet, question.client, TICK(), CHOOSE_LATER, chosen, &verdict);
	}
	bpf_skb_store_bytes(skb, ETH_HLEN, &verdict, sizeof(verdict), 0);
	return verdict.action;
}
