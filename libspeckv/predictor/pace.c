// SPDX-License-Identifier: MIT
/*
 * Prefetch depth, and the guard between model and recency: functions of counted outcomes, so that
 * they can be replayed.
 */
#include <speckv/predictor.h>

/*
 * Depth. An unused prefetch costs its transfer and evicts something else, and each further one
 * costs the same again; a used one saves a single wait. So the depth rises only if three of four
 * are used, and halves if less than half are: multiplicative decrease, as in congestion control,
 * since all sessions share one channel. 16 outcomes are few enough to follow a change within two
 * moves; 8 between moves let each depth be judged by its own outcomes.
 */
#define DEPTH_START 4
#define OUTCOMES 16
#define MOVE_EVERY 8
#define DEEPER (OUTCOMES * 3 / 4)
#define SHALLOWER (OUTCOMES / 2)

/*
 * Guard. Only disagreements between model and recency carry information. Of 64 disagreements a
 * model no better than a coin wins less than 24 (3/8) in 1.6 of 100 windows, and then falling back
 * to recency loses nothing; one that wins 60 of 100 does so in 1 of 3,000. Released only when the
 * model wins as often as it loses, as hysteresis.
 */
#define CONTESTS 64
#define ENGAGE (CONTESTS * 3 / 8)
#define RELEASE (CONTESTS / 2)

static uint32_t count_ones(uint64_t bits)
{
	return (uint32_t)__builtin_popcountll(bits);
}

uint32_t speckv_pace_depth(const struct speckv_pace *pace)
{
	return pace->depth ? pace->depth : DEPTH_START;
}

void speckv_pace_settle(struct speckv_pace *pace, int used)
{
	uint32_t depth = speckv_pace_depth(pace), hits;

	pace->outcomes = (pace->outcomes << 1 | !!used) & ((UINT64_C(1) << OUTCOMES) - 1);
	if (pace->settled < OUTCOMES)
		pace->settled++;
	if (++pace->since_move < MOVE_EVERY || pace->settled < OUTCOMES)
		return;
	pace->since_move = 0;
	hits = count_ones(pace->outcomes);
	if (hits >= DEEPER && depth < SPECKV_PACE_DEPTH_MAX)
		depth++;
	else if (hits < SHALLOWER && depth > 1)
		depth /= 2;
	pace->depth = depth;
}

void speckv_pace_contest(struct speckv_pace *pace, uint64_t model, uint64_t recency)
{
	uint32_t at = pace->next % SPECKV_PACE_OPEN;

	if (model == recency)
		return;
	/* Count a pair once until it is decided, however often it is scored. */
	for (uint32_t i = 0; i < SPECKV_PACE_OPEN; i++)
		if (pace->open >> i & 1 && pace->by_model[i] == model &&
			pace->by_recency[i] == recency)
			return;
	pace->by_model[at] = model;
	pace->by_recency[at] = recency;
	pace->open |= UINT64_C(1) << at;
	pace->next = at + 1;
}

static void decide(struct speckv_pace *pace, int model_won)
{
	pace->contests = pace->contests << 1 | (uint64_t)!!model_won;
	if (pace->decided < CONTESTS)
		pace->decided++;
	if (pace->decided < CONTESTS)
		return;
	if (!pace->guarded && count_ones(pace->contests) < ENGAGE) {
		pace->guarded = 1;
		pace->engaged++;
	} else if (pace->guarded && count_ones(pace->contests) >= RELEASE) {
		pace->guarded = 0;
	}
}

void speckv_pace_came(struct speckv_pace *pace, uint64_t id)
{
	for (uint64_t left = pace->open; left; left &= left - 1) {
		unsigned int i = (unsigned int)__builtin_ctzll(left);

		if (pace->by_model[i] != id && pace->by_recency[i] != id)
			continue;
		pace->open &= ~(UINT64_C(1) << i);
		decide(pace, pace->by_model[i] == id);
	}
}

void speckv_pace_figures(const struct speckv_pace *pace, struct speckv_pace_figures *out)
{
	*out = (struct speckv_pace_figures){
		.depth = speckv_pace_depth(pace),
		.guarded = pace->guarded,
		.engaged = pace->engaged,
		.settled = pace->settled,
		.used = count_ones(pace->outcomes),
		.decided = pace->decided,
		.won = count_ones(pace->contests),
	};
}
