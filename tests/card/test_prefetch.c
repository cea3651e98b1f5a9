// SPDX-License-Identifier: MIT
/* What the card stages on a loaded model's word: how deep, what is worth it, and the guard. */
#include "models.h"

#define BLOCKS 20

/* ---- staging -------------------------------------------------------------------------------- */

/*
 * Stage for a session what is there, and read so many of the blocks that were staged. Returns how
 * many were.
 */
static uint64_t stage(struct bench *b, uint32_t session, unsigned int first, unsigned int depth,
	unsigned int used)
{
	struct speckv_candidate *c = rig_at(b->rig, 1, b->frames);
	union card_entry e = model_ask(session, BLOCKS);
	uint64_t issued;

	for (unsigned int i = 0; i < BLOCKS; i++)
		c[i] = (struct speckv_candidate){ .address = (first + i) % BLOCKS * RUN,
			.generation = 1 };
	e.predict.flags = SPECKV_PREDICT_STAGE;
	e.predict.budget_bytes = 1u << 30;
	e.predict.depth = (uint8_t)depth;
	EQUAL(client_run(&b->client, &e, &issued), 0);
	for (unsigned int i = 0; i < used && i < issued; i++)
		EQUAL(bench_get(b, (first + i) % BLOCKS * RUN, 1, 1, NULL), 0);
	return issued;
}

/* Staged blocks are thrown out, so that what was not read counts as unused. */
static void clear_stage(struct bench *b)
{
	for (unsigned int i = 0; i < BLOCKS; i++)
		card_stage_drop(b->rig->card, 1, i * RUN, RUN);
}

static void depth_follows_what_became_of_prefetches(void)
{
	struct model_file rule = model_of_rule();
	struct bench b = model_bench(&rule);
	static const int8_t soon[2] = { MODEL_SOON }, never[2] = { MODEL_NEVER };
	union card_entry set = { .value = { .opcode = SPECKV_ADMIN_SET_FEATURE,
					 .feature = SPECKV_FEATURE_PREFETCH_DEPTH } };
	uint64_t depth;

	for (unsigned int i = 1; i < BLOCKS; i++)
		EQUAL(bench_put(&b, i * RUN, 1, 1, NULL), 0);
	EQUAL(model_touch(&b, 0, 1, never, 2), 0);
	CHECK(model_score(&b, 1, NULL, 0, 0) < SPECKV_PREDICTOR_ONE / 10, "not soon");
	b.rig->now += 600 * RIG_SECOND;
	EQUAL(model_touch(&b, 0, 1, soon, 2), 0);
	EQUAL(stage(&b, 1, 0, 16, 0), 4);
	EQUAL(stage(&b, 1, 0, 3, 0), 3);
	clear_stage(&b);
	EQUAL(model_figure(&b, MODEL_SETTLED), 4);
	EQUAL(model_figure(&b, MODEL_USED), 0);
	/* All used: deeper and deeper. */
	for (unsigned int i = 0; i < 60; i++) {
		depth = model_figure(&b, MODEL_DEPTH);
		EQUAL(model_touch(&b, 0, 1, soon, 2), 0);
		EQUAL(stage(&b, 1, i, 16, 16), depth);
		clear_stage(&b);
		CHECK(model_figure(&b, MODEL_DEPTH) >= depth || model_figure(&b, MODEL_USED) < 12,
			"no step back");
	}
	EQUAL(model_figure(&b, MODEL_DEPTH), 16);
	EQUAL(model_figure(&b, MODEL_USED), 16);
	/* A quarter: back, and never to none. */
	for (unsigned int i = 0; i < 60; i++) {
		depth = model_figure(&b, MODEL_DEPTH);
		EQUAL(stage(&b, 1, i, 16, (unsigned int)(depth + 3) / 4 - (depth == 1)), depth);
		clear_stage(&b);
	}
	EQUAL(model_figure(&b, MODEL_DEPTH), 1);
	/* Fixed is fixed. */
	set.value.value = 7;
	EQUAL(client_run(&b.admin, &set, NULL), 0);
	EQUAL(model_figure(&b, MODEL_DEPTH), 7);
	EQUAL(stage(&b, 1, 0, 16, 0), 7);
	clear_stage(&b);
	set.value.value = 0;
	EQUAL(client_run(&b.admin, &set, NULL), 0);
	EQUAL(model_figure(&b, MODEL_DEPTH), 1);
	/* What the client fetched by itself says nothing about the model. */
	depth = model_figure(&b, MODEL_USED);
	{
		union card_entry e = { .read = { .opcode = SPECKV_IO_PREFETCH,
					       .pool = 1,
					       .generation = 1,
					       .flags = SPECKV_READ_STAGE } };

		memset(e.read.key_prefix, 1, 16);
		EQUAL(client_run(&b.client, &e, NULL), 0);
		EQUAL(bench_get(&b, 0, 1, 1, NULL), 0);
		EQUAL(model_figure(&b, MODEL_USED), depth);
	}
	bench_end(&b);
	free(rule.bytes);
}

/* A session that will hardly come is not worth a byte. */
static void what_is_not_worth_it_is_not_staged(void)
{
	struct model_file rule = model_of_rule();
	struct bench b = model_bench(&rule);
	static const int8_t never[2] = { -127 };

	EQUAL(model_touch(&b, 0, 1, never, 2), 0);
	CHECK(model_score(&b, 1, NULL, 0, 0) > SPECKV_PREDICTOR_WORTH, "a little");
	EQUAL(stage(&b, 1, 0, 16, 0), 1); /* only the first block exists */
	clear_stage(&b);
	b.rig->now += 11 * RIG_SECOND;
	CHECK(model_score(&b, 1, NULL, 0, 0) <= SPECKV_PREDICTOR_WORTH, "%d",
		model_score(&b, 1, NULL, 0, 0));
	EQUAL(stage(&b, 1, 0, 16, 0), 0);
	bench_end(&b);
	free(rule.bytes);
}

/* ---- the guard ------------------------------------------------------------------------------ */

/*
 * Two sessions, of which one says SOON and then the other NEVER: recency says that the second comes
 * first, the model the first one. `right`: so it happens.
 */
static void round_of(struct bench *b, bool right)
{
	static const int8_t soon[2] = { MODEL_SOON }, never[2] = { MODEL_NEVER };
	unsigned int first = 1, second = 2;

	EQUAL(model_touch(b, 0, first, soon, 2), 0);
	model_score(b, first, NULL, 0, 0);
	b->rig->now += RIG_SECOND;
	EQUAL(model_touch(b, 0, second, never, 2), 0);
	model_score(b, second, NULL, 0, 0);
	b->rig->now += RIG_SECOND;
	EQUAL(model_touch(b, 0, right ? first : second, never, 2), 0);
	b->rig->now += RIG_SECOND;
}

static void a_model_that_does_worse_than_recency_is_left_aside(void)
{
	struct model_file rule = model_of_rule();
	struct bench b = model_bench(&rule);
	static const int8_t soon[2] = { MODEL_SOON };
	struct speckv_log_header header;
	struct speckv_log_event events[64];
	unsigned int engaged = 0, released = 0, rounds;

	for (unsigned int i = 0; i < 100; i++)
		round_of(&b, true);
	EQUAL(model_figure(&b, MODEL_GUARDED), 0);
	EQUAL(model_figure(&b, MODEL_DECIDED), 64);
	EQUAL(model_figure(&b, MODEL_WON), 64);
	/* The load changes: what it learned is the wrong way round. */
	for (rounds = 0; !model_figure(&b, MODEL_GUARDED); rounds++) {
		CHECK(rounds < 64, "within a window");
		CHECK(model_score(&b, 1, soon, 2, 0) > 0, "still believed");
		round_of(&b, false);
	}
	CHECK(rounds > 32, "%u: not by a few", rounds);
	CHECK(model_score(&b, 1, soon, 2, 0) <= 0, "recency answers");
	EQUAL(model_figure(&b, MODEL_ENGAGED), 1);
	/* And back: it is asked on, so that it can be seen to be right again. */
	for (rounds = 0; model_figure(&b, MODEL_GUARDED); rounds++) {
		CHECK(rounds < 64, "within a window");
		round_of(&b, true);
	}
	CHECK(rounds > 4, "%u: not by a few", rounds);
	CHECK(model_score(&b, 1, soon, 2, 0) > 0, "believed again");
	EQUAL(model_figure(&b, MODEL_ENGAGED), 1);
	EQUAL(rig_log(&b.admin, SPECKV_LOG_EVENTS, 0, 0, events, sizeof(events), &header), 0);
	for (unsigned int i = 0; i < header.entries; i++) {
		engaged += events[i].kind == SPECKV_CARD_GUARD_ENGAGED && events[i].pool == 1;
		released += events[i].kind == SPECKV_CARD_GUARD_RELEASED && events[i].pool == 1;
	}
	EQUAL(engaged, 1);
	EQUAL(released, 1);
	/* A new model has no state of the old one. */
	EQUAL(model_load(&b.admin, &rule), 0);
	EQUAL(model_figure(&b, MODEL_DECIDED), 0);
	bench_end(&b);
	free(rule.bytes);
}

/* A session that was evicted is not taken for the new one in its slot. */
static void a_session_that_was_forgotten_is_in_no_contest(void)
{
	struct model_file rule = model_of_rule();
	struct bench b = model_bench(&rule);
	static const int8_t soon[2] = { MODEL_SOON }, never[2] = { MODEL_NEVER };

	for (int forget = 0; forget < 2; forget++) {
		model_score(&b, 1, soon, 2, 0);
		if (forget)
			model_score(&b, 1, NULL, 0, SPECKV_PREDICT_RESET);
		EQUAL(model_touch(&b, 0, 1, soon, 2), 0);
		b.rig->now += RIG_SECOND;
		model_score(&b, 2, never, 2, 0);
		EQUAL(model_touch(&b, 0, 1, soon, 2), 0);
		EQUAL(model_figure(&b, MODEL_DECIDED), 1);
	}
	model_score(&b, 1, soon, 2, 0);
	b.rig->now += RIG_SECOND;
	model_score(&b, 2, never, 2, 0);
	model_score(&b, 1, NULL, 0, SPECKV_PREDICT_RESET);
	EQUAL(model_touch(&b, 0, 1, soon, 2), 0);
	EQUAL(model_figure(&b, MODEL_DECIDED), 1);
	bench_end(&b);
	free(rule.bytes);
}

static void its_figures_are_only_to_look_at(void)
{
	struct bench b = model_bench(NULL);
	union card_entry e = { .value = { .opcode = SPECKV_ADMIN_SET_FEATURE,
				       .pool = 1,
				       .feature = SPECKV_FEATURE_POOL_PREFETCH,
				       .value = 3 } };

	EQUAL(client_run(&b.admin, &e, NULL), SPECKV_STATUS_INVALID);
	EQUAL(model_figure(&b, MODEL_DEPTH), 4);
	e.value.opcode = SPECKV_ADMIN_GET_FEATURE;
	e.value.value = 0;
	e.value.pool = 2;
	EQUAL(client_run(&b.admin, &e, NULL), SPECKV_STATUS_NO_POOL);
	e.value.feature++;
	EQUAL(client_run(&b.admin, &e, NULL), SPECKV_STATUS_NO_FEATURE);
	bench_end(&b);
}

int main(void)
{
	depth_follows_what_became_of_prefetches();
	what_is_not_worth_it_is_not_staged();
	a_model_that_does_worse_than_recency_is_left_aside();
	a_session_that_was_forgotten_is_in_no_contest();
	its_figures_are_only_to_look_at();
	return 0;
}
