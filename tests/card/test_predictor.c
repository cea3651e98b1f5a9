// SPDX-License-Identifier: MIT
/*
 * LOAD_MODEL, TOUCH, PREDICT: what a loaded model says is what the card answers. Argument:
 * scores.txt.
 */
#include "models.h"

#define WRONG(who, member, value, expected) CLIENT_WRONG(&b.who, member, value, expected)

/* ---- scores --------------------------------------------------------------------------------- */

/* The same events with the library's own calls. */
struct direct {
	struct speckv_predictor *model;
	struct {
		bool here;
		uint64_t last_ms;
		struct speckv_predictor_state state;
		uint32_t survival[SPECKV_PREDICTOR_BINS_MAX + 1];
	} session[16];
};

static void direct_step(struct direct *d, unsigned int session, uint64_t ms, const int8_t *features)
{
	EQUAL(speckv_predictor_step(d->model,
		      d->session[session].here ? &d->session[session].state : NULL, features,
		      &d->session[session].state, d->session[session].survival),
		0);
	d->session[session].here = true;
	d->session[session].last_ms = ms;
}

static uint32_t direct_score(const struct direct *d, unsigned int session, uint64_t ms)
{
	return speckv_curve_score(SPECKV_CURVE_SURVIVAL, speckv_predictor_edges_ms(d->model),
		d->session[session].survival, speckv_predictor_bins(d->model) + 1,
		ms - d->session[session].last_ms, speckv_predictor_window_ms(d->model));
}

static void scores_are_those_of_the_library_and_of_the_reference(const char *path)
{
	struct direct d = { .model = NULL };
	struct bench b = { .rig = NULL };
	unsigned int features = 0, asked = 0;
	uint64_t begin = 0;
	char line[1024];
	FILE *file = fopen(path, "r");

	CHECK(file, "%s: %s", path, strerror(errno));
	while (fgets(line, sizeof(line), file)) {
		unsigned int seed, bins, session, depth, guarded, engaged, decided, won, count = 0;
		unsigned long long ms;
		char verb[16], *at, *equals;
		int8_t inputs[SPECKV_FEATURES];
		int used, value;

		if (sscanf(line, "model %u %u %u", &seed, &features, &bins) == 3) {
			struct model_file model = model_random(seed, features, bins);

			if (b.rig)
				bench_end(&b);
			b = model_bench(&model);
			speckv_predictor_destroy(d.model);
			memset(&d, 0, sizeof(d));
			EQUAL(speckv_predictor_parse(model.bytes, model.length, &d.model), 0);
			EQUAL(speckv_predictor_features(d.model), features);
			EQUAL(speckv_predictor_bins(d.model), bins);
			free(model.bytes);
			begin = b.rig->now;
			continue;
		}
		CHECK(b.rig, "a model comes first: %s", line);
		if (sscanf(line, "%llu figures %u %u %u %u %u", &ms, &depth, &guarded, &engaged,
			    &decided, &won) == 6) {
			EQUAL(model_figure(&b, MODEL_DEPTH), depth);
			EQUAL(model_figure(&b, MODEL_GUARDED), guarded);
			EQUAL(model_figure(&b, MODEL_ENGAGED), engaged);
			EQUAL(model_figure(&b, MODEL_DECIDED), decided);
			EQUAL(model_figure(&b, MODEL_WON), won);
			continue;
		}
		CHECK(sscanf(line, "%llu %15s %u%n", &ms, verb, &session, &used) == 3, "%s", line);
		for (at = line + used; sscanf(at, "%d%n", &value, &used) == 1; at += used)
			inputs[count++ % SPECKV_FEATURES] = (int8_t)value;
		CHECK(!count || count == features, "%s", line);
		/*
		 * Of two times a step's is the earlier one within its millisecond, so that
		 * differences are whole ones.
		 */
		b.rig->now = begin + ms * RIG_MS + (count ? 200000 : 700000);
		equals = strchr(line, '=');
		if (!strcmp(verb, "touch")) {
			EQUAL(model_touch(&b, 0, session, inputs, count), 0);
			direct_step(&d, session, ms, inputs);
			continue;
		}
		CHECK(equals, "%s", line);
		if (!strcmp(verb, "reset"))
			d.session[session].here = false;
		if (count)
			direct_step(&d, session, ms, inputs);
		{
			int32_t answer = model_score(&b, session, inputs, count,
				verb[0] == 'r' ? SPECKV_PREDICT_RESET : 0);

			if (equals[2] == '-') {
				CHECK(answer <= 0, "%d: %s", answer, line);
			} else {
				EQUAL(answer, strtoul(equals + 2, NULL, 10));
				EQUAL(answer, direct_score(&d, session, ms));
				asked++;
			}
		}
	}
	CHECK(asked > 100, "%u scores", asked);
	bench_end(&b);
	speckv_predictor_destroy(d.model);
	fclose(file);
}

static void without_state_recency_answers(void)
{
	struct model_file rule = model_of_rule(), other = model_random(5, 2, 3);
	struct bench b = model_bench(NULL);
	static const int8_t soon[3] = { MODEL_SOON };

	/* Any number of features is a turn, as long as nobody looks at them. */
	EQUAL(model_touch(&b, 0, 1, soon, 3), 0);
	b.rig->now += RIG_SECOND;
	CHECK(model_score(&b, 1, soon, 2, 0) < 0, "no model");
	EQUAL(model_load(&b.admin, &rule), 0);
	CHECK(model_score(&b, 1, NULL, 0, 0) < 0, "no step with the model yet");
	EQUAL(model_touch(&b, 0, 1, soon, 3), SPECKV_STATUS_INVALID);
	EQUAL(model_touch(&b, 0, 1, soon, 1), SPECKV_STATUS_INVALID);
	{
		union card_entry good = model_ask(1, 1);

		WRONG(client, predict.feature_count, 1, SPECKV_STATUS_INVALID);
		WRONG(client, predict.feature_count, 3, SPECKV_STATUS_INVALID);
	}
	CHECK(model_score(&b, 1, NULL, 0, 0) < 0, "a refused command is no step");
	EQUAL(model_touch(&b, 0, 1, soon, 2), 0);
	CHECK(model_score(&b, 1, NULL, 0, 0) > SPECKV_PREDICTOR_ONE / 2, "the model's word");
	CHECK(model_score(&b, 2, NULL, 0, 0) <= 0, "another session has none");
	CHECK(model_score(&b, SPECKV_NO_SESSION, NULL, 0, 0) <= 0, "nor has nobody");
	/* What was remembered belongs to the model. */
	EQUAL(model_load(&b.admin, &rule), 0);
	CHECK(model_score(&b, 1, NULL, 0, 0) <= 0, "loaded again");
	EQUAL(model_touch(&b, 0, 1, soon, 2), 0);
	EQUAL(model_load(&b.admin, &other), 0);
	CHECK(model_score(&b, 1, NULL, 0, 0) <= 0, "another model");
	EQUAL(model_load(&b.admin, &rule), 0);
	EQUAL(model_touch(&b, 0, 1, soon, 2), 0);
	EQUAL(model_unload(&b.admin), 0);
	EQUAL(model_unload(&b.admin), SPECKV_STATUS_NO_MODEL);
	CHECK(model_score(&b, 1, NULL, 0, 0) <= 0, "unloaded");
	bench_end(&b);
	free(rule.bytes);
	free(other.bytes);
}

static void the_model_outlives_power_and_sessions_do_not(void)
{
	struct model_file rule = model_of_rule();
	struct bench b = model_bench(&rule);
	static const int8_t soon[2] = { MODEL_SOON };
	struct speckv_identify *id;
	union card_entry e = { .data = { .opcode = SPECKV_ADMIN_IDENTIFY,
				       .data_bytes = sizeof(*id) } };
	uint8_t digest[32];

	CHECK(card_sha256(rule.bytes, rule.length, digest), "digest");
	for (int round = 0; round < 2; round++) {
		e.data.data_address = rig_alloc(b.rig, 0, sizeof(*id));
		id = rig_at(b.rig, 0, e.data.data_address);
		EQUAL(client_run(&b.admin, &e, NULL), 0);
		CHECK(!memcmp(id->model_digest, digest, 32), "IDENTIFY names the model");
		CHECK(model_score(&b, 1, NULL, 0, 0) <= 0, "nobody was here");
		EQUAL(model_touch(&b, 0, 1, soon, 2), 0);
		CHECK(model_score(&b, 1, NULL, 0, 0) > SPECKV_PREDICTOR_ONE / 2,
			"the model's word");
		if (round)
			break;
		rig_restart(b.rig);
		bench_connect(&b);
		EQUAL(rig_grant(&b.admin, 1, SPECKV_ALL_QUEUES, 1, b.uuid, 3), 0);
	}
	speckv_card_function_reset(b.rig->card, 1);
	EQUAL(memory_session(b.rig->card, 1, 1)->steps, 0);
	EQUAL(model_unload(&b.admin), 0);
	EQUAL(client_run(&b.admin, &e, NULL), 0);
	CHECK(card_zero(id->model_digest, 32), "none");
	rig_restart(b.rig);
	CHECK(!b.rig->card->predictor, "none after a start either");
	bench_end(&b);
	free(rule.bytes);
}

static void a_model_that_was_damaged_in_memory_is_none(void)
{
	struct model_file rule = model_of_rule();
	struct bench b = model_bench(&rule);
	union card_entry e = { .value = { .opcode = SPECKV_ADMIN_SELF_TEST,
				       .value = SPECKV_TEST_PREDICTOR } };
	uint64_t failed;
	const uint8_t *model;

	EQUAL(client_run(&b.admin, &e, &failed), 0);
	EQUAL(failed, 0);
	model = card_model(b.rig->card, &failed);
	b.rig->memory[model - b.rig->memory + 5000] ^= 1;
	EQUAL(client_run(&b.admin, &e, &failed), 0);
	EQUAL(failed, SPECKV_TEST_PREDICTOR);
	rig_restart(b.rig);
	CHECK(!b.rig->card->predictor && !card_model(b.rig->card, &failed), "forgotten");
	bench_end(&b);
	free(rule.bytes);
}

static void sessions_of_functions_are_their_own(void)
{
	struct model_file rule = model_of_rule();
	struct bench b = model_bench(&rule), other = b;
	static const int8_t soon[2] = { MODEL_SOON };

	EQUAL(rig_function(b.rig, false, 1), 2);
	EQUAL(rig_grant(&b.admin, 2, 0, 1, b.uuid, SPECKV_RIGHT_READ), 0);
	other.client = rig_queue(b.rig, 2, 0, 4, 6);
	EQUAL(model_touch(&b, 0, 3, soon, 2), 0);
	EQUAL(memory_session(b.rig->card, 1, 3)->steps, 1);
	EQUAL(memory_session(b.rig->card, 2, 3)->steps, 0);
	EQUAL(model_touch(&other, 0, 3, (int8_t[]){ MODEL_NEVER, 0 }, 2), 0);
	CHECK(memcmp(&memory_session(b.rig->card, 1, 3)->state,
		      &memory_session(b.rig->card, 2, 3)->state,
		      sizeof(struct speckv_predictor_state)),
		"two states");
	CHECK(model_score(&b, 3, NULL, 0, 0) > SPECKV_PREDICTOR_ONE / 2, "as it was");
	bench_end(&b);
	free(rule.bytes);
}

/* ---- models that are none ------------------------------------------------------------------- */

/* Numbers and signs of the table changed as a forger would. */
static void forged_tables_have_no_other_shape(struct rig *rig, const struct model_file *model,
	uint8_t *file)
{
	struct speckv_predictor *predictor;

	for (unsigned int i = 0; i < 3000; i++) {
		static const char signs[] = "0123456789,:[]{}\"\\ 99";

		memcpy(file, model->bytes, 8 + model->table);
		for (unsigned int n = 1 + rig_below(rig, 4); n; n--)
			file[rig_below(rig, 8 + (uint32_t)model->table)] =
				(uint8_t)signs[rig_below(rig, sizeof(signs) - 1)];
		if (!speckv_predictor_parse(file, model->length - rig_below(rig, 2), &predictor)) {
			CHECK(speckv_predictor_features(predictor) == 2 &&
					speckv_predictor_bins(predictor) == 2,
				"no other shape fits");
			speckv_predictor_destroy(predictor);
		}
	}
}

static void models_are_checked_whole(void)
{
	struct model_file model = model_of_rule();
	struct bench b = model_bench(&model);
	union card_entry good = { .model = { .opcode = SPECKV_ADMIN_LOAD_MODEL,
					  .total_bytes = (uint32_t)model.length } };
	struct speckv_predictor *predictor;
	uint64_t data = rig_alloc(b.rig, 0, model.length), bytes, refused = 0;
	uint8_t *file = rig_at(b.rig, 0, data), digest[32];
	const uint8_t *loaded;

	memcpy(file, model.bytes, model.length);
	CHECK(card_sha256(file, model.length, digest), "digest");
	memcpy(good.model.digest, digest, 32);
	good.model.data_address = data;
	good.model.data_bytes = good.model.total_bytes;
	EQUAL(model_unload(&b.admin), 0);
	WRONG(admin, model.flags, SPECKV_MODEL_UNLOAD, SPECKV_STATUS_NO_MODEL);
	WRONG(admin, model.total_bytes, 0, SPECKV_STATUS_INVALID);
	WRONG(admin, model.total_bytes, MEMORY_MODEL_BYTES + 1, SPECKV_STATUS_INVALID);
	WRONG(admin, model.data_bytes, good.model.total_bytes + 1, SPECKV_STATUS_INVALID);
	WRONG(admin, model.offset, 10, SPECKV_STATUS_INVALID);
	WRONG(admin, model.digest[5], (uint8_t)~digest[5], SPECKV_STATUS_BAD_MODEL);
	/* In parts. */
	for (uint32_t offset = 0; offset < model.length; offset += 65536) {
		union card_entry part = good;

		CHECK(!card_model(b.rig->card, &bytes) && !b.rig->card->predictor, "not yet");
		part.model.offset = offset;
		part.model.data_address = data + offset;
		part.model.data_bytes = good.model.total_bytes - offset < 65536
			? good.model.total_bytes - offset
			: 65536;
		EQUAL(client_run(&b.admin, &part, NULL), 0);
	}
	loaded = card_model(b.rig->card, &bytes);
	CHECK(loaded && bytes == model.length && !memcmp(loaded, model.bytes, bytes) &&
			b.rig->card->predictor,
		"loaded");
	/* A bad one replaces nothing: every byte of the table changed in turn. */
	for (uint64_t i = 0; i < 8 + model.table; i++) {
		file[i] ^= 0x08;
		if (!speckv_predictor_parse(file, model.length, &predictor)) {
			speckv_predictor_destroy(predictor); /* in a note, or white space */
		} else {
			CHECK(card_sha256(file, model.length, good.model.digest), "digest");
			EQUAL(client_run(&b.admin, &good, NULL), SPECKV_STATUS_BAD_MODEL);
			refused++;
		}
		file[i] ^= 0x08;
	}
	CHECK(refused > model.table * 9 / 10, "%llu of %llu", (unsigned long long)refused,
		(unsigned long long)model.table);
	CHECK(b.rig->card->predictor &&
			!memcmp(memory_superblock(b.rig->card)->model_digest, digest, 32),
		"the old one stays");
	for (uint64_t i = 0; i < model.length; i += i < 8 + model.table ? 1 : 997)
		CHECK(speckv_predictor_parse(file, i, &predictor) < 0, "cut at %llu",
			(unsigned long long)i);
	forged_tables_have_no_other_shape(b.rig, &model, file);
	free(model.bytes);
	/* More features than a command carries. */
	model = model_random(3, SPECKV_FEATURES + 1, 4);
	EQUAL(model_load(&b.admin, &model), SPECKV_STATUS_BAD_MODEL);
	free(model.bytes);
	model = model_random(3, SPECKV_FEATURES, 4);
	EQUAL(model_load(&b.admin, &model), 0);
	bench_end(&b);
	free(model.bytes);
}

/* ---- room ----------------------------------------------------------------------------------- */

static void sessions_take_a_sixteenth_of_memory_at_most(void)
{
	static const struct {
		uint64_t bytes;
		uint16_t functions;
		uint32_t sessions;
	} sizes[] = {
		{ 16u << 20, 6, 128 },
		{ 16u << 20, 64, 16 },
		{ 64u << 20, 16, 256 },
		{ 64u << 20, 4, 1024 },
	};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct rig *rig = rig_new();

		rig->config.sessions = 0;
		rig->config.functions_max = sizes[i].functions;
		free(rig->memory);
		rig->config.memory_bytes = sizes[i].bytes;
		rig->config.memory = rig->memory = aligned_alloc(4096, sizes[i].bytes);
		CHECK(rig->memory, "memory");
		memset(rig->memory, 0, sizes[i].bytes);
		rig_power_on(rig);
		EQUAL(rig->card->config.sessions, sizes[i].sessions);
		CHECK(rig->card->layout.sessions_all * sizeof(struct memory_session) <=
				sizes[i].bytes / 16,
			"a sixteenth");
		rig_free(rig);
	}
}

int main(int argc, char **argv)
{
	CHECK(argc == 2, "the name of scores.txt");
	scores_are_those_of_the_library_and_of_the_reference(argv[1]);
	without_state_recency_answers();
	the_model_outlives_power_and_sessions_do_not();
	a_model_that_was_damaged_in_memory_is_none();
	sessions_of_functions_are_their_own();
	models_are_checked_whole();
	sessions_take_a_sixteenth_of_memory_at_most();
	return 0;
}
