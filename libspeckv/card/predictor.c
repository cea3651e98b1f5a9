// SPDX-License-Identifier: MIT
/*
 * TOUCH and PREDICT: state per session in device memory, and the return score.
 *
 * With a model, once the session has taken a step with it, a candidate's score is the probability
 * that the session returns within the model's window, in units of 2^-30 (speckv_curve_score): the
 * same for all blocks of a session, comparable between sessions. Scoring does not advance the
 * state.
 *
 * Otherwise the score is recency, and never above 0: -256 * (log2(1 + a) + log2(1 + w)) in integer
 * arithmetic, with 8 fractional bits in each logarithm: `a` milliseconds since the candidate's
 * frame was last used, `w` the expected milliseconds until the session returns. w is the session's
 * usual gap (mean of the logarithms) until that has passed, then the time since its last event, as
 * for scale-free gaps. Without a session, or before its second event, w is only that time (0
 * without a session). Recency is used if no model is loaded, and while the pool's guard is engaged
 * (speckv_pace_came).
 *
 * An absent frame has the lowest score.
 */
#include "card/internal.h"

#define SCORE_ABSENT INT32_MIN

/* log2 of v >= 1 with 8 fractional bits, rounded down. */
static uint32_t log2_8(uint64_t v)
{
	unsigned int whole = 63u - (unsigned int)__builtin_clzll(v);
	/* [1, 2) with 31 fractional bits */
	uint64_t x = whole >= 31 ? v >> (whole - 31) : v << (31 - whole);
	uint32_t bits = whole;

	for (int i = 0; i < 8; i++) {
		x = x * x >> 31;
		bits = bits << 1 | (x >> 32 & 1);
		if (x >> 32)
			x >>= 1;
	}
	return bits;
}

static uint32_t log_ms(uint64_t from_ns, uint64_t now_ns)
{
	return log2_8(1 + (now_ns > from_ns ? (now_ns - from_ns) / 1000000 : 0));
}

static bool has_state(const struct speckv_card *card, const struct memory_session *session)
{
	return card->predictor && session->steps && session->model == card->predictor_number;
}

/* A session returned: score model against LRU, update the guard. */
static void came_back(struct card_context *context, struct card_pool *pool,
	const struct memory_session *session)
{
	struct speckv_pace_figures before, after;

	speckv_pace_figures(&pool->pace, &before);
	speckv_pace_came(&pool->pace, session->life);
	speckv_pace_figures(&pool->pace, &after);
	if (before.guarded == after.guarded)
		return;
	card_event_by(context->function,
		after.guarded ? SPECKV_CARD_GUARD_ENGAGED : SPECKV_CARD_GUARD_RELEASED,
		after.guarded ? SPECKV_WARNING : SPECKV_INFO, pool->number, after.won,
		"the prefetcher won %u of %u contests with recency%s", after.won, after.decided,
		after.guarded ? ": recency takes over" : ": the model is followed again");
}

static void step_session(struct card_context *context, struct card_pool *pool,
	struct memory_session *session, const int8_t *features)
{
	struct speckv_card *card = context->card;
	uint64_t now = card_now(card);
	uint32_t gap;

	if (session->steps) {
		came_back(context, pool, session);
		gap = log_ms(session->last_ns, now);
		session->gap = session->steps == 1 ? gap : (3 * session->gap + gap) / 4;
	} else {
		session->life = ++card->lives;
	}
	if (card->predictor) {
		speckv_predictor_step(card->predictor,
			has_state(card, session) ? &session->state : NULL, features,
			&session->state, NULL);
		session->model = card->predictor_number;
	}
	session->last_ns = now;
	if (session->steps < UINT32_MAX)
		session->steps++;
	card_count(context, COUNT_INFERENCES, 1);
}

/* Probability of a return within the window. */
static uint32_t chance(const struct speckv_card *card, const struct memory_session *session,
	uint64_t now)
{
	uint32_t survival[SPECKV_PREDICTOR_BINS_MAX + 1];

	speckv_predictor_curve(card->predictor, &session->state, survival);
	return speckv_curve_score(SPECKV_CURVE_SURVIVAL, speckv_predictor_edges_ms(card->predictor),
		survival, speckv_predictor_bins(card->predictor) + 1,
		now > session->last_ns ? (now - session->last_ns) / 1000000 : 0,
		speckv_predictor_window_ms(card->predictor));
}

/*
 * Record which session model and recency expect back first: this one, or the one scored before it.
 */
static void contest(struct card_context *context, struct card_pool *pool,
	const struct memory_session *session, uint32_t score, uint64_t now)
{
	const struct speckv_card *card = context->card;
	const struct memory_session *rival = memory_session(card, pool->rival.function,
					    pool->rival.slot),
				    *recent, *likely;
	uint32_t other;

	if (pool->rival.life && pool->rival.life != session->life &&
		rival->life == pool->rival.life && has_state(card, rival)) {
		other = chance(card, rival, now);
		recent = session->last_ns >= rival->last_ns ? session : rival;
		likely = score > other ? session : score < other ? rival : recent;
		speckv_pace_contest(&pool->pace, likely->life, recent->life);
	}
	pool->rival.life = session->life;
	pool->rival.function = context->function->index;
	pool->rival.slot = context->entry->predict.session;
}

static uint32_t session_wait(const struct memory_session *session, uint64_t now)
{
	uint32_t away = session->steps ? log_ms(session->last_ns, now) : 0;

	return session->steps > 1 && session->gap > away ? session->gap : away;
}

/* Every function has session slots of its own. */
void card_sessions_forget(struct speckv_card *card, unsigned int function)
{
	if (card->places[function].sessions)
		memory_clear(card,
			(uint64_t)((uint8_t *)memory_session(card, function, 0) - card->memory),
			(uint64_t)card->config.sessions * sizeof(struct memory_session));
	card->places[function].sessions = false;
}

/* Session memory is backed on a function's first use. */
static bool sessions_there(struct card_context *context)
{
	struct speckv_card *card = context->card;
	struct card_place *place = &card->places[context->function->index];

	if (!place->sessions &&
		memory_take(card,
			(uint64_t)((uint8_t *)memory_session(card, context->function->index, 0) -
				card->memory),
			(uint64_t)card->config.sessions * sizeof(struct memory_session)))
		return false;
	return place->sessions = true;
}

static bool session_bad(const struct card_context *context, uint32_t slot, bool needed)
{
	return slot == SPECKV_NO_SESSION ? needed : slot >= context->card->config.sessions;
}

/* The feature count must match the model's. */
static bool features_bad(const struct speckv_card *card, uint8_t count)
{
	return count > SPECKV_FEATURES ||
		(count && card->predictor && count != speckv_predictor_features(card->predictor));
}

uint32_t card_depth(const struct speckv_card *card, const struct card_pool *pool)
{
	uint64_t fixed = card_feature(card, SPECKV_FEATURE_PREFETCH_DEPTH);

	return fixed ? (uint32_t)fixed : speckv_pace_depth(&pool->pace);
}

uint16_t card_touch(struct card_context *context)
{
	const struct speckv_cmd_touch *touch = &context->entry->touch;
	struct speckv_card *card = context->card;
	struct card_block *block;
	struct card_pool *pool;
	uint16_t status;

	if (touch->flags & ~(SPECKV_CMD_FENCE | SPECKV_CMD_QUIET))
		return CARD_INVALID(context, touch.flags);
	if (CARD_RESERVED(context, touch.buffer))
		return CARD_INVALID(context, touch.buffer);
	if (CARD_RESERVED(context, touch.reserved))
		return CARD_INVALID(context, touch.reserved);
	if (features_bad(context->card, touch->feature_count))
		return CARD_INVALID(context, touch.feature_count);
	if (session_bad(context, touch->session, touch->feature_count))
		return CARD_INVALID(context, touch.session);
	status = card_pool_find(context, touch->pool, SPECKV_RIGHT_READ, &pool);
	if (!status)
		status = card_block_find(context, pool, touch->address, touch->generation, &block);
	if (!status && touch->feature_count && !sessions_there(context))
		status = SPECKV_STATUS_NO_MEMORY;
	if (status)
		return status;
	block->used_ns = card_now(card);
	block->uses++;
	card_tally(card, pool, SPECKV_COUNT_TOUCHES, 1);
	if (touch->feature_count)
		step_session(context, pool,
			memory_session(card, context->function->index, touch->session),
			touch->features);
	return SPECKV_STATUS_OK;
}

/* Inputs to the scores that all candidates of one PREDICT share. */
struct outlook {
	uint64_t now;
	bool learned;
	uint32_t chance; /* learned */
	uint32_t wait; /* otherwise */
};

static int32_t score_candidate(struct card_pool *pool, const struct speckv_candidate *candidate,
	const struct outlook *outlook)
{
	const struct card_block *block = card_block_at(pool, candidate->address);

	if (!block || block->state != BLOCK_SEALED || block->generation != candidate->generation)
		return SCORE_ABSENT;
	return outlook->learned ? (int32_t)outlook->chance
				: -(int32_t)(log_ms(block->used_ns, outlook->now) + outlook->wait);
}

/*
 * Stage in order of score, ties to the earlier candidate, up to the byte budget and the prefetch
 * depth. Skip blocks that cannot be staged.
 */
static void stage_best(struct card_context *context, struct card_pool *pool,
	const struct speckv_candidate *candidates, unsigned int count,
	const struct outlook *outlook)
{
	uint64_t budget = context->entry->predict.budget_bytes, staged;
	uint32_t depth = card_depth(context->card, pool);
	uint64_t done = 0;

	if (outlook->learned && outlook->chance <= SPECKV_PREDICTOR_WORTH)
		return;
	if (depth > context->entry->predict.depth)
		depth = context->entry->predict.depth;
	for (unsigned int n = 0; n < count && context->command->result < depth; n++) {
		const struct speckv_candidate *best = NULL;

		for (unsigned int i = 0; i < count; i++)
			if (!(done >> i & 1) &&
				(!best || (int32_t)candidates[i].score > (int32_t)best->score))
				best = &candidates[i];
		done |= UINT64_C(1) << (best - candidates);
		if ((int32_t)best->score == SCORE_ABSENT || pool->block_bytes > budget)
			return;
		if (card_stage_frame(context, pool, best->address, best->generation, NULL, 0,
			    pool->record.description.shape.layers, &staged) ||
			!staged)
			continue;
		budget -= staged;
		context->command->result++;
	}
}

uint16_t card_predict(struct card_context *context)
{
	const struct speckv_cmd_predict *predict = &context->entry->predict;
	struct speckv_card *card = context->card;
	struct speckv_candidate candidates[SPECKV_CANDIDATES];
	struct memory_session *session = NULL;
	struct outlook outlook = { 0 };
	struct card_pool *pool;
	uint16_t status;
	unsigned int n = predict->candidate_count;

	if (predict->flags &
		~(SPECKV_CMD_FENCE | SPECKV_CMD_QUIET | SPECKV_PREDICT_STAGE |
			SPECKV_PREDICT_RESET))
		return CARD_INVALID(context, predict.flags);
	if (CARD_RESERVED(context, predict.reserved0))
		return CARD_INVALID(context, predict.reserved0);
	if (CARD_RESERVED(context, predict.reserved1))
		return CARD_INVALID(context, predict.reserved1);
	if (!n || n > SPECKV_CANDIDATES)
		return CARD_INVALID(context, predict.candidate_count);
	if (features_bad(card, predict->feature_count))
		return CARD_INVALID(context, predict.feature_count);
	if (!predict->depth || predict->depth > 16)
		return CARD_INVALID(context, predict.depth);
	if (predict->budget_bytes && !(predict->flags & SPECKV_PREDICT_STAGE))
		return CARD_INVALID(context, predict.budget_bytes);
	if (predict->candidates_offset % 64)
		return CARD_INVALID(context, predict.candidates_offset);
	if (session_bad(context, predict->session,
		    predict->feature_count || predict->flags & SPECKV_PREDICT_RESET))
		return CARD_INVALID(context, predict.session);
	status = card_pool_find(context, predict->pool, SPECKV_RIGHT_READ, &pool);
	if (!status)
		status = card_buffer_read(context, predict->buffer, predict->candidates_offset,
			candidates, n * sizeof(candidates[0]));
	if (status)
		return status;
	if (predict->session != SPECKV_NO_SESSION) {
		if (!sessions_there(context))
			return SPECKV_STATUS_NO_MEMORY;
		session = memory_session(card, context->function->index, predict->session);
		if (predict->flags & SPECKV_PREDICT_RESET)
			memset(session, 0, sizeof(*session));
		if (predict->feature_count)
			step_session(context, pool, session, predict->features);
	}
	outlook.now = card_now(card);
	if (session && has_state(card, session)) {
		outlook.chance = chance(card, session, outlook.now);
		contest(context, pool, session, outlook.chance, outlook.now);
		outlook.learned = !pool->pace.guarded;
	}
	if (session && !outlook.learned)
		outlook.wait = session_wait(session, outlook.now);
	/* Write back only the scores: the other fields are the client's and may have changed. */
	for (unsigned int i = 0; i < n; i++) {
		uint64_t at = predict->candidates_offset + i * sizeof(candidates[0]) +
			offsetof(struct speckv_candidate, score);

		candidates[i].score = (uint32_t)score_candidate(pool, &candidates[i], &outlook);
		status = card_buffer_write(context, predict->buffer, at, &candidates[i].score,
			sizeof(candidates[i].score));
		if (status)
			return status;
	}
	if (predict->flags & SPECKV_PREDICT_STAGE)
		stage_best(context, pool, candidates, n, &outlook);
	return SPECKV_STATUS_OK;
}

/*
 * Self-test: known answers of the arithmetic, and the model's digest. Returns the number of
 * failures.
 */
uint32_t card_predictor_test(struct speckv_card *card)
{
	static const struct {
		uint64_t v;
		uint32_t log;
	} known[] = {
		{ 1, 0 },
		{ 2, 256 },
		{ 3, 405 },
		{ 1000, 2551 },
		{ 1u << 20, 5120 },
		{ UINT64_MAX, 16383 },
	};
	uint32_t wrong = 0;

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		wrong += log2_8(known[i].v) != known[i].log;
	return wrong + (card->predictor && !card_model_intact(card));
}
