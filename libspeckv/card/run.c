// SPDX-License-Identifier: MIT
/*
 * Execution of commands: fetch, start, wait, complete. An entry is copied once, and fetched only if
 * its completion has room, so that a peer that does not consume completions stops its own queue and
 * nothing else.
 */
#include "card/internal.h"

#define FETCH_TURN 16 /* entries per queue pair and turn */
#define SLICE_NS 5000u /* per function and turn */
#define RUN_NS 10000u /* per run; the sockets are polled in between */
#define RETRY_NS 1000000u /* interval at which an idle card checks for room for recalls */

/*
 * Is the command `id` waiting for host memory: for its own reads, or for another command's to end?
 */
static bool parked(const struct card_function *function, const struct card_queue *queue,
	uint16_t id, uint32_t asked)
{
	if (!asked || !function->transfer)
		return false;
	return function->transfer != card_transfer(queue, id) || asked == function->answers;
}

void speckv_card_dma_answered(struct speckv_card *card, unsigned int index)
{
	struct card_function *function = index < card->functions_max ? card->functions[index]
								     : NULL;

	if (function && !++function->answers)
		function->answers = 1;
}

void speckv_card_dma_failed(struct speckv_card *card, unsigned int index)
{
	struct card_function *function = index < card->functions_max ? card->functions[index]
								     : NULL;

	if (!function)
		return;
	if (function->admin && function->ready)
		card_queue_fail(function, &function->admin_queue, SPECKV_STATUS_DMA_ERROR);
	for (unsigned int q = 0; q < function->pairs; q++)
		if (function->pair[q].state == QUEUE_ENABLED)
			card_queue_fail(function, &function->pair[q], SPECKV_STATUS_DMA_ERROR);
}

void speckv_card_hold(struct speckv_card *card, unsigned int index, bool held)
{
	if (index < card->functions_max && card->functions[index])
		card->functions[index]->held = held;
}

static bool id_in_use(const struct card_queue *queue, uint16_t id)
{
	for (unsigned int i = 0; i < queue->waits; i++)
		if (queue->waiting[i].entry.sqe.command_id == id)
			return true;
	return false;
}

/* Must a fetched command keep waiting, with `earlier` others before it in its queue pair? Cheap. */
static bool must_wait(const struct card_context *context, unsigned int earlier, uint64_t now)
{
	const struct card_command *command = context->command;

	if ((command->waits_for_all && earlier) ||
		parked(context->function, context->queue, command->entry.sqe.command_id,
			command->asked))
		return true;
	return command->ready_ns > now && (!command->event || *command->event == command->seen);
}

/* Run it. CARD_WAIT: it stays in flight. */
static uint16_t start_command(struct card_context *context)
{
	context->command->waits_for_all = false;
	context->command->asked = 0;
	context->command->event = NULL;
	return card_queue_is_admin(context->queue) ? card_admin(context) : card_io(context);
}

/* Injected faults delay a command before it has any effect. */
static void delay_command(struct speckv_card *card, const struct card_queue *queue,
	struct card_command *command)
{
	if (card_queue_is_admin(queue))
		return;
	if (card->fault.stuck) {
		card->fault.stuck--;
		command->ready_ns = UINT64_MAX;
	} else if (card->fault.slow &&
		(!card->fault.slow_pool || card->fault.slow_pool == command->entry.sqe.pool)) {
		card->fault.slow--;
		command->ready_ns = command->start_ns + card->fault.slow_ns;
	}
}

/* Copy one entry and start it; updates `now`. False: the queue pair cannot continue now. */
static bool fetch_command(struct card_function *function, struct card_queue *queue, uint64_t *now)
{
	struct speckv_card *card = function->card;
	struct card_command *command = &queue->waiting[queue->waits];
	struct card_context context = { .card = card,
		.function = function,
		.queue = queue,
		.command = command,
		.entry = &command->entry };
	uint32_t tail = card_queue_tail(function, queue);
	uint16_t status;
	int rc;

	if (tail >= queue->sq_entries) {
		card_queue_fail(function, queue, SPECKV_STATUS_INVALID);
		return false;
	}
	if (parked(function, queue, SPECKV_EVENT_COMMAND_ID, queue->asked))
		return false;
	if (tail == queue->sq_head || queue->waits == CARD_IN_FLIGHT - 1 ||
		card_queue_room(function, queue) <= queue->waits)
		return false;
	if (queue->waits && queue->waiting[queue->waits - 1].waits_for_all)
		return false;
	if (queue->state != QUEUE_ENABLED)
		return false;
	rc = card_dma_read(function, queue, SPECKV_EVENT_COMMAND_ID,
		queue->sq_base + (uint64_t)queue->sq_head * SPECKV_SQE_BYTES, command->entry.bytes,
		SPECKV_SQE_BYTES);
	if (rc == -EAGAIN) {
		queue->asked = function->answers;
		return false;
	}
	if (rc) {
		card_queue_fail(function, queue, SPECKV_STATUS_DMA_ERROR);
		return false;
	}
	card_dma_end(function, queue, SPECKV_EVENT_COMMAND_ID, false);
	queue->asked = 0;
	memset((uint8_t *)command + sizeof(command->entry), 0,
		sizeof(*command) - sizeof(command->entry));
	command->field = CARD_NO_FIELD;
	command->start_ns = *now = card_now(card);
	queue->sq_head = (queue->sq_head + 1) & (queue->sq_entries - 1);
	if (command->entry.sqe.command_id == SPECKV_EVENT_COMMAND_ID) {
		card_command_end(&context, CARD_INVALID(&context, sqe.command_id));
		return true;
	}
	if (id_in_use(queue, command->entry.sqe.command_id)) {
		card_command_end(&context, SPECKV_STATUS_COMMAND_ID_IN_USE);
		return true;
	}
	/* FLUSH waits for all commands before it. */
	command->waits_for_all = command->entry.sqe.flags & SPECKV_CMD_FENCE ||
		(!card_queue_is_admin(queue) && command->entry.sqe.opcode == SPECKV_IO_FLUSH);
	delay_command(card, queue, command);
	/*
	 * Count it as in flight while it runs: a notice that it causes must not use its
	 * completion's entry.
	 */
	queue->waits++;
	status = must_wait(&context, queue->waits - 1, *now) ? CARD_WAIT : start_command(&context);
	if (queue->state != QUEUE_ENABLED)
		return false;
	if (status == CARD_WAIT)
		return true;
	queue->waits--;
	card_command_end(&context, status);
	return true;
}

/* Run commands in flight until `end`; the next turn resumes at the first one not run. */
static unsigned int run_waiting(struct card_function *function, struct card_queue *queue,
	uint64_t end, uint64_t *now)
{
	unsigned int done = 0, i = queue->next_wait < queue->waits ? queue->next_wait : 0;

	queue->next_wait = 0;
	while (i < queue->waits && queue->state == QUEUE_ENABLED) {
		struct card_context context = { .card = function->card,
			.function = function,
			.queue = queue,
			.command = &queue->waiting[i],
			.entry = &queue->waiting[i].entry };
		unsigned int before = queue->waits;
		uint16_t status;

		if (must_wait(&context, i, *now)) {
			i++;
			continue;
		}
		status = start_command(&context);
		if (queue->state != QUEUE_ENABLED || queue->waits != before) {
			/* it ended others of this queue pair: indices have moved */
			*now = card_now(function->card);
			break;
		}
		if (status == CARD_WAIT) {
			i++;
		} else {
			card_command_end(&context, status);
			if (i < queue->waits)
				card_queue_remove(queue, i);
			done++;
		}
		*now = card_now(function->card);
		if (*now > end) {
			queue->next_wait = i;
			break;
		}
	}
	return done;
}

static void run_notices(struct card_function *function, struct card_queue *queue)
{
	for (unsigned int pool = 1; queue->revoked && pool <= SPECKV_CARD_POOLS; pool++) {
		if (!(queue->revoked >> (pool - 1) & 1))
			continue;
		if (!card_notice(function, queue, SPECKV_NOTICE_REVOKED, pool))
			return;
		queue->revoked &= ~(UINT64_C(1) << (pool - 1));
	}
	if (queue->events && card_notice(function, queue, SPECKV_NOTICE_EVENTS, queue->events))
		queue->events = 0;
}

static bool coalesced(const struct speckv_card *card, const struct card_queue *queue)
{
	uint64_t rule = card_feature(card, SPECKV_FEATURE_INTERRUPT_COALESCING);

	return queue->unsignalled &&
		card_now(card) >= queue->first_unsignalled_ns + (rule >> 16 & 0xffff) * 1000;
}

/* One turn of a queue pair, until about `end`; fetches at least one entry. Advances `now`. */
static unsigned int run_queue(struct card_function *function, struct card_queue *queue,
	unsigned int most, uint64_t end, uint64_t *now)
{
	struct speckv_card *card = function->card;
	unsigned int done = 0;

	if (queue->state != QUEUE_ENABLED)
		return 0;
	if (queue->revoked || queue->events)
		run_notices(function, queue);
	if (queue->untold) {
		bool has_room = card_queue_room(function, queue) > queue->waits;

		if (has_room) {
			card_recall_again(function, queue);
			*now = card_now(card);
		}
		queue->untold_ns = has_room ? *now : *now + RETRY_NS;
	}
	if (queue->waits)
		done += run_waiting(function, queue, end, now);
	for (unsigned int n = 0;
		n < most && n < FETCH_TURN && queue->state == QUEUE_ENABLED && !card->reboot_wanted;
		n++) {
		if ((n && *now > end) || !fetch_command(function, queue, now))
			break;
		done++;
	}
	if (done)
		*now = card_now(card);
	if (queue->unsignalled && coalesced(card, queue))
		card_queue_signal(function, queue);
	return done;
}

/* One turn of a function: its queue pairs round-robin, from where the last turn ended. */
static unsigned int run_function(struct card_function *function, unsigned int commands,
	uint64_t *now)
{
	struct speckv_card *card = function->card;
	unsigned int done = 0, pair = function->next_pair;
	uint64_t start = *now, end = start + SLICE_NS;

	if (function->admin)
		done = run_queue(function, &function->admin_queue, commands, end, now);
	for (unsigned int q = 0;
		q < function->pairs && done < commands && function->ready && !card->fatal; q++) {
		if (pair >= function->pairs)
			pair = 0;
		done += run_queue(function, &function->pair[pair++], commands - done, end, now);
		if (*now > end)
			break;
	}
	function->next_pair = (uint16_t)pair;
	card->places[function->index].spent_ns += *now - start;
	return done;
}

unsigned int speckv_card_run(struct speckv_card *card, unsigned int commands)
{
	uint64_t start = card_now(card), now = start;
	unsigned int done = 0;

	card_shares_halve(card, now);
	card_shares_order(card);
	for (unsigned int i = 0; i < card->order_count && done < commands && now - start < RUN_NS;
		i++) {
		struct card_function *function = card->functions[card->order[i]];

		if (function->ready && !function->fatal && !function->held && !card->shut_down &&
			(!card->fatal || function->admin))
			done += run_function(function, commands - done, &now);
	}
	if (card->reboot_wanted) {
		card->reboot_wanted = false;
		card->rebooted = true;
		card_boot(card);
	}
	if (memory_gives_up(card))
		memory_give_up(card);
	return done;
}

unsigned int speckv_card_in_flight(const struct speckv_card *card, unsigned int index)
{
	const struct card_function *function = index < card->functions_max ? card->functions[index]
									   : NULL;
	unsigned int all = 0;

	for (unsigned int q = 0; function && q < function->pairs; q++)
		all += function->pair[q].waits;
	return all;
}

bool speckv_card_in_use(const struct speckv_card *card, unsigned int index)
{
	const struct card_function *function = index < card->functions_max ? card->functions[index]
									   : NULL;

	if (!function)
		return false;
	if (function->admin && function->ready)
		return true;
	for (unsigned int q = 0; q < function->pairs; q++)
		if (function->pair[q].state == QUEUE_ENABLED)
			return true;
	return false;
}

/* Earliest time at which a queue pair needs service without a doorbell write. */
static uint64_t next_of(const struct speckv_card *card, const struct card_function *function,
	const struct card_queue *queue)
{
	uint64_t rule = card_feature(card, SPECKV_FEATURE_INTERRUPT_COALESCING), next = UINT64_MAX;

	if (queue->state != QUEUE_ENABLED)
		return next;
	for (unsigned int i = 0; i < queue->waits; i++) {
		const struct card_command *command = &queue->waiting[i];
		uint64_t when =
			command->event && *command->event != command->seen ? 0 : command->ready_ns;

		if (!command->waits_for_all &&
			!parked(function, queue, command->entry.sqe.command_id, command->asked) &&
			when < next)
			next = when;
	}
	if (queue->untold && queue->untold_ns < next)
		next = queue->untold_ns;
	if (queue->unsignalled && queue->first_unsignalled_ns + (rule >> 16 & 0xffff) * 1000 < next)
		next = queue->first_unsignalled_ns + (rule >> 16 & 0xffff) * 1000;
	return next;
}

uint64_t speckv_card_next_ns(const struct speckv_card *card)
{
	uint64_t next = UINT64_MAX, other;

	if (memory_gives_up(card))
		return 0;
	for (unsigned int i = 0; i < card->order_count; i++) {
		const struct card_function *function = card->functions[card->order[i]];

		if (function->held)
			continue;
		for (unsigned int q = card->fatal ? function->pairs : 0; q <= function->pairs;
			q++) {
			if (q == function->pairs && !function->admin)
				break;
			other = next_of(card, function,
				q < function->pairs ? &function->pair[q] : &function->admin_queue);
			next = other < next ? other : next;
		}
	}
	return next;
}

uint32_t card_outstanding(struct speckv_card *card)
{
	uint32_t all = 0;

	for (unsigned int f = 0; f < card->functions_max; f++)
		for (unsigned int q = 0; card->functions[f] && q < card->functions[f]->pairs; q++) {
			struct card_queue *queue = &card->functions[f]->pair[q];

			if (queue->state == QUEUE_ENABLED)
				all += queue->waits +
					((card_queue_tail(card->functions[f], queue) -
						 queue->sq_head) &
						(queue->sq_entries - 1));
		}
	return all;
}

/* Has any doorbell moved? */
static bool work_waits(struct speckv_card *card)
{
	for (unsigned int f = 0; f < card->functions_max; f++) {
		struct card_function *function = card->functions[f];

		if (!function || !function->ready || function->held || function->fatal ||
			card->shut_down || (card->fatal && !function->admin))
			continue;
		if (function->admin && function->admin_tail != function->admin_queue.sq_head &&
			!parked(function, &function->admin_queue, SPECKV_EVENT_COMMAND_ID,
				function->admin_queue.asked))
			return true;
		for (unsigned int q = 0; q < function->pairs && !card->fatal; q++) {
			struct card_queue *queue = &function->pair[q];

			/*
			 * Without room for a completion there is nothing to fetch, whatever the
			 * tail.
			 */
			if (queue->state == QUEUE_ENABLED &&
				card_queue_tail(function, queue) != queue->sq_head &&
				!parked(function, queue, SPECKV_EVENT_COMMAND_ID, queue->asked) &&
				card_queue_room(function, queue) > queue->waits)
				return true;
		}
	}
	return false;
}

static void need_wake(struct speckv_card *card, uint32_t value)
{
	for (unsigned int f = 0; f < card->functions_max; f++) {
		struct card_function *function = card->functions[f];

		if (!function || function->doorbells == function->own_doorbells)
			continue;
		for (unsigned int p = 0; p * SPECKV_DOORBELL_SLOTS < function->pairs; p++)
			__atomic_store_n(&function->doorbells[p].need_wake, value,
				__ATOMIC_RELAXED);
	}
}

bool speckv_card_sleep(struct speckv_card *card)
{
	need_wake(card, 1);
	atomic_thread_fence(memory_order_seq_cst);
	if (!work_waits(card))
		return true;
	need_wake(card, 0);
	return false;
}

void speckv_card_wake(struct speckv_card *card)
{
	need_wake(card, 0);
}
