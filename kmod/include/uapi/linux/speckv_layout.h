/* SPDX-License-Identifier: MIT */
/*
 * speckv_layout.h - every size and offset of speckv.h, which includes this file. Written by
 * rtl/regs/layout.py after a deliberate change of the contract.
 */
#ifndef _UAPI_SPECKV_LAYOUT_H
#define _UAPI_SPECKV_LAYOUT_H

#ifdef __cplusplus
#define SPECKV_ASSERT static_assert
#else
#define SPECKV_ASSERT _Static_assert
#endif
#define SPECKV_SIZE(name, bytes) SPECKV_ASSERT(sizeof(struct speckv_##name) == (bytes), #name)
#define SPECKV_AT(name, member, offset, bytes) \
	SPECKV_ASSERT(__builtin_offsetof(struct speckv_##name, member) == (offset) && \
		sizeof(((struct speckv_##name *)0)->member) == (bytes), #name "." #member)

SPECKV_SIZE(sqe, 64);
SPECKV_AT(sqe, opcode, 0, 1);
SPECKV_AT(sqe, flags, 1, 1);
SPECKV_AT(sqe, command_id, 2, 2);
SPECKV_AT(sqe, pool, 4, 2);
SPECKV_AT(sqe, buffer, 6, 2);
SPECKV_AT(sqe, body, 8, 56);

SPECKV_SIZE(cqe, 16);
SPECKV_AT(cqe, result, 0, 8);
SPECKV_AT(cqe, sq_head, 8, 2);
SPECKV_AT(cqe, command_id, 10, 2);
SPECKV_AT(cqe, status, 12, 2);
SPECKV_AT(cqe, phase, 14, 2);

SPECKV_SIZE(doorbell, 64);
SPECKV_AT(doorbell, sq_tail, 0, 4);
SPECKV_AT(doorbell, cq_head, 4, 4);
SPECKV_AT(doorbell, reserved, 8, 56);

SPECKV_SIZE(doorbell_page, 4096);
SPECKV_AT(doorbell_page, slot, 0, 1024);
SPECKV_AT(doorbell_page, reserved0, 1024, 1024);
SPECKV_AT(doorbell_page, need_wake, 2048, 4);
SPECKV_AT(doorbell_page, reserved1, 2052, 2044);

SPECKV_SIZE(buffer_entry, 32);
SPECKV_AT(buffer_entry, address, 0, 8);
SPECKV_AT(buffer_entry, bytes, 8, 8);
SPECKV_AT(buffer_entry, flags, 16, 4);
SPECKV_AT(buffer_entry, reserved0, 20, 4);
SPECKV_AT(buffer_entry, reserved1, 24, 8);

SPECKV_SIZE(cmd_bare, 64);
SPECKV_AT(cmd_bare, opcode, 0, 1);
SPECKV_AT(cmd_bare, flags, 1, 1);
SPECKV_AT(cmd_bare, command_id, 2, 2);
SPECKV_AT(cmd_bare, pool, 4, 2);
SPECKV_AT(cmd_bare, buffer, 6, 2);
SPECKV_AT(cmd_bare, reserved, 8, 56);

SPECKV_SIZE(cmd_write, 64);
SPECKV_AT(cmd_write, opcode, 0, 1);
SPECKV_AT(cmd_write, flags, 1, 1);
SPECKV_AT(cmd_write, command_id, 2, 2);
SPECKV_AT(cmd_write, pool, 4, 2);
SPECKV_AT(cmd_write, buffer, 6, 2);
SPECKV_AT(cmd_write, address, 8, 8);
SPECKV_AT(cmd_write, buffer_offset, 16, 8);
SPECKV_AT(cmd_write, bytes, 24, 4);
SPECKV_AT(cmd_write, capacity, 28, 4);
SPECKV_AT(cmd_write, identity_offset, 32, 8);
SPECKV_AT(cmd_write, identity_buffer, 40, 2);
SPECKV_AT(cmd_write, codec, 42, 1);
SPECKV_AT(cmd_write, reserved0, 43, 1);
SPECKV_AT(cmd_write, reserved1, 44, 20);

SPECKV_SIZE(block_identity, 64);
SPECKV_AT(block_identity, key, 0, 32);
SPECKV_AT(block_identity, generation, 32, 8);
SPECKV_AT(block_identity, first_position, 40, 8);
SPECKV_AT(block_identity, tenant, 48, 4);
SPECKV_AT(block_identity, reserved, 52, 12);

SPECKV_SIZE(cmd_read, 64);
SPECKV_AT(cmd_read, opcode, 0, 1);
SPECKV_AT(cmd_read, flags, 1, 1);
SPECKV_AT(cmd_read, command_id, 2, 2);
SPECKV_AT(cmd_read, pool, 4, 2);
SPECKV_AT(cmd_read, buffer, 6, 2);
SPECKV_AT(cmd_read, address, 8, 8);
SPECKV_AT(cmd_read, buffer_offset, 16, 8);
SPECKV_AT(cmd_read, capacity, 24, 4);
SPECKV_AT(cmd_read, layer_first, 28, 2);
SPECKV_AT(cmd_read, layer_count, 30, 2);
SPECKV_AT(cmd_read, generation, 32, 8);
SPECKV_AT(cmd_read, key_prefix, 40, 16);
SPECKV_AT(cmd_read, deadline_us, 56, 4);
SPECKV_AT(cmd_read, reserved, 60, 4);

SPECKV_SIZE(cmd_copy, 64);
SPECKV_AT(cmd_copy, opcode, 0, 1);
SPECKV_AT(cmd_copy, flags, 1, 1);
SPECKV_AT(cmd_copy, command_id, 2, 2);
SPECKV_AT(cmd_copy, pool, 4, 2);
SPECKV_AT(cmd_copy, destination_pool, 6, 2);
SPECKV_AT(cmd_copy, address, 8, 8);
SPECKV_AT(cmd_copy, destination_address, 16, 8);
SPECKV_AT(cmd_copy, generation, 24, 8);
SPECKV_AT(cmd_copy, destination_generation, 32, 8);
SPECKV_AT(cmd_copy, capacity, 40, 4);
SPECKV_AT(cmd_copy, reserved, 44, 4);
SPECKV_AT(cmd_copy, key_prefix, 48, 16);

SPECKV_SIZE(cmd_range, 64);
SPECKV_AT(cmd_range, opcode, 0, 1);
SPECKV_AT(cmd_range, flags, 1, 1);
SPECKV_AT(cmd_range, command_id, 2, 2);
SPECKV_AT(cmd_range, pool, 4, 2);
SPECKV_AT(cmd_range, buffer, 6, 2);
SPECKV_AT(cmd_range, address, 8, 8);
SPECKV_AT(cmd_range, bytes, 16, 8);
SPECKV_AT(cmd_range, generation, 24, 8);
SPECKV_AT(cmd_range, reserved, 32, 32);

SPECKV_SIZE(cmd_touch, 64);
SPECKV_AT(cmd_touch, opcode, 0, 1);
SPECKV_AT(cmd_touch, flags, 1, 1);
SPECKV_AT(cmd_touch, command_id, 2, 2);
SPECKV_AT(cmd_touch, pool, 4, 2);
SPECKV_AT(cmd_touch, buffer, 6, 2);
SPECKV_AT(cmd_touch, address, 8, 8);
SPECKV_AT(cmd_touch, generation, 16, 8);
SPECKV_AT(cmd_touch, session, 24, 4);
SPECKV_AT(cmd_touch, feature_count, 28, 1);
SPECKV_AT(cmd_touch, reserved, 29, 3);
SPECKV_AT(cmd_touch, features, 32, 32);

SPECKV_SIZE(cmd_predict, 64);
SPECKV_AT(cmd_predict, opcode, 0, 1);
SPECKV_AT(cmd_predict, flags, 1, 1);
SPECKV_AT(cmd_predict, command_id, 2, 2);
SPECKV_AT(cmd_predict, pool, 4, 2);
SPECKV_AT(cmd_predict, buffer, 6, 2);
SPECKV_AT(cmd_predict, candidates_offset, 8, 8);
SPECKV_AT(cmd_predict, session, 16, 4);
SPECKV_AT(cmd_predict, candidate_count, 20, 1);
SPECKV_AT(cmd_predict, feature_count, 21, 1);
SPECKV_AT(cmd_predict, depth, 22, 1);
SPECKV_AT(cmd_predict, reserved0, 23, 1);
SPECKV_AT(cmd_predict, features, 24, 32);
SPECKV_AT(cmd_predict, budget_bytes, 56, 4);
SPECKV_AT(cmd_predict, reserved1, 60, 4);

SPECKV_SIZE(candidate, 32);
SPECKV_AT(candidate, tag, 0, 8);
SPECKV_AT(candidate, address, 8, 8);
SPECKV_AT(candidate, generation, 16, 8);
SPECKV_AT(candidate, bytes, 24, 4);
SPECKV_AT(candidate, score, 28, 4);

SPECKV_SIZE(cmd_data, 64);
SPECKV_AT(cmd_data, opcode, 0, 1);
SPECKV_AT(cmd_data, flags, 1, 1);
SPECKV_AT(cmd_data, command_id, 2, 2);
SPECKV_AT(cmd_data, pool, 4, 2);
SPECKV_AT(cmd_data, buffer, 6, 2);
SPECKV_AT(cmd_data, data_address, 8, 8);
SPECKV_AT(cmd_data, data_bytes, 16, 4);
SPECKV_AT(cmd_data, reserved, 20, 44);

SPECKV_SIZE(cmd_log, 64);
SPECKV_AT(cmd_log, opcode, 0, 1);
SPECKV_AT(cmd_log, flags, 1, 1);
SPECKV_AT(cmd_log, command_id, 2, 2);
SPECKV_AT(cmd_log, pool, 4, 2);
SPECKV_AT(cmd_log, buffer, 6, 2);
SPECKV_AT(cmd_log, data_address, 8, 8);
SPECKV_AT(cmd_log, data_bytes, 16, 4);
SPECKV_AT(cmd_log, log, 20, 2);
SPECKV_AT(cmd_log, reserved0, 22, 2);
SPECKV_AT(cmd_log, after, 24, 8);
SPECKV_AT(cmd_log, reserved1, 32, 32);

SPECKV_SIZE(cmd_pool, 64);
SPECKV_AT(cmd_pool, opcode, 0, 1);
SPECKV_AT(cmd_pool, flags, 1, 1);
SPECKV_AT(cmd_pool, command_id, 2, 2);
SPECKV_AT(cmd_pool, pool, 4, 2);
SPECKV_AT(cmd_pool, buffer, 6, 2);
SPECKV_AT(cmd_pool, capacity_bytes, 8, 8);
SPECKV_AT(cmd_pool, uuid, 16, 16);
SPECKV_AT(cmd_pool, action, 32, 4);
SPECKV_AT(cmd_pool, reserved, 36, 28);

SPECKV_SIZE(cmd_model, 64);
SPECKV_AT(cmd_model, opcode, 0, 1);
SPECKV_AT(cmd_model, flags, 1, 1);
SPECKV_AT(cmd_model, command_id, 2, 2);
SPECKV_AT(cmd_model, pool, 4, 2);
SPECKV_AT(cmd_model, buffer, 6, 2);
SPECKV_AT(cmd_model, data_address, 8, 8);
SPECKV_AT(cmd_model, data_bytes, 16, 4);
SPECKV_AT(cmd_model, offset, 20, 4);
SPECKV_AT(cmd_model, total_bytes, 24, 4);
SPECKV_AT(cmd_model, reserved, 28, 4);
SPECKV_AT(cmd_model, digest, 32, 32);

SPECKV_SIZE(cmd_firmware, 64);
SPECKV_AT(cmd_firmware, opcode, 0, 1);
SPECKV_AT(cmd_firmware, flags, 1, 1);
SPECKV_AT(cmd_firmware, command_id, 2, 2);
SPECKV_AT(cmd_firmware, slot, 4, 2);
SPECKV_AT(cmd_firmware, reserved, 6, 2);
SPECKV_AT(cmd_firmware, data_address, 8, 8);
SPECKV_AT(cmd_firmware, data_bytes, 16, 4);
SPECKV_AT(cmd_firmware, data_crc32c, 20, 4);
SPECKV_AT(cmd_firmware, offset, 24, 4);
SPECKV_AT(cmd_firmware, total_bytes, 28, 4);
SPECKV_AT(cmd_firmware, digest, 32, 32);

SPECKV_SIZE(cmd_value, 64);
SPECKV_AT(cmd_value, opcode, 0, 1);
SPECKV_AT(cmd_value, flags, 1, 1);
SPECKV_AT(cmd_value, command_id, 2, 2);
SPECKV_AT(cmd_value, pool, 4, 2);
SPECKV_AT(cmd_value, feature, 6, 2);
SPECKV_AT(cmd_value, value, 8, 8);
SPECKV_AT(cmd_value, reserved, 16, 48);

SPECKV_SIZE(cmd_grant, 64);
SPECKV_AT(cmd_grant, opcode, 0, 1);
SPECKV_AT(cmd_grant, flags, 1, 1);
SPECKV_AT(cmd_grant, command_id, 2, 2);
SPECKV_AT(cmd_grant, pool, 4, 2);
SPECKV_AT(cmd_grant, function, 6, 2);
SPECKV_AT(cmd_grant, queue, 8, 2);
SPECKV_AT(cmd_grant, reserved0, 10, 2);
SPECKV_AT(cmd_grant, rights, 12, 4);
SPECKV_AT(cmd_grant, uuid, 16, 16);
SPECKV_AT(cmd_grant, reserved1, 32, 32);

SPECKV_SIZE(shape, 16);
SPECKV_AT(shape, layers, 0, 2);
SPECKV_AT(shape, kv_heads, 2, 2);
SPECKV_AT(shape, head_dim, 4, 2);
SPECKV_AT(shape, tokens, 6, 2);
SPECKV_AT(shape, dtype, 8, 1);
SPECKV_AT(shape, reserved, 9, 7);

SPECKV_SIZE(identify, 4096);
SPECKV_AT(identify, version, 0, 2);
SPECKV_AT(identify, function, 2, 2);
SPECKV_AT(identify, bytes, 4, 4);
SPECKV_AT(identify, uuid, 8, 16);
SPECKV_AT(identify, model, 24, 32);
SPECKV_AT(identify, serial, 56, 32);
SPECKV_AT(identify, part, 88, 32);
SPECKV_AT(identify, map_version, 120, 4);
SPECKV_AT(identify, rtl_revision, 124, 4);
SPECKV_AT(identify, build_id, 128, 8);
SPECKV_AT(identify, caps, 136, 4);
SPECKV_AT(identify, codec_modes, 140, 4);
SPECKV_AT(identify, memory_bytes, 144, 8);
SPECKV_AT(identify, memory_free_bytes, 152, 8);
SPECKV_AT(identify, pools_max, 160, 2);
SPECKV_AT(identify, pools, 162, 2);
SPECKV_AT(identify, functions_max, 164, 2);
SPECKV_AT(identify, queue_pairs_max, 166, 2);
SPECKV_AT(identify, sessions, 168, 4);
SPECKV_AT(identify, transfer_bytes, 172, 4);
SPECKV_AT(identify, page_log2_min, 176, 1);
SPECKV_AT(identify, page_log2_max, 177, 1);
SPECKV_AT(identify, queue_log2_max, 178, 1);
SPECKV_AT(identify, key_slots, 179, 1);
SPECKV_AT(identify, buffers_max, 180, 2);
SPECKV_AT(identify, running_slot, 182, 1);
SPECKV_AT(identify, reserved0, 183, 1);
SPECKV_AT(identify, security_version, 184, 4);
SPECKV_AT(identify, commit_timeout_ms, 188, 4);
SPECKV_AT(identify, model_digest, 192, 32);
SPECKV_AT(identify, key_digests, 224, 128);
SPECKV_AT(identify, reserved1, 352, 3744);

SPECKV_SIZE(pool_description, 256);
SPECKV_AT(pool_description, name, 0, 64);
SPECKV_AT(pool_description, uuid, 64, 16);
SPECKV_AT(pool_description, capacity_bytes, 80, 8);
SPECKV_AT(pool_description, max_bytes, 88, 8);
SPECKV_AT(pool_description, quota_bytes, 96, 8);
SPECKV_AT(pool_description, guaranteed_bytes_per_second, 104, 8);
SPECKV_AT(pool_description, burst_bytes_per_second, 112, 8);
SPECKV_AT(pool_description, shape, 120, 16);
SPECKV_AT(pool_description, page_bytes, 136, 4);
SPECKV_AT(pool_description, codec, 140, 4);
SPECKV_AT(pool_description, eviction, 144, 4);
SPECKV_AT(pool_description, uid, 148, 4);
SPECKV_AT(pool_description, gid, 152, 4);
SPECKV_AT(pool_description, mode, 156, 4);
SPECKV_AT(pool_description, pool_flags, 160, 4);
SPECKV_AT(pool_description, pool, 164, 2);
SPECKV_AT(pool_description, state, 166, 2);
SPECKV_AT(pool_description, generation, 168, 8);
SPECKV_AT(pool_description, created_ns, 176, 8);
SPECKV_AT(pool_description, used_bytes, 184, 8);
SPECKV_AT(pool_description, stored_bytes, 192, 8);
SPECKV_AT(pool_description, raw_bytes, 200, 8);
SPECKV_AT(pool_description, blocks, 208, 8);
SPECKV_AT(pool_description, reserved, 216, 40);

SPECKV_SIZE(log_header, 32);
SPECKV_AT(log_header, log, 0, 2);
SPECKV_AT(log_header, version, 2, 2);
SPECKV_AT(log_header, entry_bytes, 4, 4);
SPECKV_AT(log_header, entries, 8, 4);
SPECKV_AT(log_header, lost, 12, 4);
SPECKV_AT(log_header, last, 16, 8);
SPECKV_AT(log_header, time_ns, 24, 8);

SPECKV_SIZE(log_health, 128);
SPECKV_AT(log_health, temperature_millicelsius, 0, 4);
SPECKV_AT(log_health, throttle_millicelsius, 4, 4);
SPECKV_AT(log_health, trip_millicelsius, 8, 4);
SPECKV_AT(log_health, state, 12, 4);
SPECKV_AT(log_health, uptime_ns, 16, 8);
SPECKV_AT(log_health, power_cycles, 24, 8);
SPECKV_AT(log_health, unsafe_power_cycles, 32, 8);
SPECKV_AT(log_health, corrected_errors, 40, 8);
SPECKV_AT(log_health, uncorrected_errors, 48, 8);
SPECKV_AT(log_health, throttled_ns, 56, 8);
SPECKV_AT(log_health, poisoned_pages, 64, 8);
SPECKV_AT(log_health, flash_erases, 72, 8);
SPECKV_AT(log_health, outstanding, 80, 4);
SPECKV_AT(log_health, reserved, 84, 44);

SPECKV_SIZE(log_error, 64);
SPECKV_AT(log_error, sequence, 0, 8);
SPECKV_AT(log_error, time_ns, 8, 8);
SPECKV_AT(log_error, function, 16, 2);
SPECKV_AT(log_error, queue, 18, 2);
SPECKV_AT(log_error, command_id, 20, 2);
SPECKV_AT(log_error, status, 22, 2);
SPECKV_AT(log_error, opcode, 24, 1);
SPECKV_AT(log_error, reserved0, 25, 1);
SPECKV_AT(log_error, pool, 26, 2);
SPECKV_AT(log_error, field, 28, 4);
SPECKV_AT(log_error, address, 32, 8);
SPECKV_AT(log_error, reserved1, 40, 24);

SPECKV_SIZE(log_event, 128);
SPECKV_AT(log_event, sequence, 0, 8);
SPECKV_AT(log_event, time_ns, 8, 8);
SPECKV_AT(log_event, kind, 16, 2);
SPECKV_AT(log_event, severity, 18, 2);
SPECKV_AT(log_event, function, 20, 2);
SPECKV_AT(log_event, pool, 22, 2);
SPECKV_AT(log_event, value, 24, 8);
SPECKV_AT(log_event, text, 32, 96);

SPECKV_SIZE(log_slot, 192);
SPECKV_AT(log_slot, slot, 0, 2);
SPECKV_AT(log_slot, state, 2, 2);
SPECKV_AT(log_slot, rtl_revision, 4, 4);
SPECKV_AT(log_slot, build_id, 8, 8);
SPECKV_AT(log_slot, bytes, 16, 8);
SPECKV_AT(log_slot, received_bytes, 24, 8);
SPECKV_AT(log_slot, committed_ns, 32, 8);
SPECKV_AT(log_slot, security_version, 40, 4);
SPECKV_AT(log_slot, status, 44, 2);
SPECKV_AT(log_slot, boots, 46, 2);
SPECKV_AT(log_slot, digest, 48, 32);
SPECKV_AT(log_slot, key_digest, 80, 32);
SPECKV_AT(log_slot, version, 112, 32);
SPECKV_AT(log_slot, reserved, 144, 48);

SPECKV_SIZE(log_test, 128);
SPECKV_AT(log_test, test, 0, 4);
SPECKV_AT(log_test, status, 4, 4);
SPECKV_AT(log_test, elapsed_ns, 8, 8);
SPECKV_AT(log_test, text, 16, 112);

SPECKV_SIZE(log_grant, 16);
SPECKV_AT(log_grant, function, 0, 2);
SPECKV_AT(log_grant, queue, 2, 2);
SPECKV_AT(log_grant, pool, 4, 2);
SPECKV_AT(log_grant, reserved, 6, 2);
SPECKV_AT(log_grant, rights, 8, 4);
SPECKV_AT(log_grant, granted, 12, 4);

SPECKV_SIZE(log_block, 72);
SPECKV_AT(log_block, address, 0, 8);
SPECKV_AT(log_block, generation, 8, 8);
SPECKV_AT(log_block, first_position, 16, 8);
SPECKV_AT(log_block, used_ns, 24, 8);
SPECKV_AT(log_block, bytes, 32, 4);
SPECKV_AT(log_block, uses, 36, 4);
SPECKV_AT(log_block, key, 40, 32);

SPECKV_SIZE(log_counters, 5392);
SPECKV_AT(log_counters, taken_ns, 0, 8);
SPECKV_AT(log_counters, since_ns, 8, 8);
SPECKV_AT(log_counters, counters, 16, 256);
SPECKV_AT(log_counters, histograms, 272, 5120);

SPECKV_SIZE(ioc_info, 128);
SPECKV_AT(ioc_info, size, 0, 4);
SPECKV_AT(ioc_info, flags, 4, 4);
SPECKV_AT(ioc_info, map_version, 8, 4);
SPECKV_AT(ioc_info, rtl_revision, 12, 4);
SPECKV_AT(ioc_info, caps, 16, 4);
SPECKV_AT(ioc_info, codec_modes, 20, 4);
SPECKV_AT(ioc_info, memory_bytes, 24, 8);
SPECKV_AT(ioc_info, uuid, 32, 16);
SPECKV_AT(ioc_info, sessions, 48, 4);
SPECKV_AT(ioc_info, transfer_bytes, 52, 4);
SPECKV_AT(ioc_info, queue_pairs, 56, 4);
SPECKV_AT(ioc_info, buffers, 60, 4);
SPECKV_AT(ioc_info, numa_node, 64, 4);
SPECKV_AT(ioc_info, queue_log2_max, 68, 4);
SPECKV_AT(ioc_info, doorbell_offset, 72, 8);
SPECKV_AT(ioc_info, memory_free_bytes, 80, 8);
SPECKV_AT(ioc_info, reserved, 88, 40);

SPECKV_SIZE(ioc_pool, 64);
SPECKV_AT(ioc_pool, size, 0, 4);
SPECKV_AT(ioc_pool, flags, 4, 4);
SPECKV_AT(ioc_pool, uuid, 8, 16);
SPECKV_AT(ioc_pool, pool, 24, 4);
SPECKV_AT(ioc_pool, page_bytes, 28, 4);
SPECKV_AT(ioc_pool, capacity_bytes, 32, 8);
SPECKV_AT(ioc_pool, generation, 40, 8);
SPECKV_AT(ioc_pool, layers, 48, 2);
SPECKV_AT(ioc_pool, kv_heads, 50, 2);
SPECKV_AT(ioc_pool, head_dim, 52, 2);
SPECKV_AT(ioc_pool, tokens, 54, 2);
SPECKV_AT(ioc_pool, dtype, 56, 4);
SPECKV_AT(ioc_pool, codec, 60, 4);

SPECKV_SIZE(ioc_queue, 64);
SPECKV_AT(ioc_queue, size, 0, 4);
SPECKV_AT(ioc_queue, flags, 4, 4);
SPECKV_AT(ioc_queue, sq_log2, 8, 4);
SPECKV_AT(ioc_queue, cq_log2, 12, 4);
SPECKV_AT(ioc_queue, buffers, 16, 4);
SPECKV_AT(ioc_queue, event_fd, 20, 4);
SPECKV_AT(ioc_queue, queue, 24, 4);
SPECKV_AT(ioc_queue, slot, 28, 4);
SPECKV_AT(ioc_queue, sq_offset, 32, 8);
SPECKV_AT(ioc_queue, cq_offset, 40, 8);
SPECKV_AT(ioc_queue, reserved, 48, 16);

SPECKV_SIZE(ioc_buffer, 40);
SPECKV_AT(ioc_buffer, size, 0, 4);
SPECKV_AT(ioc_buffer, flags, 4, 4);
SPECKV_AT(ioc_buffer, queue, 8, 4);
SPECKV_AT(ioc_buffer, index, 12, 4);
SPECKV_AT(ioc_buffer, dmabuf_fd, 16, 4);
SPECKV_AT(ioc_buffer, reserved, 20, 4);
SPECKV_AT(ioc_buffer, address, 24, 8);
SPECKV_AT(ioc_buffer, bytes, 32, 8);

SPECKV_SIZE(ioc_kick, 8);
SPECKV_AT(ioc_kick, size, 0, 4);
SPECKV_AT(ioc_kick, flags, 4, 4);

SPECKV_SIZE(ioc_events, 16);
SPECKV_AT(ioc_events, size, 0, 4);
SPECKV_AT(ioc_events, flags, 4, 4);
SPECKV_AT(ioc_events, event_fd, 8, 4);
SPECKV_AT(ioc_events, reserved, 12, 4);

SPECKV_SIZE(ioc_admin, 104);
SPECKV_AT(ioc_admin, size, 0, 4);
SPECKV_AT(ioc_admin, flags, 4, 4);
SPECKV_AT(ioc_admin, command, 8, 64);
SPECKV_AT(ioc_admin, data, 72, 8);
SPECKV_AT(ioc_admin, data_bytes, 80, 4);
SPECKV_AT(ioc_admin, timeout_ms, 84, 4);
SPECKV_AT(ioc_admin, result, 88, 8);
SPECKV_AT(ioc_admin, status, 96, 4);
SPECKV_AT(ioc_admin, reserved, 100, 4);

SPECKV_SIZE(driver_call, 8);
SPECKV_AT(driver_call, request, 0, 4);
SPECKV_AT(driver_call, error, 4, 4);

#undef SPECKV_SIZE
#undef SPECKV_AT
#undef SPECKV_ASSERT

#endif
